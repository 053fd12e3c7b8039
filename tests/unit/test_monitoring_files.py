"""The alert rules and the dashboard: valid PromQL, about metrics that there are, and each alert as it is meant."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from caisson.disk_metrics import METRICS as DISK_METRICS
from caisson.metrics import COUNTERS, GAUGES, HISTOGRAMS
from deployments.api.queue_metrics import GAUGES as QUEUE_GAUGES

ROOT = Path(__file__).parents[2]
RULES = ROOT / "deployments/prometheus/caisson.rules.yaml"
RULES_TEST = Path(__file__).parent / "data/caisson.rules.test.yaml"
DASHBOARD = ROOT / "deployments/grafana/caisson.json"
KNOWN = {
    *DISK_METRICS,
    *COUNTERS,
    *GAUGES,
    *QUEUE_GAUGES,
    *(f"{name}_{part}" for name in HISTOGRAMS for part in ("bucket", "sum", "count")),
}


def _rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def _queries() -> list[str]:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    return [target["expr"] for panel in panels for target in panel.get("targets", [])]


def _promtool(*arguments: str) -> None:
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_metric_that_rules_and_dashboard_name_is_one() -> None:
    texts = [rule["expr"] for rule in _rules()] + _queries()
    named = {name for text in texts for name in re.findall(r"\bcaisson_\w+", text)}
    assert named - KNOWN == set()
    # And both are about most of what there is to see.
    assert len(named) > len(KNOWN) / 2


def test_promtool_takes_the_rules_and_each_alert_tells_what_to_do() -> None:
    _promtool("check", "rules", str(RULES))
    for rule in _rules():
        assert rule["labels"]["severity"] in ("info", "warning", "critical"), rule
        assert set(rule["annotations"]) == {"summary", "description"}, rule


def test_alerts_fire_when_they_should_and_only_then(tmp_path: Path) -> None:
    test = tmp_path / "test.yaml"
    test.write_text(RULES_TEST.read_text().replace("RULES", str(RULES)))
    _promtool("test", "rules", str(test))


def test_each_alert_is_seen_to_fire_on_metrics_that_there_are() -> None:
    cases = yaml.safe_load(RULES_TEST.read_text())["tests"]
    checks = [check for case in cases for check in case["alert_rule_test"]]
    assert {check["alertname"] for check in checks if check.get("exp_alerts")} == {rule["alert"] for rule in _rules()}
    series = {row["series"].partition("{")[0] for case in cases for row in case["input_series"]}
    assert series - KNOWN == set()


def test_an_alert_that_is_wrong_is_found(tmp_path: Path) -> None:
    rules, test = tmp_path / "rules.yaml", tmp_path / "test.yaml"
    rules.write_text(RULES.read_text().replace('{level="high"} == 1', '{level="high"} == 2'))
    test.write_text(RULES_TEST.read_text().replace("RULES", str(rules)))
    with pytest.raises(AssertionError, match="CaissonDiskPressure"):
        _promtool("test", "rules", str(test))


def test_the_dashboards_queries_are_promql(tmp_path: Path) -> None:
    rules = [
        {"record": f"panel:{number}", "expr": query.replace("$instance", ".*")}
        for number, query in enumerate(_queries())
    ]
    file = tmp_path / "queries.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    _promtool("check", "rules", str(file))


def test_no_two_panels_of_the_dashboard_lie_on_each_other() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells
