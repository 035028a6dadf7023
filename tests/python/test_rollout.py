"""Rollouts on two servers that share a registry: a candidate as good is promoted, a worse one is taken
back, by what the servers measured; nobody's request fails on the way."""

import json
import os
import shutil
import subprocess
import tempfile
import threading
import unittest

import harness
import models

# Steps of seconds, so that a test can see the end of them.
PLAN = """
block = "1s"
settle = "1s"
[[steps]]
shadow = true
time = "3s"
requests = 50
[[steps]]
share = 20
time = "3s"
requests = 20
[[steps]]
share = 100
shadow = true
time = "2s"
"""

# A block is one bet, so a candidate that never agrees is found out after some; this plan stakes most of
# what it has on that.
WARY = PLAN.replace('time = "3s"\nrequests = 50', 'time = "1m"\nstake = 20') + """
[guards.agreement]
weight = 100
"""


def opposite():
    """a, b FP32 [-1, 2] → sum FP32 [-1, 2], negated: the other column is the largest"""
    from onnx import TensorProto as T, helper as h

    columns = [h.make_tensor_value_info(n, T.FLOAT, ["N", 2]) for n in ("a", "b")]
    total = h.make_tensor_value_info("sum", T.FLOAT, ["N", 2])
    nodes = [h.make_node("Add", ["a", "b"], ["plus"]), h.make_node("Neg", ["plus"], ["sum"])]
    return h.make_graph(nodes, "opposite", columns, [total])


class Callers(threading.Thread):
    """Callers with keys of their own, in turn on each server, until told to stop."""

    def __init__(self, servers):
        super().__init__(daemon=True)
        self.servers, self.stopping = servers, threading.Event()
        self.statuses, self.versions = {}, {}

    def run(self):
        import requests

        session = requests.Session()
        inputs = [
            {"name": name, "datatype": "FP32", "shape": [1, 2], "data": [1.0, 2.0]}
            for name in ("a", "b")
        ]
        number = 0
        while not self.stopping.wait(0.005):
            number += 1
            key = f"caller-{number % 40}"
            server = self.servers[number % len(self.servers)]
            answer = session.post(
                f"http://{server.address}/v2/models/fraud/infer",
                json={"id": f"r{number}", "inputs": inputs},
                headers={"modelyard-key": key},
            )
            self.statuses[answer.status_code] = self.statuses.get(answer.status_code, 0) + 1
            if answer.status_code == 200:
                version = answer.json()["model_version"]
                self.versions.setdefault(key, []).append(version)

    def stop(self):
        self.stopping.set()
        self.join(10)


