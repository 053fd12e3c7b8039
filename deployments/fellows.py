"""Runs of hosts that are gone, settled by one of those that are left; and of this host, when it was the one gone."""

from __future__ import annotations

import time
from collections.abc import Collection
from uuid import UUID

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import FlowRun, WorkerStatus

from caisson.host_watch import HEARTBEATS_MISSED, HostWatch, hosts_to_settle
from deployments.leftovers import going_on
from deployments.names import POOL
from deployments.ownership import owner_of

PAGE = 200


class Fellows:
    """The other hosts as one worker sees them."""

    def __init__(self, host: str, *, heartbeat_seconds: float, poll_seconds: float) -> None:
        self._host = host
        self._watch = HostWatch(
            timeout_seconds=HEARTBEATS_MISSED * heartbeat_seconds,
            most_gap_seconds=3 * max(heartbeat_seconds, poll_seconds),
        )
        self._ended_elsewhere: set[UUID] = set()

    async def abandoned(self, client: PrefectClient) -> list[FlowRun]:
        """What hosts that are gone have left going on, if it is this host's to settle. Raises ``httpx.HTTPError``."""
        workers = await client.read_workers_for_work_pool(POOL)
        heartbeats = {
            worker.name: worker.last_heartbeat_time.isoformat()
            for worker in workers
            if worker.name != self._host and worker.last_heartbeat_time is not None
        }
        silent = self._watch.look(time.monotonic(), heartbeats)
        offline = {worker.name for worker in workers if worker.status == WorkerStatus.OFFLINE}
        gone = hosts_to_settle(self._host, heartbeats, silent=silent, offline=offline)
        return [run for run in await going_on(client) if owner_of(run) in gone] if gone else []

    async def ended_elsewhere(self, client: PrefectClient, executed: Collection[UUID]) -> set[UUID]:
        """Of the runs that this host executes those that others have ended.

        They have been in a final state at two looks in a row: another host has settled them while this one seemed to be
        gone. A run's own process sets its final state a moment before it ends: hence two looks. Raises
        ``httpx.HTTPError``.
        """
        final = set[UUID]()
        if executed:
            asked = FlowRunFilter(id=FlowRunFilterId(any_=list(executed)))
            found = await client.read_flow_runs(flow_run_filter=asked, limit=PAGE)
            final = {run.id for run in found if run.state is not None and run.state.is_final()}
        twice = final & self._ended_elsewhere
        self._ended_elsewhere = final
        return twice


async def cancelling(client: PrefectClient, executed: Collection[UUID]) -> list[UUID]:
    """Of the runs that this host executes those that somebody cancels; raises ``httpx.HTTPError``."""
    wanted = {"id": {"any_": [str(run) for run in executed]}, "state": {"type": {"any_": ["CANCELLING"]}}}
    answer = await client.request("POST", "/flow_runs/filter", json={"flow_runs": wanted, "limit": PAGE})
    return [UUID(run["id"]) for run in answer.json()]
