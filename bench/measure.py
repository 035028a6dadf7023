"""Starts servers in turn, loads each with the same generator, and prints ratios."""

import argparse
import json
import os
import pathlib
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

BENCH = pathlib.Path(__file__).parent
TICK = 1e6 / os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")
# name: input, datatype, shape, and the i-th element
MODELS = {
    "tab": ("X", "FP32", [1, 30], lambda i: (i % 17) * 0.25),
    "enc": ("tokens", "INT64", [1, 64], lambda i: i % 97),
    "cnn": ("input", "FP32", [1, 3, 64, 64], lambda i: round((i * 37 % 255) / 255, 4)),
}
# case: model, and whether its tensors are sent as bytes
CASES = {"tab": ("tab", False), "enc": ("enc", False), "cnn": ("cnn", False), "cnn-bytes": ("cnn", True)}


def body(model, as_bytes, folder):
    """The file to post, and the length of its JSON part if bytes follow."""
    import numpy

    name, datatype, shape, element = MODELS[model]
    count = int(numpy.prod(shape))
    tensor = {"name": name, "datatype": datatype, "shape": shape}
    path = folder / f"{model}-{as_bytes}"
    if not as_bytes:
        tensor["data"] = [element(i) for i in range(count)]
        path.write_text(json.dumps({"inputs": [tensor]}))
        return path, None
    kind = {"FP32": numpy.float32, "INT64": numpy.int64}[datatype]
    raw = numpy.array([element(i) for i in range(count)], dtype=kind).tobytes()
    tensor["parameters"] = {"binary_data_size": len(raw)}
    header = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    path.write_bytes(header + raw)
    return path, len(header)


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def family(root):
    """A process and all its descendants."""
    parents = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                text = pathlib.Path(f"/proc/{entry}/stat").read_text()
            except OSError:
                continue
            parents[int(entry)] = int(text.rsplit(")", 1)[1].split()[1])
    found = [root]
    for process in found:
        found += [child for child, parent in parents.items() if parent == process]
    return found


def usage(root):
    """Processor time in microseconds, reaped children's included, and resident MiB, of a family."""
    micros = memory = 0
    for process in family(root):
        fields = pathlib.Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
        micros += sum(int(field) for field in fields[11:15]) * TICK
        memory += int(fields[21]) * PAGE / 2**20
    return micros, memory


class Server:
    def __init__(self, kind, options, model):
        self.kind, self.options, self.model = kind, options, model
        self.path = options.models / f"{model}.onnx"

    def __enter__(self):
        self.port = free_port()
        environment = dict(os.environ, MODEL=str(self.path))
        if self.kind.startswith("fastapi"):
            # uvicorn's own defaults for the plain one; it finds uvloop and httptools if they are there.
            fast = ["--loop", "uvloop", "--http", "httptools"]
            slow = ["--loop", "asyncio", "--http", "h11"]
            command = [sys.executable, "-m", "uvicorn", f"{self.kind}:app", "--port", self.port]
            command += ["--log-level", "warning", "--no-access-log", "--app-dir", BENCH / "peers"]
            command += fast if self.kind == "fastapi_tuned" else slow
        else:
            command = [self.options.binary, "serve", self.path, "--port", self.port]
            command += self.options.serve
            environment.setdefault("VIRTUAL_ENV", str(pathlib.Path(sys.executable).parent.parent))
        self.log = tempfile.TemporaryFile()
        self.started = time.monotonic()
        self.process = subprocess.Popen(
            [str(word) for word in command], env=environment, stdout=self.log, stderr=self.log
        )
        return self

    def url(self):
        return f"http://127.0.0.1:{self.port}/v2/models/{self.model}/infer"

    def first_answer(self, path, header):
        """Seconds from the start to the first answer."""
        headers = {"Content-Type": "application/json"}
        if header:
            headers = {
                "Content-Type": "application/octet-stream",
                "Inference-Header-Content-Length": str(header),
            }
        request = urllib.request.Request(self.url(), path.read_bytes(), headers)
        while time.monotonic() < self.started + 60:
            try:
                with urllib.request.urlopen(request, timeout=10) as answer:
                    answer.read()
                return time.monotonic() - self.started
            except OSError:
                if self.process.poll() is not None:
                    break
                time.sleep(0.002)
        self.log.seek(0)
        sys.exit(f"{self.kind} does not answer:\n{self.log.read().decode(errors='replace')}")

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def load(server, connections, seconds, path, header):
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "30s", "-s"]
    command += [BENCH / "load.lua", server.url(), "--", path] + ([header] if header else [])
    before, _ = usage(server.process.pid)
    output = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, text=True).stdout
    after, memory = usage(server.process.pid)
    lines = [line for line in output.splitlines() if line.startswith("RESULT ")]
    if not lines:
        sys.exit(f"the load generator failed:\n{output}")
    result = json.loads(lines[0].removeprefix("RESULT "))
    requests = max(result["requests"], 1)
    return {
        "per_second": result["requests"] / result["seconds"],
        "cpu_us": (after - before) / requests,
        "p50_us": result["p50_us"],
        "p99_us": result["p99_us"],
        "failed": result["failed"],
        "rss_mib": memory,
    }


