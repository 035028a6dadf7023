"""An OpenTelemetry collector for tests: takes OTLP over HTTP or gRPC, and decodes it with
OpenTelemetry's own messages. It can be unwilling, slow, or away."""

import gzip
import http.server
import threading
import time
from concurrent import futures

import harness

SIGNALS = ("traces", "metrics", "logs")


def messages(signal):
    """The module of a signal's service, and the message that its Export takes."""
    from importlib import import_module

    base = f"opentelemetry.proto.collector.{signal}.v1.{signal}_service"
    name = {"traces": "trace", "metrics": "metrics", "logs": "logs"}[signal]
    base = f"opentelemetry.proto.collector.{name}.v1.{name}_service"
    module = import_module(base + "_pb2")
    service = f"Export{name.capitalize()}Service"
    return import_module(base + "_pb2_grpc"), getattr(module, service + "Request"), getattr(
        module, service + "Response"
    )


class Collector:
    """Over HTTP, for the length of a `with` block. `status` and `pause` say how it answers."""

    def __init__(self, status=200, pause=0):
        harness.needs("opentelemetry.proto.collector.trace.v1.trace_service_pb2")
        self.status, self.pause = status, pause
        self.received = {signal: [] for signal in SIGNALS}
        self.headers, self.tries = [], 0
        self.stopped = threading.Event()

    def take(self, signal, message):
        self.received[signal].append(message)

    def __enter__(self):
        collector = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                collector.tries += 1
                collector.stopped.wait(collector.pause)
                if collector.status == 200:
                    signal = self.path.rsplit("/", 1)[1]
                    if self.headers["content-encoding"] == "gzip":
                        body = gzip.decompress(body)
                    assert self.headers["content-type"] == "application/x-protobuf"
                    collector.headers.append(dict(self.headers))
                    _, request, _ = messages(signal)
                    collector.take(signal, request.FromString(body))
                self.send_response(collector.status)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.stopped.set()
        self.server.shutdown()
        self.server.server_close()

    def spans(self):
        return [
            span
            for message in list(self.received["traces"])
            for resource in message.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def metrics(self):
        """The last of each metric, by name."""
        return {
            metric.name: metric
            for message in list(self.received["metrics"])
            for resource in message.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }

    def lines(self):
        return [
            line
            for message in list(self.received["logs"])
            for resource in message.resource_logs
            for scope in resource.scope_logs
            for line in scope.log_records
        ]

    def resource(self):
        message = self.received["metrics"][-1]
        return attributes(message.resource_metrics[0].resource)


class GrpcCollector(Collector):
    def __enter__(self):
        import grpc

        self.server = grpc.server(futures.ThreadPoolExecutor(4))
        for signal in SIGNALS:
            services, _, response = messages(signal)
            name = {"traces": "Trace", "metrics": "Metrics", "logs": "Logs"}[signal]

            def export(request, context, signal=signal, response=response):
                self.headers.append(dict(context.invocation_metadata()))
                self.take(signal, request)
                return response()

            servicer = type("Servicer", (), {"Export": staticmethod(export)})()
            getattr(services, f"add_{name}ServiceServicer_to_server")(servicer, self.server)
        port = self.server.add_insecure_port("127.0.0.1:0")
        self.server.start()
        self.endpoint = f"http://127.0.0.1:{port}"
        return self

    def __exit__(self, *_):
        self.server.stop(0)


def attributes(of):
    """Attributes as a dictionary."""
    return {a.key: getattr(a.value, a.value.WhichOneof("value")) for a in of.attributes}


def wait_for(condition, timeout=20):
    """What a condition gives as soon as it holds."""
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError("it did not come to be")
