"""The flow ``audit_host``: this host against the mount policy, the least privilege and a sound set-up, as its steps."""

from __future__ import annotations

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from caisson.audit.host import read_memory
from caisson.audit.report import audit
from caisson.settings import load_settings
from tasks.audit_host import look_at_host, publish_audit, tell_audit


@flow(
    name="audit-host",
    description="Checks every container, the engine's settings and the clean-up of this host, and tells what is new.",
    flow_run_name="audit",
    persist_result=False,
)
def audit_host() -> State[None]:
    """Audit this host. What it finds is no failure of the run; that the engine could not be asked is."""
    settings = load_settings()
    last = read_memory(settings.state_dir)
    report = audit(look_at_host(settings), last)
    publish_audit(report)
    tell_audit(settings, report, last)
    if report.engine_problem:
        return Failed(message=report.summary)
    return Completed(message=report.summary)
