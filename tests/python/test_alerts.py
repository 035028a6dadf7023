"""Alerts end to end: each notifier's own form at a local receiver (Alertmanager, a mail server and
Standard Webhooks' own library are the real ones), and a server whose rules fire."""

import contextlib
import http.server
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import unittest
import urllib.request

import harness
import models

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


class Receiver:
    """Takes whatever is posted and remembers it; answers what `statuses` says first, then 200."""

    def __init__(self, statuses=()):
        self.posts, self.statuses = [], list(statuses)
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                status = receiver.statuses.pop(0) if receiver.statuses else 200
                receiver.posts.append((self.path, dict(self.headers), body, status))
                self.send_response(status)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()

    def to(self, path, status=200):
        return [post for post in self.posts if post[0] == path and post[3] == status]


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@contextlib.contextmanager
def alertmanager():
    """Debian's Alertmanager; its address."""
    binary = shutil.which("prometheus-alertmanager") or shutil.which("alertmanager")
    if not binary:
        harness.skip("Alertmanager is not installed; ./test installs it")
    with tempfile.TemporaryDirectory() as folder:
        config = os.path.join(folder, "config.yml")
        with open(config, "w") as file:
            file.write('{"route": {"receiver": "nobody"}, "receivers": [{"name": "nobody"}]}')
        address = f"127.0.0.1:{free_port()}"
        command = [
            binary, f"--config.file={config}", f"--storage.path={folder}/data",
            f"--web.listen-address={address}", "--cluster.listen-address=",
        ]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        process.lines = []
        try:
            url = f"http://{address}"
            ready = lambda: urllib.request.urlopen(f"{url}/-/ready", timeout=5).status == 200
            harness.wait_until(ready, process)
            yield url
        finally:
            process.kill()
            process.wait()


def modelyard(*arguments, **environment):
    binary = os.environ.get("MODELYARD_BINARY")
    if not binary:
        harness.skip("MODELYARD_BINARY does not name the binary")
    return subprocess.run(
        [binary, *map(str, arguments)], capture_output=True, text=True, timeout=60,
        env={**os.environ, **environment},
    )


