"""Our protocol files against the descriptors that the protocols' own Python clients ship.

KServe's and MLServer's are compared too, with the ways in which they are known to differ.

What we declare must be a subset of theirs with the same encoding: packages, message and field
names, numbers, types, labels, oneofs, enum values, services, methods and their streaming.

Our descriptors come from the reflection service of a running server (MODELYARD_BINARY), or from a
file that holds a FileDescriptorSet (MODELYARD_DESCRIPTORS).
"""

import ast
import contextlib
import importlib.util
import os
import pathlib
import tempfile
import unittest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
from google.protobuf import descriptor_pb2

import harness
import models

FIELD = descriptor_pb2.FieldDescriptorProto
SERVICES = [
    "inference.GRPCInferenceService",
    "tensorflow.serving.PredictionService",
    "tensorflow.serving.ModelService",
]


def our_files():
    path = os.environ.get("MODELYARD_DESCRIPTORS")
    if path:
        with open(path, "rb") as file:
            files = descriptor_pb2.FileDescriptorSet.FromString(file.read()).file
        return list(files)
    return reflected_files()


def reflected_files():
    import grpc
    from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        models.save(folder, "add", models.add())
        server = stack.enter_context(harness.Server([folder]))
        channel = stack.enter_context(grpc.insecure_channel(server.address))
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        files = {}
        wanted = [reflection_pb2.ServerReflectionRequest(file_containing_symbol=s) for s in SERVICES]
        while wanted:
            for answer in stub.ServerReflectionInfo(iter(wanted)):
                if answer.HasField("error_response"):
                    raise AssertionError(answer.error_response.error_message)
                for data in answer.file_descriptor_response.file_descriptor_proto:
                    file = descriptor_pb2.FileDescriptorProto.FromString(data)
                    files[file.name] = file
            missing = {name for file in files.values() for name in file.dependency} - set(files)
            wanted = [reflection_pb2.ServerReflectionRequest(file_by_filename=n) for n in missing]
        return list(files.values())


def their_files():
    """The files that the clients are made of, by the packages that they declare."""
    from tensorflow_serving.apis import model_service_pb2, prediction_service_pb2
    from tritonclient.grpc import service_pb2

    files = {}

    def add(descriptor):
        if descriptor.name not in files:
            proto = descriptor_pb2.FileDescriptorProto()
            descriptor.CopyToProto(proto)
            files[descriptor.name] = proto
            for dependency in descriptor.dependencies:
                add(dependency)

    for module in (service_pb2, prediction_service_pb2, model_service_pb2):
        add(module.DESCRIPTOR)
    return list(files.values())


def generated(package, *paths):
    """The descriptors in a package's generated modules. The modules are read, not imported: they
    declare messages of the same names as tritonclient's, and their packages want far more."""
    spec = importlib.util.find_spec(package)
    if spec is None:
        harness.skip(f"{package} is not installed")
    files = []
    for path in paths:
        source = pathlib.Path(spec.submodule_search_locations[0], path).read_text()
        calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
        named = [call for call in calls if getattr(call.func, "attr", "") == "AddSerializedFile"]
        data = ast.literal_eval(named[0].args[0])
        files.append(descriptor_pb2.FileDescriptorProto.FromString(data))
    return files


class Declared:
    """Everything that a set of files declares, by full name."""

    def __init__(self, files):
        self.fields, self.messages, self.values, self.methods = {}, set(), {}, {}
        for file in files:
            proto3 = file.syntax == "proto3"
            for message in file.message_type:
                self.message(file.package, message, proto3)
            for enum in file.enum_type:
                self.enum(file.package, enum)
            for service in file.service:
                for m in service.method:
                    name = f"{file.package}.{service.name}/{m.name}"
                    self.methods[name] = (
                        m.input_type,
                        m.output_type,
                        m.client_streaming,
                        m.server_streaming,
                    )

    def message(self, scope, message, proto3):
        name = f"{scope}.{message.name}"
        self.messages.add(name)
        for field in message.field:
            oneof = message.oneof_decl[field.oneof_index].name if field.HasField("oneof_index") else None
            self.fields[f"{name}.{field.name}"] = (
                field.number,
                FIELD.Type.Name(field.type),
                FIELD.Label.Name(field.label),
                field.type_name,
                oneof,
                packed(field, proto3),
                message.options.map_entry,
            )
        for nested in message.nested_type:
            self.message(name, nested, proto3)
        for enum in message.enum_type:
            self.enum(name, enum)

    def enum(self, scope, enum):
        for value in enum.value:
            self.values[f"{scope}.{enum.name}.{value.name}"] = value.number


