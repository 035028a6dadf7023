"""Loads and unloads one model many times beside steady load on another, and shows what that costs.

    python3 bench/soak.py --binary target/release/modelyard --steady tab.onnx --cycled enc.onnx

Prints the steady load's p99 with and without the cycles beside it, measured in turn (the order
changes each time), and the server's memory after the first tenth of the cycles and after the last.
Exits with 1 if memory grew by more than 5 %, or if p99 rose by more than a fifth.

The thread that asks for the cycles has a low priority: it stands for a client elsewhere, and on this
machine must not take the processors from the server and the generator.
"""

import argparse
import json
import os
import pathlib
import socket
import statistics
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request


def post(base, path):
    request = urllib.request.Request(base + path, data=b"", method="POST")
    with urllib.request.urlopen(request, timeout=60) as reply:
        return reply.read()


def ready(base):
    try:
        with urllib.request.urlopen(base + "/v2/health/ready", timeout=5) as reply:
            return reply.status == 200
    except (urllib.error.URLError, ConnectionError):
        return False


def resident(process):
    text = pathlib.Path(f"/proc/{process.pid}/status").read_text()
    return int(text.split("VmRSS:")[1].split()[0]) / 1024


class Cycles(threading.Thread):
    """Loads and unloads until told to stop, at most so many times a second."""

    def __init__(self, base, process, name, rate):
        super().__init__()
        self.base, self.process, self.name_of_model = base, process, name
        self.gap = 1 / rate if rate else 0
        self.stop = threading.Event()
        self.memory = []
        self.error = None

    def run(self):
        try:
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)
            start = time.monotonic()
            while not self.stop.wait(max(0, start + len(self.memory) * self.gap - time.monotonic())):
                post(self.base, f"/v2/repository/models/{self.name_of_model}/unload")
                post(self.base, f"/v2/repository/models/{self.name_of_model}/load")
                self.memory.append(resident(self.process))
        except Exception as error:  # noqa: BLE001 - reported by the main thread
            self.error = error


def percentile_99(binary, base, model, seconds, rate):
    command = [binary, "bench", base, model, "--rate", str(rate), "--duration", f"{seconds}s", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)["latency_us"]["p99"]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--binary", required=True)
    parser.add_argument("--steady", required=True)
    parser.add_argument("--cycled", required=True)
    parser.add_argument("--cycles", type=int, default=1000)
    parser.add_argument("--seconds", type=int, default=5, help="length of each measurement")
    parser.add_argument("--rate", type=float, default=200, help="requests a second")
    parser.add_argument("--cycle-rate", type=float, help="cycles a second; as fast as it goes without")
    parser.add_argument("--serve", nargs=argparse.REMAINDER, default=[], help="further flags of serve")
    args = parser.parse_args()
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    base = f"http://127.0.0.1:{port}"
    serve = [args.binary, "serve", "--port", str(port), "--model", f"steady={args.steady}"]
    serve += ["--model", f"cycled={args.cycled}", *args.serve]
    process = subprocess.Popen(serve, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    alone, beside, memory, cycles = [], [], [], 0
    try:
        while not ready(base):
            if process.poll() is not None:
                sys.exit("the server stopped")
            time.sleep(0.05)
        while cycles < args.cycles:
            for cycling in (len(alone) % 2 == 0, len(alone) % 2 == 1):
                if not cycling:
                    alone.append(percentile_99(args.binary, base, "steady", args.seconds, args.rate))
                    continue
                worker = Cycles(base, process, "cycled", args.cycle_rate)
                worker.start()
                beside.append(percentile_99(args.binary, base, "steady", args.seconds, args.rate))
                worker.stop.set()
                worker.join()
                if worker.error:
                    sys.exit(f"a cycle failed: {worker.error}")
                cycles += len(worker.memory)
                memory += worker.memory
    finally:
        process.terminate()
        process.wait(40)
    spread = lambda values: f"{statistics.median(values):.0f} µs ({min(values):.0f}–{max(values):.0f})"
    early = sum(memory[len(memory) // 20 : len(memory) // 10]) / max(1, len(memory) // 10 - len(memory) // 20)
    late = sum(memory[-len(memory) // 20 :]) / max(1, len(memory[-len(memory) // 20 :]))
    growth, slower = late / early - 1, statistics.median(beside) / statistics.median(alone)
    print(f"{cycles} cycles, {cycles / len(beside) / (args.seconds + 1):.0f} a second; memory {early:.1f} → {late:.1f} MiB ({growth:+.1%})")
    print(f"p99 of the steady load: alone {spread(alone)}, beside {spread(beside)} ({slower:.2f}×)")
    sys.exit(growth > 0.05 or slower > 1.2)


if __name__ == "__main__":
    main()
