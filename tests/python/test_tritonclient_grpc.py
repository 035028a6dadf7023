"""NVIDIA's own gRPC client against `modelyard serve`."""

import queue
import unittest

import harness


class TritonClient(harness.TritonClient):
    module = "tritonclient.grpc"

    @classmethod
    def setUpClass(cls):
        harness.needs("grpc_health.v1.health_pb2")
        super().setUpClass()

    def add(self, a, b, **options):
        return self.client.infer("add", [self.tensor("a", a), self.tensor("b", b)], **options)

    def refused(self, code, text, call, *args, **options):
        status = self.refusal(text, call, *args, **options)
        self.assertEqual(status, f"StatusCode.{code}")

    def test_what_is_said_of_server_and_model(self):
        self.assertTrue(self.client.is_server_live())
        metadata = self.client.get_server_metadata()
        self.assertEqual(metadata.name, "modelyard")
        self.assertIn("statistics", metadata.extensions)
        self.assertTrue(self.client.is_model_ready("add", "1"))
        model = self.client.get_model_metadata("add")
        self.assertEqual([i.name for i in model.inputs], ["a", "b"])
        self.assertEqual(list(model.inputs[0].shape), [-1, 2])
        self.assertEqual(list(model.versions), ["1"])
        config = self.client.get_model_config("add", as_json=True)["config"]
        self.assertEqual(config["input"][0]["data_type"], "TYPE_FP32")
        self.assertEqual(config["input"][0]["dims"], ["2"])
        self.assertGreater(config["max_batch_size"], 0)

    def test_answers_come_with_their_id(self):
        import numpy as np

        a = np.arange(6, dtype=np.float32).reshape(3, 2)
        result = self.add(a, a, request_id="seven", priority=1, timeout=5_000_000)
        np.testing.assert_array_equal(result.as_numpy("sum"), a + a)
        self.assertEqual(result.get_response().id, "seven")
        self.assertEqual(result.get_response().model_version, "1")

    def test_every_type_comes_back_as_it_went(self):
        import ml_dtypes
        import numpy as np

        checked = 0
        for name in self.types:
            with self.subTest(name):
                if name == "BYTES":
                    array = np.array([[b"a", b""], ["ü".encode(), b"\xff\x00"]], np.object_)
                elif name == "BOOL":
                    array = np.array([[True, False], [False, True]])
                elif name == "BF16":
                    array = np.array([[1.5, -2.0], [0.0, 4.0]], ml_dtypes.bfloat16)
                else:
                    kind = name.replace("FP", "FLOAT").lower()
                    array = np.array([[1, 2], [3, 4]], kind)
                result = self.client.infer(f"echo_{name}", [self.tensor("x", array, name)])
                self.assertEqual(result.get_output("y").datatype, name)
                np.testing.assert_array_equal(result.as_numpy("y"), array)
                checked += 1
        self.assertEqual(checked, 14)

    def test_no_rows_and_many_rows(self):
        import numpy as np

        for rows in (0, 1, 10_000):
            a = np.ones((rows, 2), np.float32)
            np.testing.assert_array_equal(self.add(a, a).as_numpy("sum"), a + a)

    def test_classification(self):
        import numpy as np
        import tritonclient.grpc as triton

        wanted = triton.InferRequestedOutput("scores", class_count=2)
        rows = np.array([[0, 9, 1], [5, 0, 0]], np.float32)
        result = self.client.infer("scores", [self.tensor("x", rows)], outputs=[wanted])
        classes = [[c.decode().split(":")[1] for c in row] for row in result.as_numpy("scores")]
        self.assertEqual(classes, [["1", "2"], ["0", "1"]])

    def test_bad_input_is_refused_by_name(self):
        import numpy as np

        a = np.ones((1, 2), np.float32)
        infer = self.client.infer
        good = [self.tensor("a", a), self.tensor("b", a)]
        refused = self.refused
        wrong_type = [self.tensor("a", a.astype(np.int64)), good[1]]
        refused("INVALID_ARGUMENT", 'input "a"', infer, "add", wrong_type)
        wide = [self.tensor("a", np.ones((1, 3), np.float32)), good[1]]
        refused("INVALID_ARGUMENT", 'input "a"', infer, "add", wide)
        refused("INVALID_ARGUMENT", '"b"', infer, "add", good[:1])
        extra = [*good, self.tensor("c", a)]
        refused("INVALID_ARGUMENT", '"c"', infer, "add", extra)
        ragged = [self.tensor("a", np.ones((2, 2), np.float32)), good[1]]
        refused("INVALID_ARGUMENT", "", infer, "add", ragged)
        unknown = "Request for unknown model: 'nobody'"
        refused("NOT_FOUND", unknown, infer, "nobody", good)
        refused("NOT_FOUND", "unknown model: 'add' version 9", infer, "add", good, "9")
        lie = self.tensor("a", a)
        lie._raw_content = b"1234567"
        refused("INVALID_ARGUMENT", "needs 8 bytes, got 7", infer, "add", [lie, good[1]])

    def test_shared_memory_and_settings_are_refused_by_name(self):
        self.refused(
            "UNIMPLEMENTED", "shared memory", self.client.get_system_shared_memory_status
        )
        self.refused("UNIMPLEMENTED", "tracing", self.client.get_trace_settings)

    def test_statistics_count_rows_and_runs(self):
        import numpy as np

        def count():
            return self.client.get_inference_statistics("scores").model_stats[0].inference_count

        before = count()
        self.client.infer("scores", [self.tensor("x", np.zeros((4, 3), np.float32))])
        self.assertEqual(count() - before, 4)

    def test_a_model_is_unloaded_and_loaded_again(self):
        self.client.unload_model("echo_INT8")
        self.assertFalse(self.ready("echo_INT8"))
        index = {m.name: m.state for m in self.client.get_model_repository_index().models}
        self.assertEqual(index["echo_INT8"], "UNAVAILABLE")
        self.assertEqual(index["add"], "READY")
        self.client.load_model("echo_INT8", config='{"max_batch_size": 3}')
        self.assertTrue(self.ready("echo_INT8"))
        config = self.client.get_model_config("echo_INT8").config
        self.assertEqual(config.max_batch_size, 3)
        self.refused("INVALID_ARGUMENT", "config", self.client.load_model, "add", config="{")

    def ready(self, name):
        from tritonclient.utils import InferenceServerException

        try:
            return self.client.is_model_ready(name)
        except InferenceServerException:
            return False

    def test_a_stream_answers_each_request(self):
        import numpy as np
        import tritonclient.grpc as triton

        answers = queue.Queue()
        with triton.InferenceServerClient(self.address) as client:
            client.start_stream(lambda result, error: answers.put((result, error)))
            for number in range(20):
                a = np.full((1, 2), number, np.float32)
                inputs = [self.tensor("a", a), self.tensor("b", a)]
                client.async_stream_infer("add", inputs, request_id=str(number))
            client.async_stream_infer("nobody", inputs, request_id="lost")
            got, errors = {}, []
            for _ in range(21):
                result, error = answers.get(timeout=30)
                if error:
                    errors.append(error.message())
                else:
                    got[int(result.get_response().id)] = result.as_numpy("sum")[0, 0]
            client.stop_stream()
        self.assertEqual(got, {n: 2.0 * n for n in range(20)})
        self.assertEqual(len(errors), 1)
        self.assertIn("unknown model: 'nobody'", errors[0])

    def test_compression_both_ways(self):
        import numpy as np

        a = np.ones((100, 2), np.float32)
        for algorithm in ("gzip", "deflate"):
            result = self.add(a, a, compression_algorithm=algorithm)
            np.testing.assert_array_equal(result.as_numpy("sum"), a + a)

    def test_trailing_metadata_says_how_an_answer_came_about(self):
        import grpc
        import numpy as np
        from tritonclient.grpc import service_pb2, service_pb2_grpc

        request = service_pb2.ModelInferRequest(model_name="echo_FP32")
        tensor = request.inputs.add(name="x", datatype="FP32", shape=[1, 2])
        tensor.contents.fp32_contents.extend([1, 2])
        with grpc.insecure_channel(self.address) as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            answer, call = stub.ModelInfer.with_call(request, timeout=10)
            trailing = dict(call.trailing_metadata())
            values = np.frombuffer(answer.raw_output_contents[0], np.float32)
            self.assertEqual(list(values), [1, 2])
            self.assertEqual(trailing["modelyard-version"], "1")
            self.assertEqual(trailing["modelyard-batch-size"], "1")
            self.assertGreaterEqual(int(trailing["modelyard-compute-us"]), 0)
            self.assertGreaterEqual(int(trailing["modelyard-queue-us"]), 0)

            request.raw_input_contents.append(values.tobytes())
            with self.assertRaises(grpc.RpcError) as caught:
                stub.ModelInfer(request)
            self.assertEqual(caught.exception.code(), grpc.StatusCode.INVALID_ARGUMENT)
            self.assertIn("one or the other", caught.exception.details())

    def test_a_message_over_the_limit_and_one_of_garbage(self):
        import grpc

        def call(data):
            with grpc.insecure_channel(self.address) as channel:
                method = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
                with self.assertRaises(grpc.RpcError) as caught:
                    method(data, timeout=60)
                return caught.exception.code()

        too_large = grpc.StatusCode.OUT_OF_RANGE, grpc.StatusCode.RESOURCE_EXHAUSTED
        self.assertIn(call(b"\0" * (65 << 20)), too_large)
        self.assertEqual(call(b"\xff" * 100), grpc.StatusCode.INTERNAL)
        self.assertTrue(self.client.is_server_ready())

    def test_health(self):
        import grpc
        from grpc_health.v1 import health_pb2, health_pb2_grpc

        with grpc.insecure_channel(self.address) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            for service in ("", "inference.GRPCInferenceService"):
                answer = stub.Check(health_pb2.HealthCheckRequest(service=service))
                self.assertEqual(answer.status, health_pb2.HealthCheckResponse.SERVING)
            with self.assertRaises(grpc.RpcError) as caught:
                stub.Check(health_pb2.HealthCheckRequest(service="nobody"))
            self.assertEqual(caught.exception.code(), grpc.StatusCode.NOT_FOUND)
            unknown = channel.unary_unary("/nobody.Knows/This")
            with self.assertRaises(grpc.RpcError) as caught:
                unknown(b"")
            self.assertEqual(caught.exception.code(), grpc.StatusCode.UNIMPLEMENTED)


if __name__ == "__main__":
    unittest.main()
