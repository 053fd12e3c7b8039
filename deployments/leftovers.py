"""Runs that say they are going on while nobody supervises them, and the processes they may still have."""

from __future__ import annotations

from collections.abc import Callable, Collection
from uuid import UUID

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
    WorkPoolFilter,
    WorkPoolFilterName,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.sorting import FlowRunSort

from deployments.names import POOL
from deployments.ownership import owner_of
from deployments.processes import ProcessIdentity, names_flow_run, terminate
from deployments.state import StateDir, forget_run, recorded_run

GOING_ON = [StateType.PENDING, StateType.RUNNING, StateType.CANCELLING]
GRACE_SECONDS = 10.0
PAGE = 200


async def find_unsupervised(
    client: PrefectClient, host: str, supervised: Callable[[], Collection[UUID]]
) -> list[FlowRun]:
    """The host's runs that are going on by their state and not in ``supervised``; never another host's.

    One that is being cancelled and that no host has taken is everybody's: nobody executes it.

    That is asked before and after the query: a run that begins or ends meanwhile is in one of the two answers.
    """
    before = set(supervised())
    runs = await going_on(client)
    mine = before | set(supervised())
    return [run for run in runs if run.id not in mine and is_to_settle(run, host)]


def is_to_settle(flow_run: FlowRun, host: str) -> bool:
    """Whether a run that is going on is this host's to settle, should nobody supervise it."""
    owner = owner_of(flow_run)
    cancelling = flow_run.state is not None and flow_run.state.type == StateType.CANCELLING
    return owner == host or (not owner and cancelling)


async def going_on(client: PrefectClient) -> list[FlowRun]:
    """The runs of all hosts that are going on by their state."""
    found: dict[UUID, FlowRun] = {}
    while True:
        page = await client.read_flow_runs(
            flow_run_filter=FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=GOING_ON))),
            work_pool_filter=WorkPoolFilter(name=WorkPoolFilterName(any_=[POOL])),
            sort=FlowRunSort.ID_DESC,
            limit=PAGE,
            offset=len(found),
        )
        found |= {run.id: run for run in page}
        if len(page) < PAGE:
            return list(found.values())


def kill_leftover(state: StateDir, flow_run: FlowRun) -> bool:
    """End the process that a dead worker left executing this run; true when there was one.

    A process is ours when our own record names it by pid and start time, or when its environment names the run.
    """
    flow_run_id = str(flow_run.id)
    processes = {
        process
        for process in (recorded_run(state, flow_run_id), _by_environment(flow_run))
        if process is not None and process.alive
    }
    terminate(processes, grace_seconds=GRACE_SECONDS)
    forget_run(state, flow_run_id)
    return bool(processes)


def _by_environment(flow_run: FlowRun) -> ProcessIdentity | None:
    pid = flow_run.infrastructure_pid or ""
    if not pid.isdecimal() or not names_flow_run(int(pid), str(flow_run.id)):
        return None
    return ProcessIdentity.of(int(pid))
