"""What ships for Prometheus and Grafana asks for metrics and labels that exist, and its alerts do what they say."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from live_services.adapters.metrics import Metrics
from live_services.machine.keeper_answers import KeeperMetrics
from tests.prometheus_server import CONFIG, DEPLOY, program

RULES = CONFIG.parent / "alerts.rules.yml"
RULES_TEST = CONFIG.parent / "alerts.test.yml"
DASHBOARDS = sorted((DEPLOY / "grafana").glob("*.json"))
SAMPLES = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_count", "_sum")}
OF_PROMETHEUS = {"job", "instance", "process", "world", "le"}
"""Labels that Prometheus or the file of a process gives to every series."""
METRIC = re.compile(r"\b(?:alpha_panda|trading|market_tick|ml|validator)_[a-z_]+")
SELECTOR = re.compile(r"([a-z_]+)\{([^}]*)\}")
GROUPING = re.compile(r"\bby \(([^)]*)\)")


def samples() -> dict[str, set[str]]:
    """Name of every series that a service or the keeper can have, with its labels."""
    found = dict[str, set[str]]()
    registries = Metrics().registry, KeeperMetrics().registry
    for collector in (collector for registry in registries for collector in registry._collector_to_names):
        (family,) = collector.describe()  # type: ignore[attr-defined]
        labels = set(collector._labelnames)  # type: ignore[attr-defined]
        found |= {f"{family.name}{suffix}": labels for suffix in SAMPLES[family.type]}
    return found


def rules() -> Iterator[dict[str, Any]]:
    for group in yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]:
        yield from group["rules"]


def asked() -> Iterator[tuple[str, str]]:
    """Every expression that ships, and where it stands."""
    for rule in rules():
        yield rule["alert"], rule["expr"]
    for path in DASHBOARDS:
        for panel in json.loads(path.read_text(encoding="utf-8"))["panels"]:
            for target in panel["targets"]:
                yield f"{path.name}: {panel['title']}", target["expr"]


def test_every_expression_asks_for_metrics_and_labels_that_exist() -> None:
    known = samples()
    for place, expression in asked():
        names = set(METRIC.findall(expression))
        assert names <= known.keys(), place
        labels = {label for name in names for label in known[name]} | OF_PROMETHEUS
        for _, inside in SELECTOR.findall(expression):
            assert {part.split("=")[0].strip() for part in inside.split(",")} <= labels, place
        for inside in GROUPING.findall(expression):
            assert {part.strip() for part in inside.split(",")} <= labels, place


def test_every_metric_is_on_a_dashboard() -> None:
    shown = {name for _, expression in asked() for name in METRIC.findall(expression)}
    families = {re.sub("_(bucket|count|sum)$", "", name) for name in samples()}
    assert families == {re.sub("_(bucket|count|sum)$", "", name) for name in shown}


def test_dashboards_have_names_of_their_own_and_take_any_prometheus() -> None:
    boards = [json.loads(path.read_text(encoding="utf-8")) for path in DASHBOARDS]
    assert len({board["uid"] for board in boards}) == len({board["title"] for board in boards}) == len(boards) == 3
    for board in boards:
        assert board["templating"]["list"][0]["type"] == "datasource"
        assert {panel["datasource"]["uid"] for panel in board["panels"]} == {"${datasource}"}
        assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])


def test_every_alert_says_what_to_do_and_has_a_case_in_which_it_fires() -> None:
    tested = yaml.safe_load(RULES_TEST.read_text(encoding="utf-8"))["tests"]
    fired = {case["alertname"] for test in tested for case in test["alert_rule_test"] if case["exp_alerts"]}
    assert fired == {rule["alert"] for rule in rules()}
    for rule in rules():
        assert {"summary", "action"} <= rule["annotations"].keys(), rule["alert"]
        assert rule["labels"]["severity"] in {"critical", "warning", "info"}


@pytest.mark.parametrize(
    "arguments",
    [["check", "config", str(CONFIG)], ["check", "rules", str(RULES)], ["test", "rules", str(RULES_TEST)]],
    ids=["config", "rules", "tests of the rules"],
)
def test_promtool_accepts_what_ships(arguments: list[str]) -> None:
    done = subprocess.run([program("promtool"), *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
