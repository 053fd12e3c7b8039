"""What ``docs/audit.md`` states is so: its rules, its settings, its commands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from caisson.audit.events import FINDING_EVENT
from caisson.audit.report import RULES
from caisson.audit.rules import Area
from caisson.settings import Settings, load_settings
from deployments.cli import app

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs/audit.md").read_text()
README = (ROOT / "README.md").read_text()
HEADINGS: dict[Area, str] = {
    "containers": "## Containers",
    "daemon": "## The engine",
    "care": "## Disk and clean-up",
}


@pytest.mark.parametrize(("area", "heading"), HEADINGS.items())
def test_the_tables_have_every_rule_in_its_order(area: Area, heading: str) -> None:
    section = TEXT[TEXT.index(f"\n{heading}\n") + 1 :].split("\n## ")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line[:3] == "| `"]
    assert rows == [[f"`{rule.name}`", rule.title, rule.severity, rule.source] for rule in RULES[area]]


def test_every_rule_has_its_own_name_and_a_fix() -> None:
    rules = [rule for area in RULES.values() for rule in area]
    assert len({rule.name for rule in rules}) == len(rules)
    assert all(rule.fix.endswith(".") and rule.source and re.fullmatch("[a-z][a-z0-9-]*", rule.name) for rule in rules)


def test_decisions_that_rules_stand_on_exist() -> None:
    numbers = {number for area in RULES.values() for rule in area for number in re.findall(r"ADR (\d{4})", rule.source)}
    assert numbers
    assert all(list((ROOT / "docs/decisions").glob(f"{number}-*.md")) for number in numbers)


def test_settings_that_are_named_exist() -> None:
    told = re.findall(r"CAISSON_([A-Z][A-Z_]*[A-Z])\b", TEXT + "".join(r.fix for area in RULES.values() for r in area))
    assert {name.lower() for name in told} <= Settings.model_fields.keys()


def test_the_acceptance_that_is_shown_is_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    (value,) = re.findall(r"export CAISSON_AUDIT_ACCEPT='(.+)'", TEXT)
    monkeypatch.setenv("CAISSON_AUDIT_ACCEPT", value)
    names = {rule.name for area in RULES.values() for rule in area}
    assert {entry.partition("@")[0] for entry in load_settings().audit_accept} <= names


def test_the_event_is_named() -> None:
    assert f"`{FINDING_EVENT}`" in TEXT


@pytest.mark.parametrize("line", re.findall(r"^caisson audit.*", TEXT + README, re.MULTILINE))
def test_commands_that_are_shown_have_those_options(line: str) -> None:
    words = line.partition("#")[0].partition("|")[0].split()[2:]
    shown = CliRunner().invoke(app, ["audit", "--help"]).stdout
    assert all(word in shown for word in words if word.startswith("-"))
