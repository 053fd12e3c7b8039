"""The guard's audit: what an entry keeps, whatever a client sends."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from caisson.guard.audit import MOST_DENIALS, Audit, Entry
from caisson.guard.http1 import parse_request
from caisson.guard.policy import GuardPolicy
from caisson.guard.rules import ALLOWED, EngineFacts, judge
from caisson.guard.verdict import Denied, Verdict
from caisson.guard_plan import guard_report
from caisson.reference import parse_reference

POLICY = GuardPolicy(parse_reference("a/b:1"))
LONG = "a" * 250_000


@pytest.mark.parametrize(
    "request_line",
    [f"GET /{LONG} HTTP/1.1", f"GET /_ping?{LONG}=1 HTTP/1.1", f"GET /_ping HTTP/1.1\r\n{LONG}: x"],
)
def test_what_denials_keep_is_bounded(request_line: str, tmp_path: Path) -> None:
    with Audit(tmp_path / "audit.jsonl") as audit:
        head = parse_request(f"{request_line}\r\nHost: x".encode())
        for _ in range(MOST_DENIALS + 10):
            with pytest.raises(Denied) as caught:
                judge(head, POLICY, EngineFacts("26.1"))
            assert len(caught.value.reason) < 500
            audit.record(Entry("decision", caught.value.verdict, head.method, head.target))
    report = guard_report(audit.summary(), "")
    assert (report.denied, len(report.denials)) == (MOST_DENIALS + 10, MOST_DENIALS)
    assert len(report.model_dump_json()) < MOST_DENIALS * 2_000
    lines = (tmp_path / "audit.jsonl").read_text().splitlines()
    assert len(lines) == MOST_DENIALS + 10
    assert max(map(len, lines)) < 2_000


def test_the_summary_keeps_no_text_whole_that_a_client_made_long() -> None:
    audit = Audit()
    audit.record(Entry("decision", Verdict("deny", "x", LONG), LONG, LONG))
    (kept,) = audit.summary().denials
    assert max(sys.getsizeof(text) for text in (kept.method, kept.path, kept.verdict.reason)) < 1_000


def test_a_reason_is_cut_where_it_quotes_too_much() -> None:
    denied = Denied("x", LONG)
    assert len(denied.reason) <= 2_000
    assert denied.reason.endswith("...")


def test_each_allowed_request_has_a_reason() -> None:
    assert all(verdict.allowed and verdict.reason.endswith(".") for verdict in ALLOWED.values())
    audit_line: list[Entry] = []
    Audit(echo=audit_line.append).record(Entry("decision", ALLOWED["ping"], "GET", "/_ping"))
    assert json.loads(audit_line[0].line())["reason"] == "Clients ask whether the engine is there."
