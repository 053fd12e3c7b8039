"""An audit as a whole: compared with the last, accepted findings, the page, the event, the command's words."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import pytest

from caisson.audit.compare import AuditMemory, compare, remember, to_tell
from caisson.audit.events import FINDING_EVENT, finding_events
from caisson.audit.host import read_engine_config, read_memory, write_memory
from caisson.audit.markdown import audit_markdown
from caisson.audit.report import audit
from caisson.errors import SettingsInvalid
from caisson.settings import load_settings
from deployments.cli_audit import audit_lines
from tests.audited import HARDENED, NOW, builder, changed, host

WEAK = changed(HARDENED, HostConfig__Privileged=True, HostConfig__Memory=0)
EARLIER = AuditMemory(at=NOW - timedelta(days=1))


def test_what_is_new_and_what_was_mended_stand_out() -> None:
    last = EARLIER.model_copy(update={"failing": ("memory@web", "pids@web", "icc")})
    report = audit(host(WEAK), last)
    assert set(report.new) >= {"privileged@web"}
    assert "memory@web" not in report.new
    assert report.mended == ("icc", "pids@web")
    assert report.failures()[0].key in report.new
    lines = "\n".join(audit_lines(report))
    assert "high   new privileged on web" in lines
    assert "mended icc" in lines


def test_a_first_audit_has_nothing_new_and_nothing_mended() -> None:
    report = audit(host(WEAK), None)
    assert (report.new, report.mended, report.compared) == ((), (), None)
    assert report.failures()


def test_without_the_engine_nothing_passes_and_nothing_counts_as_mended() -> None:
    last = EARLIER.model_copy(update={"failing": ("privileged@web", "icc"), "told": ("privileged@web",)})
    report = audit(host(engine_problem="The Docker engine does not answer."), last)
    assert report.mended == ()
    assert not any(item.area == "containers" for item in report.findings)
    asked = {item.rule: item.status for item in report.findings if item.area == "daemon"}
    assert {rule for rule, status in asked.items() if status == "pass"} <= {
        *("socket-mode", "config-mode", "iptables", "userland-proxy", "default-ulimits", "daemon-no-new-privileges")
    }
    changes = compare(last, report.findings, engine_asked=False)
    kept = remember(last, changes, NOW)
    assert {"privileged@web", "icc"} <= set(kept.failing)
    assert kept.told == ("privileged@web",)
    assert "could not be asked: The Docker engine does not answer." in report.summary


def test_an_accepted_finding_is_shown_and_counts_no_more() -> None:
    facts = host(WEAK, audit_accept=("privileged@we*", "kernel-files", "memory@other"))
    report = audit(facts, EARLIER)
    assert [(item.rule, item.accepted) for item in report.accepted()] == [("privileged", "privileged@we*")]
    assert not any(item.rule == "privileged" for item in report.failures())
    assert any(item.rule == "memory" for item in report.failures())
    page = audit_markdown(report)
    assert "## Accepted" in page
    assert "`privileged@we*`" in page
    assert any(line.startswith("accept privileged on web") for line in audit_lines(report))


@pytest.mark.parametrize("entry", ["", "Privileged", "@web", "privileged@", "a b", "privileged@x y"])
def test_what_is_no_rule_can_not_be_accepted(entry: str) -> None:
    with pytest.raises(SettingsInvalid, match="CAISSON_AUDIT_ACCEPT"):
        load_settings(_env_file=None, audit_accept=(entry,))


@pytest.mark.parametrize(
    ("severity", "memory", "expected"),
    [("high", 0, False), ("medium", 0, True), ("low", 0, True), ("medium", 1 << 30, False)],
)
def test_a_report_fails_from_a_severity_on(severity: str, memory: int, expected: bool) -> None:
    report = audit(host(changed(HARDENED, HostConfig__Memory=memory)), None)
    assert report.fails_at(severity) is expected  # type: ignore[arg-type]


def test_high_findings_are_told_once_and_again_when_they_come_back() -> None:
    report = audit(host(WEAK), None)
    untold = to_tell(None, report.findings)
    assert [item.key for item in untold] == ["seccomp@web", "privileged@web"][::-1]
    (event,) = finding_events("b1", untold)
    assert event.name == FINDING_EVENT
    assert json.loads(json.dumps(dict(event.payload)))["count"] == 2
    assert event.message.startswith("The audit of b1 has found what is severe: privileged on web")
    first = remember(None, compare(None, report.findings, engine_asked=True), NOW, told=untold)
    assert to_tell(first, report.findings) == []
    good = audit(host(HARDENED), first)
    mended = remember(first, compare(first, good.findings, engine_asked=True), NOW)
    assert mended.told == ()
    assert len(to_tell(mended, report.findings)) == 2
    assert finding_events("b1", []) == []


def test_a_command_leaves_the_telling_to_the_flow() -> None:
    report = audit(host(WEAK), None)
    by_hand = remember(None, compare(None, report.findings, engine_asked=True), NOW)
    assert len(to_tell(by_hand, report.findings)) == 2


def test_one_off_builders_are_one_subject_from_run_to_run() -> None:
    weak = builder(HostConfig__Memory=0)
    other = changed(weak, Name="/caisson-build-ba9876543210")
    first = audit(host(weak), None)
    kept = remember(None, compare(None, first.findings, engine_asked=True), NOW)
    second = audit(host(other), kept)
    assert (second.new, second.mended) == ((), ())
    assert any(item.subject == "caisson-build-ba9876543210" for item in second.failures())


def test_the_page_has_failures_first_and_shows_strangers_text_as_text() -> None:
    evil = changed(WEAK, Name="/a|b<img src=x>", Config__Env=["X_TOKEN<script>=1"])
    page = audit_markdown(audit(host(evil, HARDENED), EARLIER))
    assert page.index("## Failures") < page.index("Passed or not applicable")
    assert "**new** | high" in page
    bare = page.replace("\\<", "").replace("&lt;", "")
    assert "img src" in bare
    assert "<img" not in bare
    assert "<script" not in bare


def test_what_is_remembered_is_read_again_and_a_broken_file_is_none(tmp_path: Path) -> None:
    state = tmp_path / "state"
    assert read_memory(state) is None
    memory = AuditMemory(at=NOW, failing=("icc",), told=("privileged@web",))
    write_memory(state, memory)
    assert read_memory(state) == memory
    assert state.stat().st_mode & 0o077 == 0
    (state / "audit.json").write_text("{")
    assert read_memory(state) is None


@pytest.mark.parametrize(("text", "problem"), [("{", "no JSON"), ("[]", "no JSON object"), (None, "can't be read")])
def test_a_daemon_json_that_cannot_be_read_says_why(tmp_path: Path, text: str | None, problem: str) -> None:
    path = tmp_path / "daemon.json"
    if text is not None:
        path.write_text(text)
    config = read_engine_config(path)
    assert config.values is None
    assert problem in config.problem
    path.write_text('{"icc": false}')
    assert read_engine_config(path).values == {"icc": False}