def packed(field, proto3):
    """Whether the elements of a list share one key; the default of proto3 for numbers."""
    unpackable = (FIELD.TYPE_STRING, FIELD.TYPE_BYTES, FIELD.TYPE_MESSAGE, FIELD.TYPE_GROUP)
    if field.label != FIELD.LABEL_REPEATED or field.type in unpackable:
        return False
    return field.options.packed if field.options.HasField("packed") else proto3


def differences(ours, theirs):
    """What `ours` declares that `theirs` lacks or has otherwise."""
    found = [f"message {name} does not exist" for name in sorted(ours.messages - theirs.messages)]
    for kind in ("fields", "values", "methods"):
        mine, other = getattr(ours, kind), getattr(theirs, kind)
        for name, fact in sorted(mine.items()):
            if name not in other:
                found.append(f"{kind}: {name} does not exist")
            elif other[name] != fact:
                found.append(f"{kind}: {name} is {fact}, should be {other[name]}")
    return found


def in_packages(files, packages):
    return Declared([file for file in files if file.package in packages])


class Descriptors(unittest.TestCase):
    PACKAGES = ["inference", "tensorflow", "tensorflow.error", "tensorflow.serving"]

    @classmethod
    def setUpClass(cls):
        harness.needs("tritonclient.grpc", "tensorflow_serving.apis", "grpc_reflection")
        cls.ours, cls.theirs = our_files(), their_files()

    def test_what_we_declare_is_what_the_clients_have(self):
        packages = {file.package for file in self.ours if not file.package.startswith("google.")}
        packages = {p for p in packages if not p.startswith("grpc.")}
        self.assertEqual(packages, set(self.PACKAGES))
        ours, theirs = in_packages(self.ours, packages), Declared(self.theirs)
        self.assertGreater(len(ours.fields), 200, "the files were not found")
        self.assertEqual(differences(ours, theirs), [])

    def test_no_method_is_missing(self):
        ours, theirs = Declared(self.ours), Declared(self.theirs)
        methods = {name for name in theirs.methods if name.split("/")[0] in SERVICES}
        self.assertEqual(methods - set(ours.methods), set())
        self.assertEqual(len(methods), 27)

    def test_the_messages_of_inference_are_complete(self):
        """A field that we did not declare would be ignored in silence: so there is none."""
        ours = in_packages(self.ours, ["inference"])
        theirs = in_packages(
            [file for file in self.theirs if "model_config" not in file.name], ["inference"]
        )
        self.assertEqual(differences(theirs, ours), [])

    def test_kserve_differs_in_the_repository_only(self):
        """Its requests to load and unload have the model's name where Triton has the repository's,
        and its answers say more."""
        kserve = Declared(generated("kserve", "protocol/grpc/grpc_predict_v2_pb2.py"))
        self.assertGreater(len(kserve.fields), 60)
        name = "(%d, 'TYPE_STRING', 'LABEL_OPTIONAL', '', None, False, False)"
        expected = []
        for word in ("Load", "Unload"):
            message = f"fields: inference.RepositoryModel{word}"
            expected += [
                f"{message}Request.model_name is {name % 1}, should be {name % 2}",
                f"{message}Response.is{word}ed does not exist",
                f"{message}Response.model_name does not exist",
            ]
        self.assertEqual(differences(kserve, Declared(self.ours)), expected)

    def test_mlserver_differs_in_streams_and_in_parameters_of_metadata(self):
        """A stream answers with bare responses; metadata has parameters. Its second service is an
        older form of the repository's methods."""
        dataplane = Declared(generated("mlserver", "grpc/dataplane_pb2.py"))
        self.assertGreater(len(dataplane.fields), 80)
        found = differences(dataplane, Declared(self.ours))
        extra = "inference.ModelMetadataResponse."
        others = [line for line in found if not ("arameters" in line and extra in line)]
        request, answer = ".inference.ModelInferRequest", ".inference.ModelInferResponse"
        ours = (request, ".inference.ModelStreamInferResponse", True, True)
        stream = "methods: inference.GRPCInferenceService/ModelStreamInfer"
        expected = [f"{stream} is {(request, answer, True, True)}, should be {ours}"]
        self.assertEqual(others, expected)
        self.assertEqual(len(found), 9)

    def test_the_comparison_finds_a_difference(self):
        changed = []
        for file in self.theirs:
            copy = descriptor_pb2.FileDescriptorProto()
            copy.CopyFrom(file)
            for message in copy.message_type:
                if message.name == "ModelInferRequest":
                    message.field[0].number = 99
            changed.append(copy)
        found = differences(Declared(self.theirs), Declared(changed))
        self.assertEqual(len(found), 1)
        self.assertIn("inference.ModelInferRequest.model_name", found[0])


if __name__ == "__main__":
    unittest.main()
