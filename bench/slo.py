"""Promises a time and offers most of what the server can do: is the promise kept, and at what price?

    python3 bench/slo.py --binary target/release/modelyard --model enc.onnx --shape tokens=1,64

Measures the model's time (one connection) and the capacity (a closed loop), starts the server again
with `--slo p99=` five times that time, offers 90 % of the capacity at random moments, and counts what
was answered, what was refused at once, and how long the admitted took. Exits with 1 if the 99th
percentile of the admitted is above what was promised.
"""

import argparse
import collections
import contextlib
import json
import pathlib
import socket
import subprocess
import sys
import time
import urllib.request


@contextlib.contextmanager
def server(options, *flags):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    base = f"http://127.0.0.1:{port}"
    command = [options.binary, "serve", options.model, "--port", str(port), *flags, *options.serve]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while True:
            try:
                urllib.request.urlopen(base + "/v2/health/ready", timeout=5).close()
                break
            except OSError:
                if process.poll() is not None:
                    sys.exit("the server stopped")
                time.sleep(0.05)
        yield base
    finally:
        process.terminate()
        process.wait(40)


def bench(options, base, *flags):
    name = pathlib.Path(options.model).stem
    command = [options.binary, "bench", base, name, "--json", "--duration", f"{options.seconds}s", *flags]
    for shape in options.shape:
        command += ["--shape", shape]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--binary", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--shape", action="append", default=[], help="as for `modelyard bench`")
    parser.add_argument("--seconds", type=int, default=10, help="length of each measurement")
    parser.add_argument("--times", type=float, default=5, help="the promise, in times of the model's")
    parser.add_argument("--load", type=float, default=0.9, help="of the capacity")
    parser.add_argument("--serve", nargs=argparse.REMAINDER, default=[], help="further flags of serve")
    options = parser.parse_args()
    with server(options) as base:
        alone = bench(options, base, "--connections", "1")["latency_us"]["p50"] / 1e3
        capacity = bench(options, base, "--connections", "16")["throughput"]
    promised = options.times * alone
    with server(options, "--slo", f"p99={promised:.2f}ms") as base:
        open_loop = ["--connections", "256", "--rate", str(options.load * capacity)]
        found = bench(options, base, *open_loop)
    times = {name: value / 1e3 for name, value in found["latency_us"].items()}
    offered = collections.Counter(found["statuses"]).total() + sum(found["broken"].values())
    print(f"alone {alone:.2f} ms, capacity {capacity:.0f}/s, promised p99 {promised:.1f} ms")
    print(f"offered {found['rate']:.0f}/s: answered {found['answered']} of {offered}, {found['statuses']}")
    print("the admitted, ms: " + ", ".join(f"{q} {times[q]:.1f}" for q in ("p50", "p90", "p95", "p99", "p99.9")))
    sys.exit(times["p99"] > promised)


if __name__ == "__main__":
    main()
