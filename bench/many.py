"""Serves many small models: how soon they are ready, what they take, and how fast any answers.

    python3 bench/many.py --binary target/release/modelyard

Makes models of two layers with weights of their own (bench/requirements.txt has onnx), and starts
the server three times: with everything in memory, with memory for a quarter of the models, and with
a quarter of their number allowed. Each time it asks models at random, one request after the other on
one connection, and then a few models most of the time (80 % of the requests for 5 % of the models),
which is nearer to what a server with many models sees. Exits with 1 if a request failed, if the
start took more than 10 s, or if an answer was another model's.
"""

import argparse
import http.client
import json
import os
import random
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy
import onnx
from onnx import TensorProto, helper, numpy_helper

COLUMNS, HIDDEN = 8, 16


def make(path, number):
    """A small network; its last bias is its number, and zeros in give that number out."""
    chance = numpy.random.default_rng(number)
    weights = {
        "w1": chance.normal(size=(COLUMNS, HIDDEN)).astype(numpy.float32),
        "b1": numpy.zeros(HIDDEN, numpy.float32),
        "w2": chance.normal(size=(HIDDEN, 1)).astype(numpy.float32),
        "b2": numpy.array([number], numpy.float32),
    }
    nodes = [
        helper.make_node("Gemm", ["x", "w1", "b1"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Gemm", ["r", "w2", "b2"], ["y"]),
    ]
    tensor = lambda name, width: helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", width])
    initializers = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "g", [tensor("x", COLUMNS)], [tensor("y", 1)], initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.mkdir(parents=True)
    onnx.save(model, path / "model.onnx")


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Server:
    def __init__(self, options, folder, more):
        port = free_port()
        command = [options.binary, "serve", str(folder), "--port", str(port), *more]
        command += [f"--engine={options.engine}"] if options.engine else []
        start = time.perf_counter()
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        while self.ask("GET", "/v2/health/ready")[0] != 200:
            if self.process.poll() is not None:
                sys.exit("the server stopped")
            time.sleep(0.02)
        self.ready_s = time.perf_counter() - start

    def ask(self, method, path, body=None):
        try:
            self.connection.request(method, path, body)
            answer = self.connection.getresponse()
            return answer.status, answer.read()
        except OSError:
            self.connection.close()
            return 0, b""

    def status(self):
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        fields = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
        return int(fields["VmRSS"].split()[0]) / 1024, int(fields["Threads"])

    def reckoned(self):
        """Bytes that the server reckons its models to hold, and how many are loaded."""
        stats = json.loads(self.ask("GET", "/v2/models/stats")[1])["model_stats"]
        held = [usage["byte_size"] for model in stats for usage in model["memory_usage"]]
        return sum(held), len(held)

    def stop(self):
        self.process.terminate()
        self.process.wait()


def body():
    row = {"name": "x", "shape": [1, COLUMNS], "datatype": "FP32", "data": [0.0] * COLUMNS}
    return json.dumps({"inputs": [row]})


def load(server, names, picks):
    """Milliseconds at the median and the 99th percentile, and how many requests went wrong."""
    times, wrong, asked = [], 0, body()
    for number in picks:
        start = time.perf_counter()
        status, answer = server.ask("POST", f"/v2/models/{names[number]}/infer", asked)
        times.append((time.perf_counter() - start) * 1e3)
        if status != 200 or json.loads(answer)["outputs"][0]["data"] != [float(number)]:
            wrong += 1
    times.sort()
    return times[len(times) // 2], times[len(times) * 99 // 100], wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--binary", required=True)
    parser.add_argument("--models", type=int, default=1000)
    parser.add_argument("--requests", type=int, default=3000)
    parser.add_argument("--engine", help="pin the engine instead of measuring which is faster")
    options = parser.parse_args()
    names = [f"m{number:04}" for number in range(options.models)]
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        for number, name in enumerate(names):
            make(folder / name / "1", number)
        size = sum(os.path.getsize(path) for path in folder.glob("*/1/model.onnx"))
        print(f"{options.models} models of {size // options.models} bytes")
        chance = random.Random(7)
        few = range(max(1, options.models // 20))
        even = [chance.randrange(options.models) for _ in range(options.requests)]
        hot = [
            chance.choice(few) if chance.random() < 0.8 else chance.randrange(options.models)
            for _ in range(options.requests)
        ]
        limits = {"all in memory": []}
        while limits:
            what, more = limits.popitem()
            server = Server(options, folder, more)
            rss, threads = server.status()
            held, loaded = server.reckoned()
            print(f"{what}: ready after {server.ready_s:.2f} s; {rss:.0f} MiB resident, "
                  f"{held / 2**20:.0f} MiB of it reckoned for {loaded} models; {threads} threads")
            for kind, picks in [("evenly", even), ("80 % to 5 %", hot)]:
                p50, p99, wrong = load(server, names, picks)
                rss, threads = server.status()
                print(f"  {kind}: p50 {p50:.2f} ms, p99 {p99:.2f} ms, {wrong} wrong; "
                      f"then {rss:.0f} MiB, {threads} threads, {server.reckoned()[1]} loaded")
                failed |= wrong > 0
            failed |= server.ready_s > 10
            server.stop()
            if not more:
                limits["memory for a quarter"] = ["--memory", str(held // 4)]
                limits["a quarter of them"] = ["--max-loaded", str(options.models // 4)]
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
