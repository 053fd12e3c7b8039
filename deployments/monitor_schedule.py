"""How often the monitor runs: a schedule that people see and edit in Prefect.

The setting acts when it is changed. As long as it is not, Prefect has the last word: a schedule that was edited, paused
or removed there stays so when Caisson is started again.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterId,
    FlowRunFilter,
    FlowRunFilterExpectedStartTime,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import StateType
from prefect.client.schemas.schedules import IntervalSchedule

from caisson.private_file import write_private
from caisson.settings import Settings

SLUG = "caisson"
_ANCHOR = datetime(2026, 1, 1, tzinfo=UTC)


def apply_monitor_schedule(settings: Settings, deployment: str, *, existed: bool) -> None:
    """Schedule the monitor where it is new or the setting has changed, and drop runs that nobody made in time."""
    applied = settings.state_dir / "monitor-seconds"
    try:
        last = int(applied.read_text())
    except (OSError, ValueError):
        last = None
    with get_client(sync_client=True) as client:
        found = client.read_deployment_by_name(deployment)
        if not existed or last != settings.monitor_seconds:
            _replace(client, found.id, settings.monitor_seconds)
            write_private(applied, f"{settings.monitor_seconds}\n")
        _drop_late_runs(client, found.id)


def _replace(client: SyncPrefectClient, deployment_id: UUID, seconds: int) -> None:
    """Our schedule as the setting says; those that people added are theirs."""
    for schedule in client.read_deployment_schedules(deployment_id):
        if schedule.slug == SLUG:
            client.delete_deployment_schedule(deployment_id, schedule.id)
    if seconds:
        interval = IntervalSchedule(interval=timedelta(seconds=seconds), anchor_date=_ANCHOR, timezone="UTC")
        client.create_deployment_schedules(
            deployment_id, [DeploymentScheduleCreate(schedule=interval, active=True, slug=SLUG)]
        )


def _drop_late_runs(client: SyncPrefectClient, deployment_id: UUID) -> None:
    """Runs that were due while no Caisson was up: an hour of them at once would say nothing that one does not."""
    late = FlowRunFilter(
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.SCHEDULED])),
        expected_start_time=FlowRunFilterExpectedStartTime(before_=datetime.now(UTC)),
    )
    of_monitor = DeploymentFilter(id=DeploymentFilterId(any_=[deployment_id]))
    while found := client.read_flow_runs(flow_run_filter=late, deployment_filter=of_monitor, limit=200):
        for flow_run in found:
            if flow_run.auto_scheduled:
                client.delete_flow_run(flow_run.id)
        if len(found) < 200 or not any(flow_run.auto_scheduled for flow_run in found):
            return
