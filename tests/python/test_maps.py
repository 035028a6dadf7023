"""A model whose input is a dictionary takes dictionaries as they are, and answers as ONNX Runtime."""

import os
import unittest

import harness

MODEL = "crates/runtime/tests/golden/native/dictionary_logistic.onnx"


class Maps(unittest.TestCase):
    def test_rows_of_dictionaries(self):
        harness.needs("onnx", "onnxruntime", "requests")
        import onnx
        import onnxruntime
        import requests

        path = os.path.join(os.path.dirname(__file__), "../..", MODEL)
        vectorizer = next(n for n in onnx.load(path).graph.node if n.op_type == "DictVectorizer")
        keys = [key.decode() for key in vectorizer.attribute[0].strings]
        rows = [{key: float((i + 2 * j) % 3) for j, key in enumerate(keys)} for i in range(4)]
        session = onnxruntime.InferenceSession(path)
        name = session.get_inputs()[0].name
        expected = [session.run(None, {name: row}) for row in rows]

        server = self.enterContext(harness.Server([f"--model=maps={path}"]))
        base = f"http://{server.address}"
        ready = lambda: requests.get(f"{base}/v2/health/ready").status_code == 200
        harness.wait_until(ready, server)
        predict = f"{base}/v1/models/maps:predict"
        answer = requests.post(predict, json={"instances": rows})
        self.assertEqual(answer.status_code, 200, answer.text)
        for got, (label, probabilities) in zip(answer.json()["predictions"], expected, strict=True):
            self.assertEqual(got["label"], label[0])
            for ours, theirs in zip(got["probabilities"], probabilities[0], strict=True):
                self.assertAlmostEqual(ours, float(theirs), places=5)

        less = [dict(row) for row in rows]
        del less[1][keys[0]]
        refused = requests.post(predict, json={"instances": less})
        self.assertEqual(refused.status_code, 400, refused.text)
        self.assertIn(keys[0], refused.json()["error"])
        wrong = [{**row, keys[0]: "x"} for row in rows]
        self.assertEqual(requests.post(predict, json={"instances": wrong}).status_code, 400)


if __name__ == "__main__":
    unittest.main()
