"""Runs the commands that the documentation shows.

Every line of a fenced block marked `sh` in README.md and docs/*.md is run, in order, from the project's folder:
`modelyard serve …` in the background until the page ends, everything else to success. Blocks with
other marks (console, toml, python) are not commands of the guides.
"""

import os
import pathlib
import re
import subprocess
import unittest
import urllib.error
import urllib.request

import harness

ROOT = pathlib.Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)
SERVE = re.compile(r"^(?:cargo run --release -p cli --|modelyard) serve (.*)$")


def commands(page):
    blocks = BLOCK.findall(page.read_text())
    return [line for block in blocks for line in block.splitlines() if line.strip()]


def is_ready(server):
    try:
        with urllib.request.urlopen(f"http://{server.address}/v2/health/ready", timeout=5) as reply:
            return reply.status == 200
    except urllib.error.HTTPError:
        return False


class Commands(unittest.TestCase):
    def run_page(self, page):
        server = None
        try:
            for line in commands(page):
                serve = SERVE.match(line)
                if serve:
                    os.chdir(ROOT)
                    server = harness.Server(serve.group(1).split()).__enter__()
                    harness.wait_until(lambda: is_ready(server), server)
                else:
                    self.run_line(line, server)
        finally:
            if server:
                server.__exit__()

    def run_line(self, line, server):
        binary = os.environ["MODELYARD_BINARY"]
        if server:
            line = line.replace("127.0.0.1:8080", server.address)
        # curl is told to fail on an error status, which in the guides would hide the answer.
        script = f'modelyard() {{ "{binary}" "$@"; }}\ncurl() {{ command curl --fail-with-body "$@"; }}\n{line}\n'
        done = subprocess.run(
            ["bash", "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=120
        )
        self.assertEqual(done.returncode, 0, f"{line}\n{done.stdout}{done.stderr}")

    def test_every_page(self):
        if not os.environ.get("MODELYARD_BINARY"):
            harness.skip("MODELYARD_BINARY does not name the server's binary")
        pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
        run = 0
        for page in pages:
            if commands(page):
                with self.subTest(page=page.name):
                    self.run_page(page)
                    run += 1
        self.assertGreaterEqual(run, 2, "README.md and docs/serving.md have commands")


if __name__ == "__main__":
    unittest.main()
