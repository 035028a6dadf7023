"""Measures what a shadow costs the callers of a model.

    python3 bench/shadow.py --binary target/release/modelyard --model tab.onnx --rate 2000

One server follows a registry with two versions of a model. Version 1 answers all callers; version 2
is loaded all the time, in turn as a shadow that gets a copy of all their requests and as a version
that nobody asks. Prints the callers' latency in both cases, interleaved, and what became of the
copies. Exits with 1 if a request failed, or if the median or the 99th percentile of the callers is
more than a fifth above that without.
"""

import argparse
import json
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--binary", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--rate", type=float, default=200, help="requests a second")
    parser.add_argument("--seconds", type=int, default=5, help="length of each measurement")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    folder = tempfile.TemporaryDirectory()
    where = ["--registry", folder.name]

    def run(*words):
        subprocess.run([options.binary, *words, *where], check=True, stdout=subprocess.DEVNULL)

    for number in ("1", "2"):
        run("push", options.model, "--name", "m", "--meta", f"n={number}")
    run("traffic", "m", "1=1", "2=0")
    url = f"http://127.0.0.1:{(port := free_port())}"
    command = [options.binary, "serve", "--port", str(port), *where]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def ask(path):
        with urllib.request.urlopen(url + path) as answer:
            return json.load(answer)

    def copies():
        return ask("/v2/models/m/versions/2/stats")["model_stats"][0]["shadow_stats"]

    def measure():
        command = [
            options.binary, "bench", url, "m", "--json",
            "--rate", str(options.rate), "--duration", f"{options.seconds}s",
        ]  # fmt: skip
        found = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
        failed = sum(n for status, n in found["statuses"].items() if status != "200")
        return found["latency_us"], failed + sum(found["broken"].values())

    latency, failed, count = {False: [], True: []}, 0, 0
    try:
        while True:
            try:
                copies()
                break
            except OSError:
                time.sleep(0.05)
        for turn in range(2 * options.rounds):
            # With first in every other round.
            shadowed = turn % 4 in (1, 2)
            run("traffic", "m", "1=1", *(["--shadow", "2"] if shadowed else ["2=0"]))
            time.sleep(1)
            before = copies()
            found, bad = measure()
            latency[shadowed].append(found)
            failed += bad
            count += copies()["run"]["count"] - before["run"]["count"]
        end = copies()
    finally:
        server.terminate()
        server.wait(40)
    print(f"{options.rate:.0f} requests a second, {failed} failed; copies: {end['run']['count']} ran, "
          f"{end['failed']} failed, {end['dropped']} dropped")  # fmt: skip
    worst = 0
    for quantile in ("p50", "p99"):
        alone, beside = ([found[quantile] for found in latency[which]] for which in (False, True))
        ratio = statistics.median(beside) / statistics.median(alone)
        spread = lambda v: f"{statistics.median(v):.0f} µs ({min(v):.0f}–{max(v):.0f})"
        print(f"{quantile}: alone {spread(alone)}, with a shadow {spread(beside)}: {ratio:.2f}×")
        worst = max(worst, ratio)
    sys.exit(failed > 0 or count == 0 or worst > 1.2)


if __name__ == "__main__":
    main()
