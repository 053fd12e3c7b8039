"""All hosts as Prefect knows them: for ``caisson hosts``, for who asks why a build waits, and for drains."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Literal
from urllib.parse import quote

from caisson.errors import ServiceUnreachable
from caisson.placing import hold_reason
from deployments.hosts import RECORDS, HostRecord, parse_records
from deployments.names import POOL, SHARED_QUEUE, care_queue, host_of_queue, host_queue
from deployments.ownership import owner_of_document
from deployments.prefect_api import PrefectApi

State = Literal["online", "draining", "stopped", "offline"]
PAGE = 200
SETTLED_SECONDS = 3.0
"""Longer than a worker goes by what it knew before (deployments.placement)."""
_GOING_ON = ["PENDING", "RUNNING", "CANCELLING"]


@dataclass(frozen=True)
class HostState:
    """One host; ``queued`` are builds that were asked of it, ``last_seen`` is its last heartbeat on Prefect's clock."""

    name: str
    state: State
    running: int
    queued: int
    slots: int
    level: str
    free_bytes: int
    engine_answers: bool
    version: str
    last_seen: datetime | None

    @property
    def reason(self) -> str:
        """Why a build that was asked of this host waits, beside builds before it; empty when it does not."""
        record = HostRecord(
            self.name,
            slots=self.slots,
            running=self.running,
            level=self.level,
            engine_answers=self.engine_answers,
        )
        online = self.state in ("online", "draining")
        return hold_reason(record.candidate(online=online, drains=self.state == "draining"))

    @property
    def document(self) -> dict[str, Any]:
        """As ``--json`` prints it."""
        return asdict(self) | {"last_seen": self.last_seen.isoformat() if self.last_seen else None}


def read_host_states(api: PrefectApi) -> list[HostState]:
    """Every host that has queues or a worker, by name; raises ``ServiceUnreachable``. None before there is a pool."""
    return host_states(api, running=running_builds(api), queued=queued_builds(api))


def host_states(api: PrefectApi, *, running: Mapping[str, int], queued: Mapping[str, int]) -> list[HostState]:
    """The same for who has counted the builds already: those that go on by host, those that wait by queue."""
    try:
        queues = api.post(f"/work_pools/{POOL}/queues/filter", {})
    except ServiceUnreachable as error:
        if error.details.get("status") == 404:
            return []
        raise
    workers = {worker["name"]: worker for worker in api.post(f"/work_pools/{POOL}/workers/filter", {})}
    records = {record.host: record for record in parse_records(api.post("/variables/filter", RECORDS))}
    paused = {queue["name"] for queue in queues if queue.get("is_paused")}
    names = {host for queue in queues if (host := host_of_queue(queue["name"]))}
    return [
        _state(
            name,
            workers.get(name),
            records.get(name),
            name in paused,
            running.get(name, 0),
            queued.get(host_queue(name), 0),
        )
        for name in sorted(names)
    ]


def _state(
    name: str, worker: dict[str, Any] | None, record: HostRecord | None, paused: bool, running: int, queued: int
) -> HostState:
    record = record or HostRecord(name)
    is_online = worker is not None and worker.get("status") == "ONLINE"
    state: State = "stopped" if record.stopped else "offline"
    if is_online and not record.stopped:
        state = "draining" if paused else "online"
    seen = (worker or {}).get("last_heartbeat_time")
    return HostState(
        name,
        state,
        running,
        queued,
        record.slots,
        record.level,
        record.free_bytes,
        record.engine_answers,
        record.version,
        datetime.fromisoformat(seen) if seen else None,
    )


def running_builds(api: PrefectApi) -> Counter[str]:
    """How many builds go on, by the host that has taken them."""
    return Counter(owner_of_document(run) for run in going_on(api) if not _is_care(run))


def going_on(api: PrefectApi) -> list[dict[str, Any]]:
    """The runs of all hosts that go on by their states, builds or not; raises ``ServiceUnreachable``."""
    return _runs(api, _GOING_ON)


def queued_builds(api: PrefectApi) -> Counter[str]:
    """How many builds wait, by their queue; those that are due later count as well."""
    return Counter(run.get("work_queue_name") or "" for run in _runs(api, ["SCHEDULED"]) if not _is_care(run))


def reason_of_all(states: Sequence[HostState]) -> str:
    """Why a build waits that any host may take: what holds every host; empty where one takes builds."""
    reasons = [state.reason for state in states]
    return "; ".join(reasons) if all(reasons) else ""


def wait_until_idle(
    api: PrefectApi, host: str, *, say: Callable[[str], None], sleep: Callable[[float], None] = time.sleep
) -> None:
    """Return when the host builds nothing any more: for a moment already, since its worker learns of a drain late."""
    told, idle_since = -1, None
    while idle_since is None or time.monotonic() - idle_since < SETTLED_SECONDS:
        left = running_builds(api)[host]
        idle_since = None if left else idle_since or time.monotonic()
        if left and left != told:
            say(f"Host {host}: {left} {'build goes' if left == 1 else 'builds go'} on.")
            told = left
        sleep(0.5)


def waiting_reason(api: PrefectApi, flow_run_id: str) -> str:
    """Why a build waits as far as its host is the reason, or all hosts are; empty when that is not why."""
    run = api.get(f"/flow_runs/{quote(flow_run_id, safe='')}")
    queue = run.get("work_queue_name") or ""
    states = read_host_states(api)
    if queue == SHARED_QUEUE:
        return reason_of_all(states)
    return next((state.reason for state in states if state.name == host_of_queue(queue)), "")


def ago(moment: datetime | None, now: datetime) -> str:
    """
    >>> from datetime import UTC
    >>> ago(datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, 0, 2, 5, tzinfo=UTC))
    '2 min ago'
    """
    if moment is None:
        return "never"
    seconds = max((now - moment).total_seconds(), 0)
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"


def _is_care(run: dict[str, Any]) -> bool:
    queue = run.get("work_queue_name") or ""
    return queue == care_queue(host_of_queue(queue))


def _runs(api: PrefectApi, states: list[str]) -> list[dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    while True:
        page = api.post(
            "/flow_runs/filter",
            {
                "flow_runs": {"state": {"type": {"any_": states}}},
                "work_pools": {"name": {"any_": [POOL]}},
                "sort": "ID_DESC",
                "limit": PAGE,
                "offset": len(found),
            },
        )
        found |= {run["id"]: run for run in page}
        if len(page) < PAGE:
            return list(found.values())