def floor(model, options):
    """Processor microseconds of one run of the bare engine: our example if it was built, else
    ONNX Runtime from Python."""
    example = pathlib.Path(options.binary).parent / "examples" / "floor"
    if example.exists():
        environment = dict(os.environ, VIRTUAL_ENV=str(pathlib.Path(sys.executable).parent.parent))
        command = [example, options.models / f"{model}.onnx", "--seconds", "2"]
        output = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE).stdout
        return json.loads(output)["cpu_us"]
    import numpy
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = 1
    path = str(options.models / f"{model}.onnx")
    session = onnxruntime.InferenceSession(path, settings, providers=["CPUExecutionProvider"])
    name, datatype, shape, element = MODELS[model]
    kind = {"FP32": numpy.float32, "INT64": numpy.int64}[datatype]
    feed = {name: numpy.array([element(i) for i in range(int(numpy.prod(shape)))], kind).reshape(shape)}
    runs, before, end = 0, time.process_time(), time.monotonic() + 2
    while time.monotonic() < end:
        session.run(None, feed)
        runs += 1
    return (time.process_time() - before) / runs * 1e6


def measure(options, folder):
    results = {}
    for number in range(options.rounds):
        for case in options.only:
            model, as_bytes = CASES[case]
            path, header = body(model, as_bytes, folder)
            for kind in options.servers:
                if as_bytes and kind == "fastapi_plain":
                    continue
                with Server(kind, options, model) as server:
                    first = server.first_answer(path, header)
                    load(server, 4, 1, path, header)
                    for connections in options.connections:
                        found = load(server, connections, options.seconds, path, header)
                        found["first_answer_ms"] = first * 1e3
                        results.setdefault(f"{case}/{connections}/{kind}", []).append(found)
                        print(f"round {number + 1}: {case} {connections} {kind}", file=sys.stderr)
    return {key: summed_up(rounds) for key, rounds in results.items()}


def summed_up(rounds):
    """Each number's median over the rounds, and its smallest and largest value."""
    found = {key: statistics.median(r[key] for r in rounds) for key in rounds[0]}
    found["spread"] = {key: [min(r[key] for r in rounds), max(r[key] for r in rounds)] for key in rounds[0]}
    return found


def table(results, floors, options):
    lines = [
        "| case | connections | server | requests/s | ours ÷ it | CPU µs a request | p50 ms | p99 ms "
        "| failed | RSS MiB | first answer ms |",
        "|---|--:|---|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for case in options.only:
        for connections in options.connections:
            ours = results.get(f"{case}/{connections}/modelyard")
            for kind in options.servers:
                r = results.get(f"{case}/{connections}/{kind}")
                if not r:
                    continue
                ratio = f"{ours['per_second'] / r['per_second']:.2f}" if ours and r["per_second"] else ""
                lines.append(
                    f"| {case} | {connections} | {kind} | {r['per_second']:.0f} | {ratio} "
                    f"| {r['cpu_us']:.1f} | {r['p50_us'] / 1e3:.2f} | {r['p99_us'] / 1e3:.2f} "
                    f"| {r['failed']:.0f} | {r['rss_mib']:.0f} | {r['first_answer_ms']:.0f} |"
                )
        lines.append(f"| {case} | | bare engine | | | {floors[CASES[case][0]]:.1f} | | | | | |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    words = lambda text: text.split(",")
    parser.add_argument("--binary", required=True, help="the modelyard to measure")
    parser.add_argument("--models", type=pathlib.Path, default=BENCH.parent / "../shared/models")
    parser.add_argument("--seconds", type=int, default=5, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", type=words, default=list(CASES), help="cases: " + ",".join(CASES))
    parser.add_argument("--servers", type=words, default=["modelyard", "fastapi_plain", "fastapi_tuned"])
    parser.add_argument("--connections", type=lambda t: [int(n) for n in t.split(",")], default=[1, 16, 64])
    parser.add_argument("--serve", type=str.split, default=[], help="further words for `modelyard serve`")
    parser.add_argument("--out", type=pathlib.Path, default=BENCH / "results.json")
    options = parser.parse_args()
    options.models = options.models.resolve()
    with tempfile.TemporaryDirectory() as folder:
        results = measure(options, pathlib.Path(folder))
    floors = {model: floor(model, options) for model in {CASES[case][0] for case in options.only}}
    options.out.write_text(json.dumps({"results": results, "floor_cpu_us": floors}, indent=1) + "\n")
    print(table(results, floors, options))


if __name__ == "__main__":
    main()