class Notifiers(unittest.TestCase):
    """`modelyard alerts test` sends one message to each."""

    def setUp(self):
        self.folder = self.enterContext(tempfile.TemporaryDirectory())
        self.receiver = self.enterContext(Receiver())

    def send(self, toml, *arguments, **environment):
        rules = os.path.join(self.folder, "alerts.toml")
        with open(rules, "w") as file:
            file.write(toml)
        done = modelyard("alerts", "test", rules, *arguments, **environment)
        return done.returncode, done.stdout + done.stderr

    def sent(self, toml, *arguments, **environment):
        status, said = self.send(toml, *arguments, **environment)
        self.assertEqual(status, 0, said)
        self.assertIn("sent", said)

    def test_slack(self):
        toml = '[notifiers.chat]\nkind = "slack"\nurl = { env = "SLACK_URL" }\n'
        self.sent(toml, SLACK_URL=self.receiver.url + "/services/T/B/x")
        [(path, headers, body, _)] = self.receiver.posts
        self.assertEqual((path, headers["content-type"]), ("/services/T/B/x", "application/json"))
        message = json.loads(body)
        self.assertEqual(message["text"], "[firing 1] example: Test")
        self.assertIn("nothing is wrong with example", message["attachments"][0]["text"])

    def test_teams(self):
        url = self.receiver.url + "/workflow?sig=s"
        self.sent(f'[notifiers.chat]\nkind = "teams"\nurl = "{url}"\n')
        [(path, _, body, _)] = self.receiver.posts
        self.assertEqual(path, "/workflow?sig=s")
        message = json.loads(body)
        [attachment] = message["attachments"]
        self.assertEqual(message["type"], "message")
        self.assertEqual(attachment["contentType"], "application/vnd.microsoft.card.adaptive")
        self.assertEqual(attachment["content"]["type"], "AdaptiveCard")
        self.assertIn("[firing 1] example: Test", attachment["content"]["body"][0]["text"])

    def test_pagerduty_is_told_and_told_that_it_is_over_by_the_same_key(self):
        toml = f'[notifiers.pager]\nkind = "pagerduty"\nrouting_key = "R0"\nurl = "{self.receiver.url}"\n'
        self.sent(toml)
        self.sent(toml, "--resolved")
        events = [json.loads(body) for _, _, body, _ in self.receiver.to("/v2/enqueue")]
        self.assertEqual([event["event_action"] for event in events], ["trigger", "resolve"])
        self.assertEqual(len({event["dedup_key"] for event in events}), 1)
        payload = events[0]["payload"]
        self.assertEqual(events[0]["routing_key"], "R0")
        self.assertEqual((payload["severity"], payload["source"]), ("info", "example"))
        self.assertLessEqual(len(payload["summary"]), 1024)

    def test_opsgenie_closes_what_it_opened(self):
        toml = f'[notifiers.genie]\nkind = "opsgenie"\napi_key = "K0"\nurl = "{self.receiver.url}"\n'
        self.sent(toml)
        self.sent(toml, "--resolved")
        [(_, headers, body, _)] = self.receiver.to("/v2/alerts")
        opened = json.loads(body)
        self.assertEqual(headers["authorization"], "GenieKey K0")
        self.assertLessEqual(len(opened["message"]), 130)
        close = f"/v2/alerts/{opened['alias']}/close?identifierType=alias"
        self.assertEqual(len(self.receiver.to(close)), 1)

    def test_webhooks_are_signed_as_standard_webhooks_says(self):
        harness.needs("standardwebhooks")
        from standardwebhooks.webhooks import Webhook, WebhookVerificationError

        url = self.receiver.url + "/hook"
        self.sent(
            f'[notifiers.hook]\nkind = "webhook"\nurl = "{url}"\nsecret = "{SECRET}"\n'
            '[notifiers.hook.headers]\nauthorization = "Bearer t"\n'
        )
        [(_, headers, body, _)] = self.receiver.posts
        self.assertEqual(headers["authorization"], "Bearer t")
        message = Webhook(SECRET).verify(body.decode(), headers)
        self.assertEqual(message["version"], "4")
        self.assertEqual(message["alerts"][0]["labels"]["alertname"], "Test")
        with self.assertRaises(WebhookVerificationError):
            Webhook(SECRET).verify(body.decode().replace("example", "other"), headers)

    def test_mail(self):
        harness.needs("aiosmtpd")
        from aiosmtpd.controller import Controller

        class Box:
            mails = []

            async def handle_DATA(self, server, session, envelope):
                self.mails.append((envelope.mail_from, envelope.rcpt_tos, envelope.content))
                return "250 OK"

        port = free_port()
        controller = Controller(Box(), hostname="127.0.0.1", port=port)
        controller.start()
        self.addCleanup(controller.stop)
        self.sent(
            f'[notifiers.mail]\nkind = "email"\nsmtp = "smtp://127.0.0.1:{port}"\n'
            'from = "Modelyard <modelyard@example.org>"\nto = ["a@example.org", "b@example.org"]\n'
        )
        [(sender, receivers, content)] = Box.mails
        import email
        import email.policy

        mail = email.message_from_bytes(content, policy=email.policy.default)
        self.assertEqual(sender, "modelyard@example.org")
        self.assertEqual(receivers, ["a@example.org", "b@example.org"])
        self.assertEqual(mail["subject"], "[firing 1] example: Test")
        self.assertIn("nothing is wrong with example", mail.get_content())

    def test_alertmanager(self):
        with alertmanager() as url:
            toml = f'[notifiers.am]\nkind = "alertmanager"\nurl = "{url}"\n'
            alerts = lambda: json.load(urllib.request.urlopen(f"{url}/api/v2/alerts", timeout=10))
            self.sent(toml)
            [alert] = alerts()
            self.assertEqual(alert["labels"]["alertname"], "Test")
            self.assertEqual(alert["labels"]["model"], "example")
            self.assertIn("nothing is wrong", alert["annotations"]["summary"])
            self.sent(toml, "--resolved")
            self.assertEqual(alerts(), [])

    def test_a_command(self):
        out = os.path.join(self.folder, "out")
        self.sent(f'[notifiers.run]\nkind = "command"\ncommand = ["sh", "-c", "cat > {out}"]\n')
        with open(out) as file:
            self.assertEqual(json.load(file)["status"], "firing")
        status, said = self.send(
            '[notifiers.run]\nkind = "command"\ncommand = ["sh", "-c", "echo no >&2; exit 3"]\n'
        )
        self.assertEqual(status, 1)
        self.assertIn("exit status: 3: no", said)

    def test_what_cannot_be_sent_says_why_and_shows_no_secret(self):
        url = f"http://127.0.0.1:{free_port()}/very-secret"
        status, said = self.send(f'[notifiers.chat]\nkind = "slack"\nurl = "{url}"\n')
        self.assertEqual(status, 1)
        self.assertIn("refused", said)
        self.assertNotIn("very-secret", said)
        status, said = self.send('[notifiers.chat]\nkind = "slack"\nurl = { env = "NOT_SET_HERE" }\n')
        self.assertEqual(status, 2)
        self.assertIn("$NOT_SET_HERE is not set", said)


