"""``caisson audit``: what is wrong with this host's containers, its engine and its clean-up. Needs no service."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime

import typer

from caisson.audit.care import AUDIT, MONITOR, PRUNE
from caisson.audit.compare import compare, remember
from caisson.audit.facts import ScheduleFacts
from caisson.audit.host import gather_audit, read_memory, write_memory
from caisson.audit.report import AuditReport, audit
from caisson.audit.rules import Finding, Severity
from caisson.errors import ServiceUnreachable
from caisson.settings import Settings
from caisson.untrusted import clean, shorten
from deployments.prefect_api import PrefectApi
from deployments.state import find_running


def run_audit(settings: Settings, *, fail_on: Severity, as_json: bool) -> int:
    """Audit this host and print what was found; returns 1 for failures of that severity or above, and where the engine
    could not be asked.

    The next audit is compared with this one. What is told as an event is left to the flow.
    """
    last = read_memory(settings.state_dir)
    report = audit(gather_audit(settings, datetime.now(UTC), _schedules(settings)), last)
    changes = compare(last, report.findings, engine_asked=not report.engine_problem)
    try:
        write_memory(settings.state_dir, remember(last, changes, report.at))
    except OSError as error:
        typer.echo(f"The next audit can't be compared with this one ({error.strerror or error}).", err=True)
    if as_json:
        typer.echo(report.model_dump_json(indent=2))
    else:
        for line in audit_lines(report):
            typer.echo(line)
    return int(report.fails_at(fail_on) or bool(report.engine_problem))


def _schedules(settings: Settings) -> Mapping[str, ScheduleFacts] | None:
    """The schedules as Prefect has them; None where no service runs."""
    if not settings.api_url and find_running(settings) is None:
        return None
    found = {}
    try:
        with PrefectApi.of(settings) as api:
            for flow in (MONITOR, PRUNE, AUDIT):
                try:
                    deployment = api.get(f"/deployments/name/{flow}/{settings.host_name}")
                except ServiceUnreachable as error:
                    if error.details.get("status") != 404:
                        raise
                    continue
                active = sum(bool(schedule["active"]) for schedule in deployment["schedules"])
                found[flow] = ScheduleFacts(active, bool(deployment["paused"]))
    except ServiceUnreachable as error:
        typer.echo(f"{error.message} The schedules are unknown.", err=True)
        return None
    return found


def audit_lines(report: AuditReport) -> Iterator[str]:
    """The report for people: failures first, the rest as numbers."""
    new = frozenset(report.new)
    for finding in report.failures():
        yield f"{finding.severity:<6} {'new ' if finding.key in new else ''}{_told(finding)}"
        yield f"       → {clean(finding.fix)}  [{finding.source}]"
    for finding in report.accepted():
        yield f"accept {_told(finding)}  (by {clean(finding.accepted)})"
    for finding in report.of_status("unknown"):
        yield f"?      {_told(finding)}"
    for key in report.mended:
        yield f"mended {clean(key)}"
    yield clean(report.summary)


def _told(finding: Finding) -> str:
    on = f" on {clean(finding.subject)}" if finding.subject else ""
    return f"{finding.rule}{on}: {shorten(clean(finding.found), 300)}"
