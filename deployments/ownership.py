"""Which host a run belongs to, so that no worker settles, reaps or kills a run of another's.

- A run in a host's own queues is that host's: no other worker asks for them.
- A run of the shared queue is that of the worker that took it. Prefect lets one worker alone set it to Pending, and the
  message of that state names the worker: state and owner are one write. Before anything is started, Prefect's client
  also gives the run a label with the worker's name, which holds through the states that follow.
- A label may be that of an earlier attempt as long as the run is Pending, so that the message comes first.
"""

from __future__ import annotations

from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.states import Pending

from deployments.names import host_of_queue

WORKER_LABEL = "prefect.worker.name"
_TAKEN = "Taken by host "


def taken_by(host: str) -> State[None]:
    """The state of a run that this host's worker takes."""
    return Pending(message=f"{_TAKEN}{host}")


def owner_of(flow_run: FlowRun) -> str:
    """The host whose worker supervises the run, or did; empty where it has none."""
    if host := host_of_queue(flow_run.work_queue_name or ""):
        return host
    state = flow_run.state
    if state is not None and state.type == StateType.PENDING and (state.message or "").startswith(_TAKEN):
        return (state.message or "").removeprefix(_TAKEN)
    return str(flow_run.labels.get(WORKER_LABEL, ""))
