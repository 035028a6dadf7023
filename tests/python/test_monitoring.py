"""Rules and dashboard of `modelyard monitoring`, on Debian's Prometheus and its promtool."""

import json
import os
import re
import subprocess
import tempfile
import unittest

import harness
import prometheus

OBJECTIVES = """
[models."b.c"]
availability = "99.5%"
latency = "p95=50ms"
"""


def modelyard(*arguments):
    binary = os.environ.get("MODELYARD_BINARY") or harness.skip("no MODELYARD_BINARY")
    done = subprocess.run([binary, "monitoring", *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


class Rules(unittest.TestCase):
    def setUp(self):
        self.folder = self.enterContext(tempfile.TemporaryDirectory())
        self.objectives = self.write("slo.toml", OBJECTIVES)
        self.rules = self.write("rules.yml", modelyard("rules", "--slo", self.objectives))

    def write(self, name, text):
        path = os.path.join(self.folder, name)
        with open(path, "w") as file:
            file.write(text)
        return path

    def test_promtool_takes_them(self):
        status, said = prometheus.tool("check", "rules", "--lint-fatal", self.rules)
        self.assertEqual(status, 0, said)
        self.assertNotIn("WARN", said)

    def test_objectives_that_are_printed_can_be_read(self):
        path = self.write("printed.toml", modelyard("slo"))
        self.assertEqual(modelyard("rules", "--slo", path), modelyard("rules"))

    def alerts(self, series, at, expected):
        """Compares the alerts that fire at a time, given these series, with what is expected: by
        alert its models, severities and windows."""
        found = self.evaluate(series, at)
        for name in ("ModelyardFailureBudgetBurning", "ModelyardLatencyBudgetBurning"):
            names = ("model", "severity", "window")
            want = sorted(tuple(zip(names, alert)) for alert in expected.get(name, []))
            self.assertEqual(found.get(name, []), want, name)

    def evaluate(self, series, at):
        """The alerts that fire, by name: sorted labels of each. promtool says what it got when it
        expected something else."""
        expression = 'ALERTS{alertname=~"Modelyard.*Burning",alertstate="firing"}'
        test = {
            "rule_files": [self.rules],
            "evaluation_interval": "1m",
            "tests": [
                {
                    "interval": "1m",
                    "input_series": [{"series": n, "values": v} for n, v in series.items()],
                    "promql_expr_test": [
                        {"expr": expression, "eval_time": at, "exp_samples": [{"labels": "none", "value": 9}]}
                    ],
                }
            ],
        }
        status, said = prometheus.tool("test", "rules", self.write("test.yml", json.dumps(test)))
        self.assertNotEqual(status, 0, said)  # It cannot have got that.
        self.assertIn("got:", said)
        found = {}
        for labels in re.findall(r"\{([^}]*)\}", said.split("got:", 1)[1]):
            pairs = dict(re.findall(r'(\w+)="([^"]*)"', labels))
            name = pairs.pop("alertname")
            pairs = {k: v for k, v in pairs.items() if k not in ("__name__", "alertstate")}
            found.setdefault(name, []).append(tuple(sorted(pairs.items())))
        return {name: sorted(alerts) for name, alerts in found.items()}

    def traffic(self, model, ok, failed, minutes=360, code="INTERNAL", late=0, le="0.25"):
        """A hundred requests a second or so: per minute so many answered and so many failed."""
        labels = f'model="{model}",version="1",protocol="rest"'
        requests = "modelyard_requests_total"
        duration = "modelyard_request_duration_seconds"
        return {
            f'{requests}{{{labels},code="OK"}}': f"0+{ok}x{minutes}",
            f'{requests}{{{labels},code="{code}"}}': f"0+{failed}x{minutes}",
            f'{duration}_bucket{{{labels},le="{le}"}}': f"0+{ok - late}x{minutes}",
            f'{duration}_count{{{labels}}}': f"0+{ok}x{minutes}",
        }

    def test_a_fast_burn_pages(self):
        # 2 % fail: 20 times what may, over 5 minutes, an hour and all longer windows.
        self.alerts(
            self.traffic("a", 980, 20),
            "90m",
            {
                "ModelyardFailureBudgetBurning": [
                    ("a", severity, window)
                    for severity, window in
                    [("page", "1h"), ("page", "6h"), ("ticket", "1d"), ("ticket", "3d")]
                ]
            },
        )

    def test_a_slow_burn_makes_a_ticket(self):
        # 0.35 %: 3.5 times what may.
        self.alerts(
            self.traffic("a", 9965, 35),
            "6h",
            {"ModelyardFailureBudgetBurning": [("a", "ticket", "1d"), ("a", "ticket", "3d")]},
        )

    def test_what_is_promised_is_quiet(self):
        self.alerts(self.traffic("a", 9995, 5), "6h", {})

    def test_callers_mistakes_are_no_failures(self):
        self.alerts(self.traffic("a", 500, 500, code="INVALID_ARGUMENT"), "90m", {})

    def test_a_few_failures_of_a_few_requests_are_quiet(self):
        series = {
            'modelyard_requests_total{model="a",version="1",code="OK"}': "0+1x90",
            'modelyard_requests_total{model="a",version="1",code="INTERNAL"}': "0x60 1+0x30",
        }
        self.alerts(series, "65m", {})

    def test_what_is_over_pages_nobody(self):
        # 20 minutes of 20 %, which would page for six hours, and then none for an hour.
        series = {
            'modelyard_requests_total{model="a",version="1",code="OK"}': "0+800x400",
            'modelyard_requests_total{model="a",version="1",code="INTERNAL"}':
                "0x100 200+200x19 4000+0x280",
        }
        self.alerts(
            series, "185m",
            {"ModelyardFailureBudgetBurning": [("a", "ticket", "1d"), ("a", "ticket", "3d")]},
        )

    def test_a_model_with_objectives_of_its_own(self):
        # 1 % failures are twice what this model may, and late answers within 250 ms count at 50 ms.
        series = self.traffic("b.c", 9900, 100, late=9000, le="0.05")
        series |= self.traffic("a", 9900, 100)
        self.alerts(
            series, "6h",
            {
                "ModelyardFailureBudgetBurning": [
                    ("a", "page", "6h"), ("a", "ticket", "1d"), ("a", "ticket", "3d"),
                    ("b.c", "ticket", "3d"),
                ],
                "ModelyardLatencyBudgetBurning": [
                    ("b.c", severity, window)
                    for severity, window in
                    [("page", "1h"), ("page", "6h"), ("ticket", "1d"), ("ticket", "3d")]
                ],
            },
        )


class Dashboard(prometheus.Served):
    """Every query of the dashboard on a Prometheus that scrapes a server and has the rules."""

    def test_every_query_is_answered(self):
        self.ask()
        with tempfile.NamedTemporaryFile("w", suffix=".yml") as rules:
            # Nobody waits five minutes for a budget here.
            rules.write(modelyard("rules").replace("interval: 5m", "interval: 1s"))
            rules.flush()
            dashboard = json.loads(modelyard("dashboard"))
            targets = [
                (panel["title"], target["expr"])
                for panel in dashboard["panels"]
                for target in panel.get("targets", [])
            ]
            self.assertGreater(len(targets), 30)
            with prometheus.Prometheus(self.address, rules=[rules.name]) as server:
                server.wait_for("count(model:modelyard_requests_failed:ratio_rate5m) > bool 0", 1)
                self.ask()
                server.wait_for('count(rate(modelyard_requests_total{code="NOT_FOUND"}[1m]) > 0)', 1)
                server.wait_for("count(model:modelyard_failure_budget_left:ratio)", 1)
                answered = set()
                for title, query in targets:
                    query = query.replace("$model", ".*").replace("$instance", ".*")
                    query = query.replace("$__rate_interval", "1m")
                    if server.query(query):
                        answered.add(title)
                for variable in dashboard["templating"]["list"][1:]:
                    metric = re.match(r"label_values\((\w+), (\w+)\)", variable["definition"])
                    self.assertTrue(server.query(f"count by ({metric[2]}) ({metric[1]})"))
                rules = server.get("rules")["groups"]
                wrong = [r["name"] for g in rules for r in g["rules"] if r["health"] == "err"]
                self.assertEqual(wrong, [])
        # What needs a registry, shadows or a server in trouble has nothing to show here.
        silent = {title for title, _ in targets} - answered
        self.assertLessEqual(
            silent,
            {"Aliases", "Shadows", "Shadows' use of an instance"},
        )


if __name__ == "__main__":
    unittest.main()
