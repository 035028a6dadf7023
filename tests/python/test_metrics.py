"""`/metrics` as Debian's Prometheus, its promtool, and the Python client's parser see it."""

import json
import os
import subprocess
import tempfile
import unittest
import urllib.error

import harness
import models
import prometheus


class Metrics(prometheus.Served):
    def test_promtool_finds_nothing_to_say(self):
        self.ask()
        status, said = prometheus.tool("check", "metrics", text=prometheus.scrape(self.address))
        self.assertEqual((status, said), (0, ""))

    def test_another_parser_reads_both_texts_alike(self):
        harness.needs("prometheus_client")
        from prometheus_client.openmetrics.parser import (
            text_string_to_metric_families as parse_open,
        )
        from prometheus_client.parser import text_string_to_metric_families as parse

        self.ask()

        def stable(families):
            return {
                (sample.name, tuple(sorted(sample.labels.items()))): sample.value
                for family in families
                for sample in family.samples
                if sample.name.startswith("modelyard_")
            }

        plain = stable(parse(prometheus.scrape(self.address)))
        opened = stable(parse_open(prometheus.scrape(self.address, prometheus.OPEN_METRICS)))
        self.assertEqual(plain, opened)
        self.assertGreater(len(plain), 50)

    def test_prometheus_scrapes_it(self):
        self.ask()
        answered = self.count(model="add", code="OK")
        with prometheus.Prometheus(self.address) as server:
            server.wait_for('up{job="modelyard"}', 1)
            server.wait_for('sum(modelyard_requests_total{model="add",code="OK"})', answered)
            unknown = self.count(model="", code="NOT_FOUND")
            server.wait_for('modelyard_requests_total{model="",code="NOT_FOUND"}', unknown)
            histogram = 'modelyard_request_duration_seconds_bucket{model="add",le="30.0"}'
            server.wait_for(f"sum({histogram})", answered)
            quantile = server.value(
                f"histogram_quantile(0.5, sum by (le) "
                f'(modelyard_request_duration_seconds_bucket{{model="add"}}))'
            )
            self.assertTrue(1e-6 < quantile < 1, quantile)
            # OpenMetrics names families without the ending.
            metadata = server.get("metadata", metric="modelyard_requests")
            self.assertEqual(metadata["modelyard_requests"][0]["type"], "counter")

    def test_prometheus_reads_native_histograms(self):
        self.ask()
        answered = self.count(model="add", code="OK")
        with prometheus.Prometheus(self.address, native=True) as server:
            count = 'histogram_count(sum(modelyard_request_duration_seconds{model="add"}))'
            server.wait_for(count, answered)
            # The same count as the classic one's, cut into finer pieces.
            part = 'histogram_fraction(0, 30, sum(modelyard_request_duration_seconds{model="add"}))'
            self.assertAlmostEqual(server.value(part), 1)
            quantile = server.value(
                'histogram_quantile(0.5, sum(modelyard_request_duration_seconds{model="add"}))'
            )
            self.assertTrue(1e-6 < quantile < 1, quantile)

    def test_a_port_of_its_own(self):
        with tempfile.TemporaryDirectory() as folder:
            models.save(folder, "add", models.add())
            arguments = [folder, "--metrics-listen", "127.0.0.1:0"]
            with harness.Server(arguments) as server:
                said = lambda: next(json.loads(line) for line in server.lines if "scrapes" in line)
                harness.wait_until(said, server)
                said = said()
                address = said["address"].split("/")[2]
                self.assertIn("modelyard_build_info", prometheus.scrape(address))
                with self.assertRaises(urllib.error.HTTPError) as caught:
                    prometheus.scrape(server.address)
                self.assertEqual(caught.exception.code, 404)


class Aliases(unittest.TestCase):
    def test_a_registrys_aliases_are_shown(self):
        harness.needs("onnx")
        binary = os.environ.get("MODELYARD_BINARY") or harness.skip("no MODELYARD_BINARY")
        with tempfile.TemporaryDirectory() as folder:
            models.save(folder, "add", models.add())
            registry = os.path.join(folder, "registry")
            path = os.path.join(folder, "add", "1", "model.onnx")
            command = [binary, "push", path, "--name", "fraud", "--alias", "champion"]
            subprocess.run([*command, "--registry", registry], check=True, capture_output=True)
            with harness.Server(["--registry", registry]) as server:
                shown = 'modelyard_alias_info{model="fraud",alias="champion",version="1"} 1'
                harness.wait_until(lambda: shown in prometheus.scrape(server.address), server)


if __name__ == "__main__":
    unittest.main()
