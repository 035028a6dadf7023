"""Promotes and rolls back many times beside steady load on two servers that share a registry.

    python3 bench/promote.py --binary target/release/modelyard --model tab.onnx \\
        --database postgres://postgres@127.0.0.1:5432/registry

Moves the alias `champion` between two versions, and measures how long it takes until each server
answers with the version that it names now, how many requests of the steady load failed, and the
load's p99 with and without the moves beside it, measured in turn. With --keep-warm 0s each move loads
the one version and unloads the other; otherwise both stay loaded, as after a rollout. Exits with 1 if a
request failed, if p99 rose by more than a fifth, or if the 99th percentile of a change's way to
both servers is above a second.

What is measured from is the moment before the move is asked for: by a request to the first server, or
with --cli by `modelyard alias`, whose start and connection to the database are then part of it, and
whose processor time is taken from the servers.
"""

import argparse
import http.client
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Server:
    def __init__(self, options, where):
        self.port = free_port()
        command = [options.binary, "serve", "--port", str(self.port), *where]
        command += ["--keep-warm", options.keep_warm]
        self.process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self.connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)

    def ask(self, body):
        """The version that answers; None if there is no answer yet."""
        try:
            self.connection.request("POST", "/v2/models/m/infer", body)
            answer = json.loads(self.connection.getresponse().read())
            return answer.get("model_version")
        except (OSError, http.client.HTTPException):
            self.connection.close()
            return None

    def move(self, version):
        headers = {"content-type": "application/json", "modelyard-by": "bench"}
        path = "/v2/registry/models/m/aliases/champion"
        self.connection.request("PUT", path, json.dumps({"version": int(version)}), headers)
        answer = self.connection.getresponse()
        if answer.status != 200:
            sys.exit(answer.read().decode())
        answer.read()

    def wait_for(self, version, body):
        while self.ask(body) != version:
            if self.process.poll() is not None:
                sys.exit("a server stopped")
            time.sleep(0.001)


class Load(threading.Thread):
    """The steady load on one server."""

    def __init__(self, options, server):
        super().__init__()
        self.command = [
            options.binary, "bench", f"http://127.0.0.1:{server.port}", "m", "--json",
            "--rate", str(options.rate), "--duration", f"{options.seconds}s",
        ]  # fmt: skip

    def run(self):
        done = subprocess.run(self.command, capture_output=True, text=True, check=True)
        self.found = json.loads(done.stdout)
        bad = sum(n for status, n in self.found["statuses"].items() if status != "200")
        self.failed = bad + sum(self.found["broken"].values())


def body_of(options):
    """A request of zeros for the model's inputs."""
    command = [options.binary, "inspect", options.model, "--json"]
    signature = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    inputs = []
    for spec in signature["inputs"]:
        shape = [d if isinstance(d, int) and d > 0 else 1 for d in spec["shape"]]
        count = 1
        for extent in shape:
            count *= extent
        inputs.append({**{k: spec[k] for k in ("name", "datatype")}, "shape": shape, "data": [0] * count})
    return json.dumps({"inputs": inputs})


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--binary", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--database", help="as for `modelyard serve`; SQLite without it")
    parser.add_argument("--moves", type=int, default=200)
    parser.add_argument("--gap", type=float, default=0.5, help="seconds from one move to the next")
    parser.add_argument("--cli", action="store_true", help="move by `modelyard alias`, not by a request")
    parser.add_argument("--kept", action="store_true", help="keep both versions loaded by aliases")
    parser.add_argument("--keep-warm", default="1h", help="as for `modelyard serve`; 0s loads anew at each move")
    parser.add_argument("--seconds", type=int, default=10, help="length of each measurement")
    parser.add_argument("--rate", type=float, default=200, help="requests a second on each server")
    options = parser.parse_args()
    body = body_of(options)
    folder = tempfile.TemporaryDirectory()
    where = ["--registry", folder.name]
    if options.database:
        where += ["--database", options.database]

    def run(*words):
        # It stands for a person elsewhere, and must not take the processors from the servers.
        subprocess.run(
            [options.binary, *words, *where], check=True, stdout=subprocess.DEVNULL,
            preexec_fn=lambda: os.nice(10),
        )  # fmt: skip

    for number in ("1", "2"):
        run("push", options.model, "--name", "m", "--meta", f"n={number}")
        if options.kept:
            run("alias", "m", f"kept{number}", number)
    run("alias", "m", "champion", "1")
    servers = [Server(options, where) for _ in range(2)]
    now, ways = "1", []
    alone, beside, failed = [], [], 0
    try:
        for server in servers:
            server.wait_for(now, body)
        while len(ways) < options.moves:
            for moving in (len(alone) % 2 == 0, len(alone) % 2 == 1):
                loads = [Load(options, server) for server in servers]
                for load in loads:
                    load.start()
                while moving and all(load.is_alive() for load in loads):
                    now, start = "2" if now == "1" else "1", time.monotonic()
                    if options.cli:
                        run("alias", "m", "champion", now)
                    else:
                        servers[0].move(now)
                    for server in servers:
                        server.wait_for(now, body)
                    ways.append(time.monotonic() - start)
                    time.sleep(max(0, options.gap - ways[-1]))
                for load in loads:
                    load.join()
                    failed += load.failed
                    (beside if moving else alone).append(load.found["latency_us"]["p99"])
    finally:
        for server in servers:
            server.process.terminate()
        for server in servers:
            server.process.wait(40)
    ways = sorted(1e3 * way for way in ways)
    slowest = ways[min(len(ways) - 1, int(0.99 * len(ways)))]
    spread = lambda v: f"{statistics.median(v):.0f} µs ({min(v):.0f}–{max(v):.0f})"
    slower = statistics.median(beside) / statistics.median(alone)
    print(f"{len(ways)} moves, seen by both servers after {statistics.median(ways):.0f} ms, p99 {slowest:.0f} ms")
    print(f"{failed} requests failed; p99: alone {spread(alone)}, beside {spread(beside)} ({slower:.2f}×)")
    sys.exit(failed > 0 or slower > 1.2 or slowest > 1000)


if __name__ == "__main__":
    main()
