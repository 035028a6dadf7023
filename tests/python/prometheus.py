"""Debian's Prometheus for tests: a real one on a free port, scraping every half second."""

import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
import unittest
import urllib.error
import urllib.parse
import urllib.request

import harness

BODY = json.dumps(
    {
        "inputs": [
            {"name": name, "shape": [1, 2], "datatype": "FP32", "data": [1, 2]}
            for name in ("a", "b")
        ]
    }
).encode()
OPEN_METRICS = "application/openmetrics-text; version=1.0.0"


def post(address, path, body=BODY):
    try:
        with urllib.request.urlopen(f"http://{address}{path}", body, timeout=10) as reply:
            return reply.status
    except urllib.error.HTTPError as error:
        return error.code


def scrape(address, accept="text/plain"):
    request = urllib.request.Request(f"http://{address}/metrics", headers={"Accept": accept})
    with urllib.request.urlopen(request, timeout=10) as reply:
        return reply.read().decode()


def tool(*arguments, text=None):
    """Runs promtool and returns its exit status and all that it printed."""
    if not shutil.which("promtool"):
        harness.skip("promtool is not installed; ./test installs it")
    done = subprocess.run(
        ["promtool", *arguments], input=text, capture_output=True, text=True, timeout=60
    )
    return done.returncode, done.stdout + done.stderr


class Prometheus:
    """A Prometheus that scrapes these addresses, for the length of a `with` block."""

    def __init__(self, *targets, rules=(), native=False):
        if not shutil.which("prometheus"):
            harness.skip("Prometheus is not installed; ./test installs it")
        self.targets, self.rules, self.native = targets, rules, native

    def __enter__(self):
        self.folder = tempfile.TemporaryDirectory()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{free.getsockname()[1]}"
        config = os.path.join(self.folder.name, "prometheus.yml")
        settings = {
            "global": {"scrape_interval": "500ms", "evaluation_interval": "500ms"},
            "rule_files": [os.path.abspath(rule) for rule in self.rules],
            "scrape_configs": [
                {"job_name": "modelyard", "static_configs": [{"targets": list(self.targets)}]}
            ],
        }
        with open(config, "w") as file:
            json.dump(settings, file)  # JSON is YAML.
        command = [
            "prometheus", f"--config.file={config}", f"--web.listen-address={self.address}",
            f"--storage.tsdb.path={self.folder.name}/data", "--log.level=warn",
        ]
        if self.native:
            command.append("--enable-feature=native-histograms")
        self.log = open(os.path.join(self.folder.name, "log"), "w+")
        self.process = subprocess.Popen(command, stdout=self.log, stderr=subprocess.STDOUT)
        self.lines = []
        harness.wait_until(self.is_ready, self)
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.log.close()
        self.folder.cleanup()

    def is_ready(self):
        if self.process.poll() is not None:
            self.log.seek(0)
            raise SystemExit("Prometheus ended: " + self.log.read())
        with urllib.request.urlopen(f"http://{self.address}/-/ready", timeout=5) as reply:
            return reply.status == 200

    def get(self, path, **parameters):
        url = f"http://{self.address}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=20) as reply:
                return json.load(reply)["data"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{parameters}: {error.read().decode()}") from error

    def query(self, expression):
        """The samples of an instant query: labels and value."""
        result = self.get("query", query=expression)["result"]
        return [(sample["metric"], float(sample["value"][1])) for sample in result]

    def value(self, expression):
        """The one number that a query has to have, or None if it has none yet."""
        samples = self.query(expression)
        assert len(samples) <= 1, samples
        return samples[0][1] if samples else None

    def wait_for(self, expression, expected, timeout=20):
        """Waits until a query has this value."""
        end, value = time.monotonic() + timeout, None
        while time.monotonic() < end:
            value = self.value(expression)
            if value == expected:
                return
            time.sleep(0.1)
        targets = self.get("targets")["activeTargets"]
        errors = [target["lastError"] for target in targets]
        raise AssertionError(f"{expression} is {value}, not {expected}; scrapes: {errors}")


class Served(unittest.TestCase):
    """A server of the tests' models that has answered one request."""

    @classmethod
    def setUpClass(cls):
        harness.needs("onnx", "ml_dtypes")
        cls.server = harness.serve(cls)
        cls.address = cls.server.address
        harness.wait_until(lambda: post(cls.address, "/v2/models/add/infer") == 200, cls.server)

    def ask(self):
        for _ in range(20):
            self.assertEqual(post(self.address, "/v2/models/add/infer"), 200)
        self.assertEqual(post(self.address, "/v2/models/add/infer", b"{"), 400)
        self.assertEqual(post(self.address, "/v2/models/made_up/infer"), 404)

    def count(self, **labels):
        """What this server has counted, by its own text."""
        from prometheus_client.parser import text_string_to_metric_families as parse

        counted = 0
        for family in parse(scrape(self.address)):
            for sample in family.samples:
                if sample.name == "modelyard_requests_total" and labels.items() <= sample.labels.items():
                    counted += sample.value
        return counted
