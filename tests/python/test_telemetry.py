"""Traces, metrics and logs as OTLP, and logs in the shapes of clouds, read by others' libraries."""

import json
import os
import tempfile
import time
import unittest
import urllib.request

import collector
import harness
import models
import prometheus

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
CALLER = {"traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": "vendor=value"}
# What the specification says of batches, made short.
QUICK = {"OTEL_BSP_SCHEDULE_DELAY": "100", "OTEL_METRIC_EXPORT_INTERVAL": "300"}


def post(address, headers={}, path="/v2/models/add/infer", body=prometheus.BODY):
    request = urllib.request.Request(f"http://{address}{path}", body, headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as reply:
            return reply.status
    except urllib.error.HTTPError as error:
        return error.code


class Served(unittest.TestCase):
    def serve(self, *arguments, **variables):
        folder = self.enterContext(tempfile.TemporaryDirectory())
        models.save(folder, "add", models.add())
        # harness gives the server this process's environment.
        for name, value in {**QUICK, **variables}.items():
            previous = os.environ.get(name)
            os.environ[name] = value
            self.addCleanup(
                lambda n=name, p=previous: os.environ.pop(n) if p is None else os.environ.update({n: p})
            )
        server = self.enterContext(harness.Server([folder, *arguments]))
        harness.wait_until(lambda: post(server.address) == 200, server)
        return server


class Otlp(Served):
    def check_everything(self, receiver, server):
        for _ in range(3):
            self.assertEqual(post(server.address, CALLER), 200)
        spans = collector.wait_for(lambda: len(receiver.spans()) >= 9 and receiver.spans())
        mine = [span for span in spans if span.trace_id.hex() == TRACE]
        self.assertEqual(len(mine), 9)
        roots = [span for span in mine if span.kind == span.SPAN_KIND_SERVER]
        self.assertEqual(len(roots), 3)
        for root in roots:
            self.assertEqual(root.parent_span_id.hex(), PARENT)
            self.assertEqual(root.trace_state, "vendor=value")
            self.assertEqual(root.name, "POST /v2/models/{model}/infer")
            said = collector.attributes(root)
            self.assertEqual(said["http.response.status_code"], 200)
            self.assertEqual((said["modelyard.model"], said["modelyard.version"]), ("add", "1"))
            children = {s.name: s for s in mine if s.parent_span_id == root.span_id}
            self.assertEqual(set(children), {"queue", "compute"})
            queue, compute = children["queue"], children["compute"]
            self.assertLessEqual(root.start_time_unix_nano, queue.start_time_unix_nano)
            self.assertEqual(queue.end_time_unix_nano, compute.start_time_unix_nano)
            self.assertLessEqual(compute.end_time_unix_nano, root.end_time_unix_nano)
            self.assertLess(abs(root.start_time_unix_nano / 1e9 - time.time()), 60)
            self.assertEqual(collector.attributes(compute)["modelyard.batch_rows"], 1)
        collector.wait_for(lambda: "modelyard.requests" in receiver.metrics())
        counted = lambda: {
            tuple(sorted(collector.attributes(point).items())): point.as_double
            for point in receiver.metrics()["modelyard.requests"].sum.data_points
        }
        ok = (("code", "OK"), ("model", "add"), ("protocol", "rest"), ("version", "1"))
        collector.wait_for(lambda: counted().get(ok, 0) >= 4)
        metric = receiver.metrics()["modelyard.requests"]
        self.assertTrue(metric.sum.is_monotonic)
        self.assertEqual(metric.sum.aggregation_temporality, 2)
        self.assertEqual(receiver.resource()["service.name"], "modelyard")

    def test_over_http(self):
        with collector.Collector() as receiver:
            server = self.serve("--otlp-endpoint", receiver.endpoint, "--trace-ratio", "0")
            self.check_everything(receiver, server)
            duration = receiver.metrics()["modelyard.request_duration"]
            self.assertEqual(duration.unit, "s")
            point = duration.histogram.data_points[0]
            self.assertEqual(len(point.bucket_counts), len(point.explicit_bounds) + 1)
            self.assertEqual(sum(point.bucket_counts), point.count)
            said = [line.body.string_value for line in receiver.lines()]
            self.assertIn("loaded", said)

    def test_over_http_as_the_environment_says(self):
        with collector.Collector() as receiver:
            variables = {
                "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint,
                "OTEL_EXPORTER_OTLP_HEADERS": "api-key=a%20key",
                "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip",
                "OTEL_RESOURCE_ATTRIBUTES": "team=risk",
                "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION":
                    "base2_exponential_bucket_histogram",
            }
            server = self.serve(**variables)
            self.check_everything(receiver, server)
            self.assertEqual(receiver.headers[0]["api-key"], "a key")
            self.assertEqual(receiver.resource()["team"], "risk")
            point = receiver.metrics()["modelyard.request_duration"].exponential_histogram
            point = point.data_points[0]
            self.assertEqual(sum(point.positive.bucket_counts) + point.zero_count, point.count)
            # The mean is within the buckets that are said to be used.
            base = 2 ** (2 ** -point.scale)
            low = base ** point.positive.offset
            high = base ** (point.positive.offset + len(point.positive.bucket_counts))
            self.assertTrue(low <= point.sum / point.count <= high)

    def test_over_grpc(self):
        with collector.GrpcCollector() as receiver:
            server = self.serve("--otlp-endpoint", receiver.endpoint, "--otlp-protocol", "grpc")
            self.check_everything(receiver, server)

    def test_callers_decide_what_is_traced(self):
        with collector.Collector() as receiver:
            server = self.serve("--otlp-endpoint", receiver.endpoint, "--trace-ratio", "1")
            unsampled = {"traceparent": f"00-{TRACE}-{PARENT}-00"}
            self.assertEqual(post(server.address, unsampled), 200)
            self.assertEqual(post(server.address, CALLER, "/v2/models/none/infer"), 404)
            self.assertEqual(post(server.address, {"traceparent": "garbage"}), 200)
            callers = lambda: [s for s in receiver.spans() if s.trace_id.hex() == TRACE]
            [refused] = collector.wait_for(callers)
            self.assertEqual(collector.attributes(refused)["http.response.status_code"], 404)
            # The caller's mistake is no error of this span.
            self.assertNotEqual(refused.status.code, refused.status.STATUS_CODE_ERROR)

    def test_grpc_calls_are_traced(self):
        harness.needs("tritonclient.grpc")
        import numpy as np
        import tritonclient.grpc as triton

        with collector.Collector() as receiver:
            server = self.serve("--otlp-endpoint", receiver.endpoint, "--trace-ratio", "0")
            with triton.InferenceServerClient(server.address) as client:
                ones = np.ones((1, 2), np.float32)
                inputs = [triton.InferInput(name, ones.shape, "FP32") for name in ("a", "b")]
                for tensor in inputs:
                    tensor.set_data_from_numpy(ones)
                client.infer("add", inputs, headers=CALLER)
            spans = collector.wait_for(lambda: len(receiver.spans()) >= 3 and receiver.spans())
            root = next(span for span in spans if span.kind == span.SPAN_KIND_SERVER)
            self.assertEqual(root.name, "inference.GRPCInferenceService/ModelInfer")
            self.assertEqual(root.parent_span_id.hex(), PARENT)
            said = collector.attributes(root)
            self.assertEqual((said["rpc.system"], said["rpc.grpc.status_code"]), ("grpc", 0))


class BadDays(Served):
    """A collector that does not do its part costs nothing but what it does not get."""

    def check_served(self, server, requests=200):
        started = time.monotonic()
        for _ in range(requests):
            self.assertEqual(post(server.address, CALLER), 200)
        # Each request is a new connection from Python; what matters is that nothing waits.
        self.assertLess(time.monotonic() - started, 20)

    def counts(self, server, signal="traces"):
        text = prometheus.scrape(server.address)
        prefix = f'modelyard_telemetry_items_total{{signal="{signal}",result="'
        lines = [line[len(prefix):] for line in text.splitlines() if line.startswith(prefix)]
        return {line.split('"')[0]: int(line.split()[-1]) for line in lines}

    def test_away(self):
        server = self.serve("--otlp-endpoint", "http://127.0.0.1:9", OTEL_BSP_MAX_QUEUE_SIZE="64")
        self.check_served(server)
        self.assertGreater(self.counts(server)["dropped"], 0)

    def test_answers_500(self):
        with collector.Collector(status=500) as receiver:
            server = self.serve("--otlp-endpoint", receiver.endpoint)
            self.check_served(server)
            collector.wait_for(lambda: self.counts(server)["failed"] > 0)

    def test_is_slow(self):
        with collector.Collector(pause=30) as receiver:
            server = self.serve(
                "--otlp-endpoint", receiver.endpoint, OTEL_BSP_MAX_QUEUE_SIZE="64"
            )
            self.check_served(server)
            self.assertGreater(self.counts(server)["dropped"], 0)

    def test_comes_back(self):
        with collector.Collector(status=503) as receiver:
            server = self.serve("--otlp-endpoint", receiver.endpoint)
            self.assertEqual(post(server.address, CALLER), 200)
            collector.wait_for(lambda: receiver.tries > 2)
            receiver.status = 200
            collector.wait_for(lambda: [s for s in receiver.spans() if s.trace_id.hex() == TRACE])

    def test_what_waits_is_sent_at_the_end(self):
        with collector.Collector() as receiver:
            server = self.serve(
                "--otlp-endpoint", receiver.endpoint, OTEL_BSP_SCHEDULE_DELAY="60000"
            )
            self.assertEqual(post(server.address, CALLER), 200)
            self.assertEqual(receiver.spans(), [])
            server.process.terminate()
            server.process.wait(20)
            self.assertEqual(len([s for s in receiver.spans() if s.trace_id.hex() == TRACE]), 3)


class Logs(Served):
    def lines(self, server):
        return [json.loads(line) for line in list(server.lines) if line.startswith("{")]

    def test_cloudwatch_gets_metrics_in_its_log(self):
        harness.needs("aws_embedded_metrics.validator")

        server = self.serve("--log-format", "cloudwatch")
        for _ in range(5):
            self.assertEqual(post(server.address), 200)
        self.assertEqual(post(server.address, body=b'{"inputs":[]}'), 400)
        found = lambda: [line for line in self.lines(server) if "_aws" in line]
        collector.wait_for(lambda: sum(line["Requests"] for line in found()) >= 7)
        for line in found():
            self.check_by_amazon(line)
        self.assertEqual(sum(line["Failures"] for line in found()), 0)

    def check_by_amazon(self, line):
        """Amazon's own library, which writes the format, finds nothing to refuse."""
        from datetime import datetime, timezone

        from aws_embedded_metrics import validator
        from aws_embedded_metrics.storage_resolution import StorageResolution

        described = line["_aws"]["CloudWatchMetrics"]
        self.assertEqual(len(described), 1)
        validator.validate_namespace(described[0]["Namespace"])
        for names in described[0]["Dimensions"]:
            validator.validate_dimension_set({name: line[name] for name in names})
        for metric in described[0]["Metrics"]:
            value, resolution = line[metric["Name"]], StorageResolution.STANDARD
            validator.validate_metric(metric["Name"], value, metric["Unit"], resolution, {})
        at = line["_aws"]["Timestamp"]
        self.assertIsInstance(at, int)
        validator.validate_timestamp(datetime.fromtimestamp(at / 1e3, timezone.utc))

    def test_google_reads_severity_and_trace(self):
        with collector.Collector() as receiver:
            server = self.serve(
                "--log-format", "google", "--log", "info,request=debug",
                "--otlp-endpoint", receiver.endpoint, GOOGLE_CLOUD_PROJECT="mine",
            )
            loaded = next(line for line in self.lines(server) if line["message"] == "loaded")
            self.assertEqual(loaded["severity"], "INFO")
            self.assertNotIn("level", loaded)
            self.assertEqual(post(server.address, CALLER), 200)
            traced = collector.wait_for(
                lambda: [x for x in self.lines(server) if "logging.googleapis.com/trace" in x]
            )[0]
            self.assertEqual(
                traced["logging.googleapis.com/trace"], f"projects/mine/traces/{TRACE}"
            )
            self.assertIs(traced["logging.googleapis.com/trace_sampled"], True)
            int(traced["logging.googleapis.com/spanId"], 16)
            self.check_by_google(traced)
            # The same line at the collector, in the same trace.
            same = lambda: [x for x in receiver.lines() if x.trace_id.hex() == TRACE]
            line = collector.wait_for(same)[0]
            self.assertEqual(line.span_id.hex(), traced["logging.googleapis.com/spanId"])

    def check_by_google(self, line):
        """The same as Google's own library writes it for its agents, field by field."""
        harness.needs("google.cloud.logging_v2.handlers.structured_log")
        import logging

        from google.cloud.logging_v2.handlers import structured_log

        special = {name for name in line if name in structured_log.GCP_STRUCTURED_LOGGING_FIELDS}
        trace = {f"logging.googleapis.com/{name}" for name in ("trace", "spanId", "trace_sampled")}
        self.assertEqual(special, {"severity", "time"} | trace)
        record = logging.LogRecord("x", logging.DEBUG, "x", 1, line["message"], (), None)
        record.trace, record.span_id = line["logging.googleapis.com/trace"], "00" * 8
        record.trace_sampled = True
        handler = structured_log.StructuredLogHandler(project_id="mine")
        handler.filter(record)
        theirs = json.loads(handler.format(record))
        for name in ("severity", "message", "logging.googleapis.com/trace",
                     "logging.googleapis.com/trace_sampled"):
            self.assertEqual(theirs[name], line[name], name)


class Configurations(unittest.TestCase):
    def test_those_in_the_documentation_are_whole(self):
        harness.needs("yaml")
        import pathlib
        import re

        import yaml

        page = pathlib.Path(__file__).resolve().parents[2] / "docs" / "telemetry.md"
        blocks = re.findall(r"^```yaml\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
        self.assertEqual(len(blocks), 3)
        for block in blocks:
            config = yaml.safe_load(block)
            pipelines = config["service"]["pipelines"]
            self.assertEqual(set(pipelines), {"traces", "metrics", "logs"})
            for kind in ("receivers", "processors", "exporters"):
                used = {name for pipeline in pipelines.values() for name in pipeline[kind]}
                self.assertEqual(used, set(config[kind]), kind)
            ports = {p["endpoint"] for p in config["receivers"]["otlp"]["protocols"].values()}
            self.assertEqual(ports, {"127.0.0.1:4318", "127.0.0.1:4317"})


if __name__ == "__main__":
    unittest.main()
