"""Writes ONNX's backend tests to a folder, one folder a test, for `examples/backend_tests.rs`.

    python write_backend_tests.py FOLDER

Recent releases of the package `onnx` make the node tests in memory and no longer ship them as
files. The tests that are shipped as files (converted PyTorch modules, small graphs) are copied.
Each test gets a `data.json` with the tolerances that the test itself asks for.
"""

import json
import pathlib
import shutil
import sys

from onnx import TensorProto, numpy_helper
from onnx.backend.test.loader import DATA_DIR, load_model_tests


def encode(value, info):
    kind = info.type.WhichOneof("value")
    if kind == "map_type":
        return numpy_helper.from_dict(value, info.name)
    if kind == "sequence_type":
        return numpy_helper.from_list(value, info.name)
    if kind == "optional_type":
        return numpy_helper.from_optional(value, info.name)
    if isinstance(value, TensorProto):
        return value
    return numpy_helper.from_array(value, info.name)


def main(folder):
    for case in load_model_tests(kind="node"):
        target = folder / "node" / case.name
        target.mkdir(parents=True, exist_ok=True)
        (target / "model.onnx").write_bytes(case.model.SerializeToString())
        tolerances = {"rtol": case.rtol, "atol": case.atol}
        (target / "data.json").write_text(json.dumps(tolerances))
        graph = case.model.graph
        for index, (inputs, outputs) in enumerate(case.data_sets):
            data = target / f"test_data_set_{index}"
            data.mkdir(exist_ok=True)
            for role, values, infos in (
                ("input", inputs, graph.input),
                ("output", outputs, graph.output),
            ):
                for position, (value, info) in enumerate(zip(values, infos)):
                    try:
                        proto = encode(value, info)
                    except Exception as error:  # An optional without a value cannot be written.
                        print(f"{case.name}: {role} {position}: {error}")
                        continue
                    (data / f"{role}_{position}.pb").write_bytes(proto.SerializeToString())
    for kind in ("pytorch-converted", "pytorch-operator", "simple"):
        shutil.copytree(pathlib.Path(DATA_DIR) / kind, folder / kind, dirs_exist_ok=True)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