class Rollout(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        harness.needs("onnx", "requests")

    def setUp(self):
        self.folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.registry = os.path.join(self.folder, "registry")
        models.save(self.folder, "add", models.add())
        models.save(self.folder, "opposite", opposite())
        self.plan = os.path.join(self.folder, "plan.toml")
        with open(self.plan, "w") as file:
            file.write(PLAN)
        self.push("add", "--alias", "champion")
        self.servers = [
            self.enterContext(harness.Server(["--registry", self.registry])) for _ in range(2)
        ]
        for server in self.servers:
            harness.wait_until(lambda: self.ready(server), server)

    def modelyard(self, *arguments, code=0):
        binary = os.environ.get("MODELYARD_BINARY") or harness.skip("no MODELYARD_BINARY")
        command = [binary, *arguments, "--registry", self.registry]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        self.assertEqual(done.returncode, code, done.stdout + done.stderr)
        return done.stdout

    def push(self, model, *arguments):
        path = os.path.join(self.folder, model, "1", "model.onnx")
        self.modelyard("push", path, "--name", "fraud", *arguments)

    def ready(self, server):
        import requests

        url = f"http://{server.address}/v2/models/fraud/ready"
        return requests.get(url).status_code == 200

    def rolled_out(self, code):
        callers = Callers(self.servers)
        callers.start()
        self.addCleanup(callers.stop)
        plan = ["--to", "2", "--plan", self.plan, "--wait"]
        self.modelyard("rollout", "start", "fraud", *plan, code=code)
        callers.stop()
        # Nobody noticed anything.
        self.assertEqual(set(callers.statuses), {200}, callers.statuses)
        return callers

    def history(self):
        return json.loads(self.modelyard("history", "fraud", "--json"))

    def test_a_candidate_as_good_is_promoted(self):
        self.push("add", "--meta", "n=2")
        callers = self.rolled_out(code=0)
        end = self.history()[-1]
        self.assertEqual(end["event"], {"kind": "rollout_ended", "outcome": "promoted", "champion": 2})
        self.assertEqual(end["who"], "rollout")
        self.assertGreater(end["evidence"]["candidate"]["requests"], 20)
        # Each caller moved once, to the candidate, and never back.
        for key, versions in callers.versions.items():
            self.assertEqual(versions, sorted(versions), key)
        held = json.loads(self.modelyard("servers", "--json"))
        self.assertEqual(len(held), 2)
        for server in held:
            ready = {h["version"] for h in server["holds"] if h["state"] == "READY"}
            self.assertEqual(ready, {"1", "2"}, "the one before is kept warm")
        # Gone back to within a second, on every server.
        self.modelyard("rollback", "fraud", "--reason", "a test")
        for server in self.servers:
            harness.wait_until(lambda: self.asked(server) == "1", server)

    def test_whoever_decides_may_be_killed(self):
        self.push("add", "--meta", "n=2")
        survivor = self.servers[1]
        callers = Callers([survivor])
        callers.start()
        self.addCleanup(callers.stop)
        self.modelyard("rollout", "start", "fraud", "--to", "2", "--plan", self.plan)
        # The first one started holds the lease; it dies in the middle of a step.
        harness.wait_until(lambda: len(self.history()) > 4, survivor)
        self.servers[0].process.kill()
        harness.wait_until(lambda: self.history()[-1]["event"]["kind"] == "rollout_ended", survivor)
        callers.stop()
        self.assertEqual(set(callers.statuses), {200}, callers.statuses)
        kinds = [record["event"]["kind"] for record in self.history()]
        self.assertEqual(kinds.count("rollout_moved"), 2, "each step was taken once")
        self.assertEqual(self.history()[-1]["event"]["outcome"], "promoted")
        self.modelyard("check")

    def asked(self, server):
        import requests

        inputs = [
            {"name": name, "datatype": "FP32", "shape": [1, 2], "data": [1.0, 2.0]}
            for name in ("a", "b")
        ]
        url = f"http://{server.address}/v2/models/fraud/infer"
        return requests.post(url, json={"inputs": inputs}).json()["model_version"]

    def test_a_candidate_that_answers_otherwise_is_taken_back_before_anybody_sees_it(self):
        self.push("opposite")
        with open(self.plan, "w") as file:
            file.write(WARY)
        callers = self.rolled_out(code=1)
        end = self.history()[-1]
        self.assertEqual(
            end["event"], {"kind": "rollout_ended", "outcome": "rolled_back", "champion": 1}
        )
        self.assertIn("agree", end["reason"])
        seen = {version for versions in callers.versions.values() for version in versions}
        self.assertEqual(seen, {"1"})

    def test_a_replay_that_fails_ends_it_before_it_begins(self):
        self.push("opposite")
        inputs = [
            {"name": name, "datatype": "FP32", "shape": [1, 2], "data": [1.0, 2.0]}
            for name in ("a", "b")
        ]
        import requests

        url = f"http://{self.servers[0].address}/v2/models/fraud/infer"
        answer = requests.post(url, json={"inputs": inputs}).json()
        recorded = os.path.join(self.folder, "recorded.jsonl")
        with open(recorded, "w") as file:
            for _ in range(5):
                file.write(json.dumps({"request": {"inputs": inputs}, "response": answer}) + "\n")
        with open(self.plan, "a") as file:
            file.write(f'[replay]\nfile = "{recorded}"\n')
        start = ["rollout", "start", "fraud", "--plan", self.plan, "--to"]
        self.modelyard(*start, "2", code=1)
        end = self.history()[-1]
        self.assertEqual(end["event"]["outcome"], "rolled_back")
        self.assertEqual(end["evidence"]["replay"]["agreed"], 0)
        # One that answers as recorded begins.
        self.push("add", "--meta", "n=3")
        self.modelyard(*start, "3")
        status = json.loads(self.modelyard("rollout", "status", "fraud", "--json"))
        self.assertEqual(status["step"], 0)
        self.modelyard("rollout", "stop", "fraud")


if __name__ == "__main__":
    unittest.main()
