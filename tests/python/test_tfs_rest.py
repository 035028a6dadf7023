"""TensorFlow Serving's REST protocol, asked the way its users do."""

import base64
import json
import math
import unittest
import urllib.error
import urllib.request

import harness
import models


class TensorFlowServing(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        harness.needs("onnx")
        server = harness.serve(cls, sum=models.regression())
        cls.url = f"http://{server.address}/v1/models"
        harness.wait_until(lambda: cls.state("sum") == "AVAILABLE", server)

    @classmethod
    def ask(cls, path, body=None):
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        try:
            with urllib.request.urlopen(f"{cls.url}{path}", data, timeout=30) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)

    @classmethod
    def state(cls, name):
        return cls.ask(f"/{name}")[1]["model_version_status"][0]["state"]

    def test_rows_and_columns(self):
        rows = {"instances": [{"a": [1, 2], "b": [3, 4]}, {"a": [0, 0], "b": [5, 6]}]}
        self.assertEqual(self.ask("/add:predict", rows), (200, {"predictions": [[4, 6], [5, 6]]}))
        columns = {"inputs": {"a": [[1, 2]], "b": [[3, 4]]}}
        self.assertEqual(self.ask("/add:predict", columns), (200, {"outputs": [[4, 6]]}))
        named = self.ask("/add/versions/1:PREDICT", columns)
        self.assertEqual(named, (200, {"outputs": [[4, 6]]}))

    def test_numbers_that_are_not_finite(self):
        status, answer = self.ask("/echo_FP32:predict", b'{"instances": [[NaN, -Infinity]]}')
        self.assertEqual(status, 200, answer)
        nan, infinite = answer["predictions"][0]
        self.assertTrue(math.isnan(nan) and infinite == -math.inf)

    def test_base64(self):
        text = {"b64": base64.b64encode(b"bytes").decode()}
        answer = self.ask("/echo_BYTES:predict", {"instances": [[text, "plain"]]})
        self.assertEqual(answer, (200, {"predictions": [["bytes", "plain"]]}))

    def test_classify_and_regress(self):
        status, answer = self.ask("/scores:classify", {"examples": [{"x": [0.0, 50.0, 0.0]}]})
        self.assertEqual(status, 200, answer)
        self.assertEqual(max(answer["results"][0], key=lambda pair: pair[1])[0], "1")
        body = {"context": {"x": [1, 2, 3]}, "examples": [{}, {"x": [1, 1, 1]}]}
        self.assertEqual(self.ask("/sum:regress", body), (200, {"results": [6.0, 3.0]}))

    def test_status_and_metadata(self):
        status, answer = self.ask("/add/versions/1/metadata")
        self.assertEqual(status, 200)
        definition = answer["metadata"]["signature_def"]["signature_def"]["serving_default"]
        self.assertEqual(definition["inputs"]["a"]["dtype"], "DT_FLOAT")
        self.assertEqual(self.ask("/nobody")[0], 404)

    def test_errors(self):
        for path, body, status, text in [
            ("/add:predict", {"instances": [], "inputs": []}, 400, "only one of"),
            ("/add:predict", b"{", 400, "at byte"),
            ("/nobody:predict", {"instances": [1]}, 404, "Servable not found"),
            ("/add:explain", {}, 400, "Malformed request: POST /v1/models/add:explain"),
            ("/add:predict", {"instances": [{"a": [1], "b": [1, 2]}]}, 400, '"a"'),
            ("/sum:predict", {"instances": [["x", 1, 2]]}, 400, "got the string"),
        ]:
            with self.subTest(path=path, body=body):
                answer = self.ask(path, body)
                self.assertEqual(answer[0], status, answer)
                self.assertIn(text, answer[1]["error"])


if __name__ == "__main__":
    unittest.main()
