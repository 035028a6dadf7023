"""TensorFlow Serving's own gRPC stubs against `modelyard serve`."""

import os
import unittest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import harness
import models


class TensorFlowServing(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        harness.needs("tensorflow", "tensorflow_serving.apis", "onnx", "grpc")
        import grpc
        from tensorflow_serving.apis import model_service_pb2_grpc, prediction_service_pb2_grpc

        server = harness.serve(cls, sum=models.regression())
        channel = cls.enterClassContext(grpc.insecure_channel(server.address))
        cls.predictions = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        cls.models = model_service_pb2_grpc.ModelServiceStub(channel)
        harness.wait_until(lambda: cls.status("sum") == 30, server)

    @classmethod
    def status(cls, name):
        import grpc
        from tensorflow_serving.apis import get_model_status_pb2

        request = get_model_status_pb2.GetModelStatusRequest()
        request.model_spec.name = name
        try:
            return cls.models.GetModelStatus(request).model_version_status[0].state
        except grpc.RpcError:
            return None

    def refused(self, code, text, method, request):
        import grpc

        with self.assertRaises(grpc.RpcError) as caught:
            method(request)
        self.assertEqual(caught.exception.code(), getattr(grpc.StatusCode, code))
        self.assertIn(text, caught.exception.details())

    def predict(self, model, **inputs):
        import tensorflow as tf
        from tensorflow_serving.apis import predict_pb2

        request = predict_pb2.PredictRequest()
        request.model_spec.name = model
        for name, value in inputs.items():
            request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
        return request

    def test_predict(self):
        import numpy as np
        import tensorflow as tf

        a = np.arange(4, dtype=np.float32).reshape(2, 2)
        request = self.predict("add", a=a, b=a)
        request.model_spec.version.value = 1
        request.output_filter.append("sum")
        answer = self.predictions.Predict(request)
        np.testing.assert_array_equal(tf.make_ndarray(answer.outputs["sum"]), a + a)
        self.assertEqual(list(answer.outputs["sum"].float_val), [0, 2, 4, 6])
        self.assertEqual(answer.model_spec.version.value, 1)
        self.assertEqual(answer.model_spec.signature_name, "serving_default")

    def test_every_type_comes_back_as_it_went(self):
        import numpy as np
        import tensorflow as tf

        checked = 0
        for name in self.types:
            with self.subTest(name):
                if name == "BYTES":
                    array = np.array([[b"a", b""], [b"\xff", b"d"]], np.object_)
                elif name == "BOOL":
                    array = np.array([[True, False], [False, True]])
                else:
                    kinds = {"BF16": tf.bfloat16.as_numpy_dtype}
                    kind = kinds.get(name) or name.replace("FP", "FLOAT").lower()
                    array = np.array([[1, 2], [3, 4]]).astype(kind)
                answer = self.predictions.Predict(self.predict(f"echo_{name}", x=array))
                np.testing.assert_array_equal(tf.make_ndarray(answer.outputs["y"]), array)
                checked += 1
        self.assertEqual(checked, 14)

    def test_a_list_may_be_shorter_than_its_shape(self):
        import tensorflow as tf

        request = self.predict("echo_FP32")
        request.inputs["x"].CopyFrom(tf.make_tensor_proto(5.0, shape=[3, 2]))
        answer = self.predictions.Predict(request)
        self.assertEqual(list(answer.outputs["y"].float_val), [5.0] * 6)
        request.inputs["x"].tensor_shape.dim[0].size = 1_000_000_000
        self.refused("INVALID_ARGUMENT", "too large to fill", self.predictions.Predict, request)

    def test_bad_input_is_refused_by_name(self):
        import numpy as np

        predict, a = self.predictions.Predict, np.ones((1, 2), np.float32)
        refused = self.refused
        refused("NOT_FOUND", "Servable not found for request: Latest(nobody)", predict, self.predict("nobody", a=a))
        refused("INVALID_ARGUMENT", "names no model", predict, self.predict("", a=a))
        refused("INVALID_ARGUMENT", '"b"', predict, self.predict("add", a=a))
        integers = self.predict("add", a=a.astype(np.int32), b=a)
        refused("INVALID_ARGUMENT", 'input "a"', predict, integers)
        other = self.predict("add", a=a, b=a)
        other.model_spec.signature_name = "other"
        refused("INVALID_ARGUMENT", 'signature name: "other" not found', predict, other)
        version = self.predict("add", a=a, b=a)
        version.model_spec.version.value = 7
        refused("NOT_FOUND", "Specific(add, 7)", predict, version)
        output = self.predict("add", a=a, b=a)
        output.output_filter.append("nothing")
        refused("INVALID_ARGUMENT", '"nothing"', predict, output)

    def examples(self, request, rows, context=None):
        import tensorflow as tf

        def example(values):
            feature = {"x": tf.train.Feature(float_list=tf.train.FloatList(value=values))}
            return tf.train.Example(features=tf.train.Features(feature=feature if values else {}))

        examples = [example(row) for row in rows]
        if context:
            request.input.example_list_with_context.examples.extend(examples)
            request.input.example_list_with_context.context.CopyFrom(example(context))
        else:
            request.input.example_list.examples.extend(examples)
        return request

    def test_classify(self):
        from tensorflow_serving.apis import classification_pb2

        request = self.examples(classification_pb2.ClassificationRequest(), [[0, 9, 0], []], [9, 0, 0])
        request.model_spec.name = "scores"
        answer = self.predictions.Classify(request)
        best = [max(c.classes, key=lambda c: c.score).label for c in answer.result.classifications]
        self.assertEqual(best, ["1", "0"])

    def test_regress_and_multi_inference(self):
        from tensorflow_serving.apis import inference_pb2, regression_pb2

        request = self.examples(regression_pb2.RegressionRequest(), [[1, 2, 3], [4, 5, 6]])
        request.model_spec.name = "sum"
        answer = self.predictions.Regress(request)
        self.assertEqual([r.value for r in answer.result.regressions], [6, 15])

        request = self.examples(inference_pb2.MultiInferenceRequest(), [[1, 2, 3]])
        for method in ("regress", "classify"):
            task = request.tasks.add(method_name=f"tensorflow/serving/{method}")
            task.model_spec.name = "sum"
        results = self.predictions.MultiInference(request).results
        self.assertEqual(results[0].regression_result.regressions[0].value, 6)
        self.assertEqual(results[1].classification_result.classifications[0].classes[0].score, 6)
        request.tasks[1].model_spec.name = "scores"
        method = self.predictions.MultiInference
        self.refused("INVALID_ARGUMENT", "same model", method, request)

        request = self.examples(regression_pb2.RegressionRequest(), [[1, 2]])
        request.model_spec.name = "sum"
        self.refused("INVALID_ARGUMENT", 'input "x"', self.predictions.Regress, request)
        request = self.examples(regression_pb2.RegressionRequest(), [[1, 2, 3]])
        request.model_spec.name = "scores"
        self.refused("FAILED_PRECONDITION", "use predict", self.predictions.Regress, request)

    def test_metadata(self):
        from tensorflow_serving.apis import get_model_metadata_pb2 as metadata

        request = metadata.GetModelMetadataRequest(metadata_field=["signature_def"])
        request.model_spec.name = "add"
        answer = self.predictions.GetModelMetadata(request)
        signatures = metadata.SignatureDefMap()
        self.assertTrue(answer.metadata["signature_def"].Unpack(signatures))
        signature = signatures.signature_def["serving_default"]
        self.assertEqual(set(signature.inputs), {"a", "b"})
        sizes = [dim.size for dim in signature.inputs["a"].tensor_shape.dim]
        self.assertEqual((sizes, signature.inputs["a"].dtype), ([-1, 2], 1))
        request.metadata_field[0] = "weights"
        method = self.predictions.GetModelMetadata
        self.refused("INVALID_ARGUMENT", '"weights"', method, request)

    def test_status_and_reload(self):
        from tensorflow_serving.apis import get_model_status_pb2, model_management_pb2

        request = get_model_status_pb2.GetModelStatusRequest()
        request.model_spec.name = "nobody"
        method = self.models.GetModelStatus
        self.refused("NOT_FOUND", "Could not find any versions of model nobody", method, request)

        reload = model_management_pb2.ReloadConfigRequest()
        wanted = [f"echo_{name}" for name in self.types if name != "INT16"] + ["add", "scores", "sum"]
        for name in wanted:
            reload.config.model_config_list.config.add(name=name)
        answer = self.models.HandleReloadConfigRequest(reload)
        self.assertEqual(answer.status.error_code, 0)
        self.assertNotEqual(self.status("echo_INT16"), 30)
        self.assertEqual(self.status("add"), 30)
        reload.config.model_config_list.config.add(name="echo_INT16")
        self.models.HandleReloadConfigRequest(reload)
        self.assertEqual(self.status("echo_INT16"), 30)
        reload.config.model_config_list.config[0].base_path = "/elsewhere"
        method = self.models.HandleReloadConfigRequest
        self.refused("UNIMPLEMENTED", "base_path", method, reload)


if __name__ == "__main__":
    unittest.main()
