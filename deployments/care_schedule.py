"""How often what looks after the host runs: schedules that people see and edit in Prefect.

A setting acts when it is changed. As long as it is not, Prefect has the last word: a schedule that was edited, paused
or removed there stays so when Caisson is started again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
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
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.schedules import IntervalSchedule
from prefect.client.schemas.sorting import FlowRunSort

from caisson.private_file import write_private
from caisson.settings import Settings

SLUG = "caisson"
_ANCHOR = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class CareSchedule:
    """One schedule as the settings want it; ``name`` is that of the file which remembers what was applied.

    ``seconds`` 0: none. ``parameters`` are those of its runs. With ``keeps_late`` the newest of the runs that nobody
    made in time is made when Caisson starts; the others are dropped always.
    """

    name: str
    seconds: int
    parameters: Mapping[str, Any] = field(default_factory=dict)
    keeps_late: bool = False


def monitor_schedule(settings: Settings) -> CareSchedule:
    """An hour of late looks at once would say nothing that the next one does not."""
    return CareSchedule("monitor", settings.monitor_seconds)


def prune_schedule(settings: Settings) -> CareSchedule:
    """A host that is often down would never be pruned if its late runs were all dropped."""
    return CareSchedule("prune", settings.prune_seconds, {"dry_run": False}, keeps_late=True)


def audit_schedule(settings: Settings) -> CareSchedule:
    """A host that is often down would never be audited either."""
    return CareSchedule("audit", settings.audit_seconds, keeps_late=True)


def apply_schedule(settings: Settings, deployment: str, wanted: CareSchedule, *, existed: bool) -> None:
    """Schedule the deployment where it is new or the setting has changed, and drop runs that nobody made in time."""
    applied = settings.state_dir / f"{wanted.name}-seconds"
    try:
        last = int(applied.read_text())
    except (OSError, ValueError):
        last = None
    with get_client(sync_client=True) as client:
        found = client.read_deployment_by_name(deployment)
        if not existed or last != wanted.seconds:
            _replace(client, found.id, wanted)
            write_private(applied, f"{wanted.seconds}\n")
        _drop_late_runs(client, found.id, keep=1 if wanted.keeps_late and wanted.seconds else 0)


def _replace(client: SyncPrefectClient, deployment_id: UUID, wanted: CareSchedule) -> None:
    """Our schedule as the setting says; those that people added are theirs."""
    for schedule in client.read_deployment_schedules(deployment_id):
        if schedule.slug == SLUG:
            client.delete_deployment_schedule(deployment_id, schedule.id)
    if wanted.seconds:
        interval = IntervalSchedule(interval=timedelta(seconds=wanted.seconds), anchor_date=_ANCHOR, timezone="UTC")
        client.create_deployment_schedules(
            deployment_id,
            [DeploymentScheduleCreate(schedule=interval, active=True, slug=SLUG, parameters=dict(wanted.parameters))],
        )


def _drop_late_runs(client: SyncPrefectClient, deployment_id: UUID, *, keep: int) -> None:
    """Runs that were due while no Caisson was up, but for the newest ``keep``."""
    late = FlowRunFilter(
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.SCHEDULED])),
        expected_start_time=FlowRunFilterExpectedStartTime(before_=datetime.now(UTC)),
    )
    of_deployment = DeploymentFilter(id=DeploymentFilterId(any_=[deployment_id]))

    def read() -> list[FlowRun]:
        found = client.read_flow_runs(
            flow_run_filter=late,
            deployment_filter=of_deployment,
            limit=200,
            sort=FlowRunSort.EXPECTED_START_TIME_DESC,
        )
        return [flow_run for flow_run in found if flow_run.auto_scheduled]

    while dropped := read()[keep:]:
        for flow_run in dropped:
            client.delete_flow_run(flow_run.id)
