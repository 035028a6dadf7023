"""NVIDIA's own HTTP client against `modelyard serve`."""

import unittest

import harness


class TritonClient(harness.TritonClient):
    module = "tritonclient.http"
    options = {"concurrency": 4}

    def tensor(self, name, array, datatype=None, binary=True):
        return super().tensor(name, array, datatype, binary_data=binary)

    def add(self, a, b, binary=True, **options):
        inputs = [self.tensor("a", a, binary=binary), self.tensor("b", b, binary=binary)]
        return self.client.infer("add", inputs, **options)

    def test_what_is_said_of_server_and_model(self):
        self.assertTrue(self.client.is_server_live())
        metadata = self.client.get_server_metadata()
        self.assertEqual(metadata["name"], "modelyard")
        self.assertIn("binary_tensor_data", metadata["extensions"])
        self.assertTrue(self.client.is_model_ready("add", "1"))
        self.assertFalse(self.client.is_model_ready("nobody"))
        model = self.client.get_model_metadata("add")
        self.assertEqual([i["name"] for i in model["inputs"]], ["a", "b"])
        self.assertEqual(model["inputs"][0]["shape"], [-1, 2])
        self.assertEqual(model["versions"], ["1"])
        config = self.client.get_model_config("add")
        self.assertEqual(config["input"][0]["data_type"], "TYPE_FP32")
        self.assertGreater(config["max_batch_size"], 0)

    def test_json_and_binary_in_and_out(self):
        import numpy as np
        import tritonclient.http as triton

        a = np.array([[1.5, -2.0], [1e-30, 3e38]], np.float32)
        for binary_in in (True, False):
            for binary_out in (True, False):
                with self.subTest(binary_in=binary_in, binary_out=binary_out):
                    outputs = [triton.InferRequestedOutput("sum", binary_data=binary_out)]
                    zero = np.zeros_like(a)
                    result = self.add(
                        a, zero, binary_in, outputs=outputs, request_id="7", timeout=5_000_000
                    )
                    np.testing.assert_array_equal(result.as_numpy("sum"), a)
                    self.assertEqual(result.get_response()["id"], "7")
        mixed = [self.tensor("a", a, binary=True), self.tensor("b", a, binary=False)]
        np.testing.assert_array_equal(self.client.infer("add", mixed).as_numpy("sum")[0], a[0] * 2)

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
                self.assertEqual(result.get_output("y")["datatype"], name)
                np.testing.assert_array_equal(result.as_numpy("y"), array)
                checked += 1
        self.assertEqual(checked, 14)

    def test_classification(self):
        import numpy as np
        import tritonclient.http as triton

        rows = np.array([[0, 9, 1], [5, 0, 0]], np.float32)
        for binary in (True, False):
            wanted = triton.InferRequestedOutput("scores", binary_data=binary, class_count=2)
            result = self.client.infer("scores", [self.tensor("x", rows)], outputs=[wanted])
            classes = [
                [(c if isinstance(c, str) else c.decode()).split(":")[1] for c in row]
                for row in result.as_numpy("scores")
            ]
            self.assertEqual(classes, [["1", "2"], ["0", "1"]])

    def test_compression_both_ways(self):
        import numpy as np

        a = np.ones((1000, 2), np.float32)
        for algorithm in ("gzip", "deflate"):
            result = self.add(
                a,
                a,
                request_compression_algorithm=algorithm,
                response_compression_algorithm=algorithm,
            )
            np.testing.assert_array_equal(result.as_numpy("sum"), a + a)

    def test_many_requests_at_once(self):
        import numpy as np

        x = np.ones((1, 2), np.float32)
        inputs = [[self.tensor("a", x * n), self.tensor("b", x)] for n in range(40)]
        pending = [self.client.async_infer("add", pair) for pair in inputs]
        sums = [request.get_result(timeout=30).as_numpy("sum")[0, 0] for request in pending]
        self.assertEqual(sums, [n + 1.0 for n in range(40)])

    def test_statistics_count_rows_and_runs(self):
        import numpy as np

        def count():
            statistics = self.client.get_inference_statistics("scores")
            return statistics["model_stats"][0]["inference_count"]

        before = count()
        self.client.infer("scores", [self.tensor("x", np.zeros((4, 3), np.float32))])
        self.assertEqual(count() - before, 4)

    def test_the_repository(self):
        self.client.unload_model("echo_INT16")
        self.assertFalse(self.client.is_model_ready("echo_INT16"))
        index = {m["name"]: m["state"] for m in self.client.get_model_repository_index()}
        self.assertEqual(index["echo_INT16"], "UNAVAILABLE")
        self.assertEqual(index["add"], "READY")
        self.client.load_model("echo_INT16", config='{"max_batch_size": 3}')
        self.assertTrue(self.client.is_model_ready("echo_INT16"))
        self.assertEqual(self.client.get_model_config("echo_INT16")["max_batch_size"], 3)
        self.refusal("failed to load", self.client.load_model, "nobody")
        self.refusal("config", self.client.load_model, "add", config="{")

    def test_bad_input_is_refused_by_name(self):
        import numpy as np

        a = np.ones((1, 2), np.float32)
        infer = self.client.infer
        good = [self.tensor("a", a), self.tensor("b", a)]
        wrong_type = [self.tensor("a", a.astype(np.int64)), good[1]]
        self.assertEqual(self.refusal('input "a"', infer, "add", wrong_type), "400")
        self.assertEqual(self.refusal('"b"', infer, "add", good[:1]), "400")
        unknown = "Request for unknown model: 'nobody'"
        self.assertEqual(self.refusal(unknown, infer, "nobody", good), "404")
        lie = self.tensor("a", a)
        lie._raw_data = lie._raw_data[:-1]
        lie._parameters["binary_data_size"] = 7
        self.refusal('input "a"', infer, "add", [lie, good[1]])
        self.refusal("shared memory", self.client.get_system_shared_memory_status)


if __name__ == "__main__":
    unittest.main()
