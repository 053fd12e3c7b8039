"""Which host a run belongs to, so that no worker settles, reaps or kills a run of another's.

- A run in a host's own queues is that host's: no other worker asks for them.
- A run of the shared queue is that of the worker that took it. Prefect lets one worker alone set it to Pending, and the
  message of that state names the worker: state and owner are one write. Before anything is started, Prefect's client
  also gives the run a label with the worker's name, which holds through the states that follow.
- A label may be that of an earlier attempt as long as the run is Pending, so that the message comes first.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from deployments.names import host_of_queue

WORKER_LABEL = "prefect.worker.name"
_TAKEN = "Taken by host "


def taken_message(host: str) -> str:
    """The message of the Pending state of a run that this host's worker takes."""
    return f"{_TAKEN}{host}"


def owner(queue: str, state_type: str, message: str, labels: Mapping[str, object]) -> str:
    """The host whose worker supervises a run, or did; empty where it has none."""
    if host := host_of_queue(queue):
        return host
    if state_type == "PENDING" and message.startswith(_TAKEN):
        return message.removeprefix(_TAKEN)
    return str(labels.get(WORKER_LABEL, ""))


def owner_of_document(run: Mapping[str, Any]) -> str:
    """The same of a flow run as Prefect's API has it."""
    state = run.get("state") or {}
    message, labels = str(state.get("message") or ""), run.get("labels") or {}
    return owner(str(run.get("work_queue_name") or ""), str(run["state_type"]), message, labels)


def owner_of(flow_run: Any) -> str:
    """The same of a ``FlowRun`` of Prefect's client, which is not imported here: that takes a second."""
    state = flow_run.state
    state_type, message = (state.type.value, state.message or "") if state is not None else ("", "")
    return owner(flow_run.work_queue_name or "", state_type, message, flow_run.labels)