RULES = """
defaults = false
every = "1s"
[[rules]]
name = "Nonsense"
metric = "modelyard_requests_total"
where = { code = "INVALID_ARGUMENT" }
window = "1m"
above = 3
by = ["model"]
severity = "critical"
summary = "{model} was asked nonsense {value} times"
[grouping]
wait = "0s"
interval = "1s"
"""


class Serving(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        harness.needs("onnx", "ml_dtypes")

    def setUp(self):
        self.folder = self.enterContext(tempfile.TemporaryDirectory())
        self.models = os.path.join(self.folder, "models")
        os.mkdir(self.models)
        models.repository(self.models)
        self.rules = os.path.join(self.folder, "alerts.toml")
        self.state = os.path.join(self.folder, "state", "alerts.json")

    def write(self, *notifiers):
        with open(self.rules, "w") as file:
            file.write(RULES + "".join(notifiers))

    def start(self):
        arguments = [self.models, "--alerts", self.rules, "--alerts-state", self.state]
        return harness.Server(arguments)

    def ask_nonsense(self, server, times=5):
        harness.wait_until(lambda: self.get(server, "/v2/health/ready")[0] == 200, server)
        # What was counted before the first look says nothing.
        harness.wait_until(lambda: self.said(server)["looked"], server)
        for _ in range(times):
            request = urllib.request.Request(
                f"http://{server.address}/v2/models/add/infer", b"{", method="POST"
            )
            with self.assertRaises(urllib.error.HTTPError):
                urllib.request.urlopen(request, timeout=10)

    def get(self, server, path):
        with urllib.request.urlopen(f"http://{server.address}{path}", timeout=10) as reply:
            return reply.status, reply.read()

    def said(self, server):
        return json.loads(self.get(server, "/v2/alerts")[1])

    def alerts(self, server):
        return self.said(server)["alerts"]

    def test_it_fires_is_told_at_least_once_and_can_be_silenced(self):
        with Receiver([503, 503]) as receiver:
            self.write(f'[notifiers.hook]\nkind = "webhook"\nurl = "{receiver.url}/hook"\n')
            with self.start() as server:
                at = ["--url", f"http://{server.address}"]
                done = modelyard("alerts", "list", *at)
                self.assertEqual((done.returncode, done.stdout), (0, "nothing is wrong\n"))
                self.ask_nonsense(server)
                harness.wait_until(lambda: receiver.to("/hook"), server)
                # Tried until it was taken, under one name.
                self.assertEqual(len(receiver.to("/hook", 503)), 2)
                ids = {headers["webhook-id"] for _, headers, _, _ in receiver.posts}
                self.assertEqual(len(ids), 1)
                done = modelyard("alerts", "list", *at)
                self.assertEqual(done.returncode, 1)
                self.assertIn("add was asked nonsense 5 times", done.stdout)
                done = modelyard(
                    "alerts", "silence", "--where", "model=a*", "--for", "1h", "--why", "test", *at
                )
                self.assertEqual(done.returncode, 0, done.stderr)
                silence = done.stdout.strip()
                [alert] = self.alerts(server)
                self.assertEqual(alert["quiet"], [silence])
                # What was said to be so is so after the worst.
                server.process.send_signal(signal.SIGKILL)
                server.process.wait()
                server.process.send_signal = lambda *_: None
            with self.start() as server:
                at = ["--url", f"http://{server.address}"]
                done = modelyard("alerts", "silences", *at)
                self.assertIn(f"{silence} ", done.stdout)
                [alert] = self.alerts(server)
                self.assertEqual((alert["stage"], alert["quiet"]), ("firing", [silence]))
                done = modelyard("alerts", "unsilence", silence, *at)
                self.assertEqual(done.returncode, 0, done.stderr)
                done = modelyard("alerts", "unsilence", silence, *at)
                self.assertEqual(done.returncode, 1)
                self.assertIn("there is no silence", done.stderr)

    def test_the_real_alertmanager_hears_of_it(self):
        with alertmanager() as url:
            self.write(f'[notifiers.am]\nkind = "alertmanager"\nurl = "{url}"\n')
            with self.start() as server:
                self.ask_nonsense(server)
                get = lambda: json.load(urllib.request.urlopen(f"{url}/api/v2/alerts", timeout=10))
                harness.wait_until(get, server)
                [alert] = get()
                self.assertEqual(alert["labels"]["alertname"], "Nonsense")
                self.assertEqual(alert["labels"]["severity"], "critical")

    def test_bad_requests_are_refused(self):
        self.write()
        with self.start() as server:
            harness.wait_until(lambda: self.get(server, "/v2/health/ready")[0] == 200, server)

            def post(body, **headers):
                request = urllib.request.Request(
                    f"http://{server.address}/v2/alerts/silences", json.dumps(body).encode(),
                    {"content-type": "application/json", **headers}, method="POST",
                )
                try:
                    with urllib.request.urlopen(request, timeout=10) as reply:
                        return reply.status, reply.read().decode()
                except urllib.error.HTTPError as error:
                    return error.code, error.read().decode()

            future = "2999-01-01T00:00:00Z"
            for body, words in [
                ({}, "where"),
                ({"where": {}, "until": future}, "needs `where`"),
                ({"where": {"a": "b"}, "until": "2001-01-01T00:00:00Z"}, "in the future"),
                ({"where": {"a": "b"}, "until": "soon"}, "year"),
                ({"where": {"a": 1}, "until": future}, "string"),
                ({"where": {"a": "b"}, "until": future, "x": 1}, "unknown field"),
            ]:
                status, said = post(body)
                self.assertEqual(status, 400, said)
                self.assertIn(words, said)
            good = {"where": {"a": "b"}, "until": future}
            self.assertEqual(post(good, origin="https://example.org")[0], 403)
            self.assertEqual(post(good)[0], 201)

    def test_rules_that_do_not_parse_stop_the_start(self):
        with open(self.rules, "w") as file:
            file.write('[[rules]]\nname = "a"\nmetric = "m"\n')
        done = modelyard("serve", self.models, "--port", "0", "--alerts", self.rules)
        self.assertEqual(done.returncode, 2)
        self.assertIn('rule "a": needs either `above` or `below`', done.stderr)


class Acting(unittest.TestCase):
    """An alert on the new champion takes it back."""

    def test_an_alert_rolls_back(self):
        harness.needs("onnx", "ml_dtypes", "requests")
        import requests

        folder = self.enterContext(tempfile.TemporaryDirectory())
        registry = os.path.join(folder, "registry")
        for version in ("1", "2"):
            models.save(folder, "add", models.add())
            path = os.path.join(folder, "add", "1", "model.onnx")
            arguments = ["--name", "m", "--registry", registry, "--meta", f"n={version}"]
            done = modelyard("push", path, *arguments)
            self.assertEqual(done.returncode, 0, done.stderr)
        alias = lambda version: modelyard("alias", "m", "champion", version, "--registry", registry)
        self.assertEqual(alias("1").returncode, 0)
        rules = os.path.join(folder, "alerts.toml")
        with open(rules, "w") as file:
            file.write(
                RULES.replace('by = ["model"]', 'by = ["model", "version"]\nact = ["roll-back", "retrain"]')
            )
        arguments = ["--registry", registry, "--alerts", rules]
        with harness.Server([*arguments, "--alerts-state", os.path.join(folder, "s.json")]) as server:
            base = f"http://{server.address}"
            ready = lambda: requests.get(f"{base}/v2/models/m/ready", timeout=10).status_code == 200
            harness.wait_until(ready, server)
            self.assertEqual(alias("2").returncode, 0)
            champion = lambda: requests.get(
                f"{base}/v2/registry/models/m/aliases/champion", timeout=10
            ).json()["number"]
            serves = lambda: requests.get(f"{base}/v2/models/m/versions/2/ready", timeout=10).ok
            harness.wait_until(serves, server)
            self.assertEqual(champion(), 2)
            looked = lambda: requests.get(f"{base}/v2/alerts", timeout=10).json()["looked"]
            harness.wait_until(looked, server)
            # Refused by that version, which a body that cannot be read would not reach.
            nonsense = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": [1]}]}
            for _ in range(6):
                answer = requests.post(f"{base}/v2/models/m/versions/2/infer", json=nonsense, timeout=10)
                self.assertEqual(answer.status_code, 400)
            harness.wait_until(lambda: champion() == 1, server)
            wanted = "retrain.requested"
            history = lambda: requests.get(
                f"{base}/v2/registry/models/m/history", timeout=10
            ).json()["history"]
            harness.wait_until(lambda: wanted in json.dumps(history()), server)
            moved = [r for r in history() if r["event"]["kind"] == "alias_moved"][-1]
            self.assertEqual(moved["who"], "alert Nonsense")
            self.assertIn("was asked nonsense", moved["reason"])


if __name__ == "__main__":
    unittest.main()
