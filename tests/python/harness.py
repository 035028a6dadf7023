"""Starts the server for tests, and skips what cannot run here, loudly."""

import importlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import unittest


def needs(*modules):
    """Skips the test class unless the modules can be imported; says so on standard error."""
    for module in modules:
        try:
            importlib.import_module(module)
        except ImportError as error:
            skip(f"{module} cannot be imported: {error}")


def skip(reason):
    print(f"SKIPPED: {reason}", file=sys.stderr)
    raise unittest.SkipTest(reason)


class Server:
    """`modelyard serve` on a free port, for the length of a `with` block.

    `address` is `127.0.0.1:PORT`, read from what the server logs when it is up.
    """

    def __init__(self, arguments, timeout=60):
        binary = os.environ.get("MODELYARD_BINARY")
        if not binary:
            skip("MODELYARD_BINARY does not name the server's binary")
        self.command = [binary, "serve", "--port", "0", *map(str, arguments)]
        self.timeout = timeout
        self.lines = []
        # What is fetched from a registry is kept here, and not in the user's own folder.
        self.cache = tempfile.TemporaryDirectory()

    def __enter__(self):
        self.process = subprocess.Popen(
            self.command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env={"MODELYARD_CACHE": self.cache.name, **os.environ},
        )
        found = threading.Event()
        self.address = None

        def read():
            for line in self.process.stdout:
                self.lines.append(line)
                address = address_in(line)
                if address and not self.address:
                    self.address = address
                    found.set()
            found.set()

        self.reader = threading.Thread(target=read, daemon=True)
        self.reader.start()
        if not found.wait(self.timeout) or not self.address:
            self.process.kill()
            self.process.wait()
            raise AssertionError("the server did not come up:\n" + "".join(self.lines))
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise AssertionError("the server did not stop on SIGTERM:\n" + "".join(self.lines))
        finally:
            self.reader.join(5)
            self.cache.cleanup()
            self.process.stdout.close()


def serve(case, **more):
    """Starts a server of the models of `models.repository`, and `more` graphs by name, for as long as
    a test class runs. Sets the class's `types`, and returns the server."""
    import models

    folder = case.enterClassContext(tempfile.TemporaryDirectory())
    case.types = models.repository(folder)
    for name, graph in more.items():
        models.save(folder, name, graph)
    return case.enterClassContext(Server([folder]))


class TritonClient(unittest.TestCase):
    """What the tests of NVIDIA's clients share; a subclass names the module `tritonclient.X`."""

    module = None
    options = {}

    @classmethod
    def setUpClass(cls):
        needs(cls.module, "onnx", "ml_dtypes")
        cls.triton = importlib.import_module(cls.module)
        server = serve(cls)
        cls.address = server.address
        cls.client = cls.triton.InferenceServerClient(server.address, **cls.options)
        cls.addClassCleanup(cls.client.close)
        wait_until(cls.client.is_server_ready, server)

    def tensor(self, name, array, datatype=None, **how):
        from tritonclient.utils import np_to_triton_dtype

        datatype = datatype or np_to_triton_dtype(array.dtype)
        tensor = self.triton.InferInput(name, array.shape, datatype)
        tensor.set_data_from_numpy(array, **how)
        return tensor

    def refusal(self, text, call, *args, **options):
        """The status of a call that has to be refused in words that hold `text`."""
        from tritonclient.utils import InferenceServerException

        with self.assertRaises(InferenceServerException) as caught:
            call(*args, **options)
        self.assertIn(text, caught.exception.message())
        return caught.exception.status()


def wait_until(condition, server, timeout=60):
    """Waits until a condition holds; shows what the server logged if it never does."""
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        try:
            if condition():
                return
        except Exception:
            pass  # The server may not be up yet.
        time.sleep(0.05)
    raise AssertionError("the server did not become ready:\n" + "".join(server.lines))


def address_in(line):
    """The address in a line of the server's log: JSON with an `address`, or any host:port in it."""
    try:
        fields = json.loads(line)
        fields = {**fields, **fields.get("fields", {})}
        address = fields.get("address")
        return address and address.removeprefix("http://")
    except (ValueError, AttributeError, TypeError):
        match = re.search(r"127\.0\.0\.1:\d+", line)
        return match and match.group(0)
