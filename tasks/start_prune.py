"""A prune of this host, started through Prefect: one at a time."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterId,
    FlowRunFilter,
    FlowRunFilterExpectedStartTime,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import StateType

PRESSURE_TAG = "disk-pressure"
"""On runs that the disk's pressure started."""
_FLOW = "prune-images"
_NOT_ENDED = [StateType.SCHEDULED, StateType.PENDING, StateType.RUNNING, StateType.CANCELLING]


def start_prune(host: str, now: datetime) -> UUID | None:
    """Start a prune under pressure; returns its flow run, or None where one is due or going on already.

    Raises what Prefect's client raises.
    """
    with get_client(sync_client=True) as client:
        deployment = client.read_deployment_by_name(f"{_FLOW}/{host}")
        going_on = client.read_flow_runs(
            deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=[deployment.id])),
            flow_run_filter=FlowRunFilter(
                state=FlowRunFilterState(type=FlowRunFilterStateType(any_=_NOT_ENDED)),
                expected_start_time=FlowRunFilterExpectedStartTime(before_=now),
            ),
            limit=1,
        )
        if going_on:
            return None
        created = client.create_flow_run_from_deployment(
            deployment.id,
            parameters={"dry_run": False, "under_pressure": True},
            tags=[PRESSURE_TAG],
            # The client asks again where an answer was lost; that must not make a second one.
            idempotency_key=f"{PRESSURE_TAG}-{now.isoformat()}",
        )
    return created.id
