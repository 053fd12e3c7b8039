"""Steps of an audit: look at the host, judge it, and show and tell what was found."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.exceptions import ObjectNotFound

from caisson.audit.care import AUDIT, MONITOR, PRUNE
from caisson.audit.compare import AuditMemory, compare, remember, to_tell
from caisson.audit.events import finding_events
from caisson.audit.facts import AuditFacts, ScheduleFacts
from caisson.audit.host import gather_audit, write_memory
from caisson.audit.markdown import audit_markdown
from caisson.audit.report import AuditReport
from caisson.settings import Settings
from caisson.untrusted import markdown
from tasks.artifact_keys import host_key
from tasks.emit_events import emit_events
from tasks.show_page import show_page
from tasks.step import run_logger


@task(name="look_at_host", task_run_name="look_at_host", cache_policy=NO_CACHE, persist_result=False)
def look_at_host(settings: Settings) -> AuditFacts:
    """Every container, the engine's settings, and what looks after the disk."""
    return gather_audit(settings, datetime.now(UTC), _schedules(settings.host_name))


def _schedules(host: str) -> Mapping[str, ScheduleFacts] | None:
    found = {}
    try:
        with get_client(sync_client=True) as client:
            for flow in (MONITOR, PRUNE, AUDIT):
                try:
                    deployment = client.read_deployment_by_name(f"{flow}/{host}")
                except ObjectNotFound:
                    continue
                active = sum(schedule.active for schedule in deployment.schedules)
                found[flow] = ScheduleFacts(active, deployment.paused)
    except Exception as error:
        run_logger().warning(f"Prefect could not be asked for the schedules ({type(error).__name__}).")
        return None
    return found


@task(name="publish_audit", task_run_name="publish_audit", cache_policy=NO_CACHE, persist_result=False)
def publish_audit(report: AuditReport) -> None:
    """The page of this run; a failure of it is none of the audit's."""
    show_page(
        "audit",
        key=host_key("audit", report.host),
        description=markdown(report.summary, 900),
        page=audit_markdown(report),
    )


@task(name="tell_audit", task_run_name="tell_audit", cache_policy=NO_CACHE, persist_result=False)
def tell_audit(settings: Settings, report: AuditReport, last: AuditMemory | None) -> None:
    """Failures of high severity that nobody was told of, as an event; then what the next audit compares itself with."""
    untold = to_tell(last, report.findings)
    for event in (events := finding_events(report.host, untold)):
        run_logger().warning(event.message)
    emit_events(report.host, events)
    changes = compare(last, report.findings, engine_asked=not report.engine_problem)
    try:
        write_memory(settings.state_dir, remember(last, changes, report.at, told=untold))
    except OSError as error:
        run_logger().warning(f"What the next audit is compared with could not be written ({error.strerror or error}).")
