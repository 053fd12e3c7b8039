"""Where each build that waits stands, and why it waits: worked out from what Prefect has, by the workers' own rules."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from caisson.queueing import NEXT, HostRoom, Waiting, plan_queue, priority_of
from caisson.settings import Settings
from deployments.host_states import HostState, host_states, reason_of_all
from deployments.names import host_of_queue
from deployments.ownership import owner_of_document
from deployments.prefect_api import PrefectApi
from deployments.queued import build_runs, repository_of
from deployments.trigger import FlowRunId


@dataclass(frozen=True)
class QueuePlace:
    """So many builds are taken before this one; ``reason`` is why it waits, such as "waits: 2 builds ahead"."""

    flow_run_id: FlowRunId
    ahead: int
    reason: str


def places(api: PrefectApi, settings: Settings) -> list[QueuePlace]:
    """The places of all builds that are due, those of one queue in their order; raises ``ServiceUnreachable``.

    The limit of a repository is known of this host alone, since it is in its settings.
    """
    now = datetime.now(UTC)
    lines: dict[str, list[Waiting]] = {}
    for run in build_runs(api, ["SCHEDULED"]):
        since = _time(run.get("expected_start_time")) or now
        if (_time(run.get("next_scheduled_start_time")) or since) <= now:
            build = Waiting(str(run["id"]), _repository(run), since, priority_of(run.get("tags") or []))
            lines.setdefault(str(run.get("work_queue_name") or ""), []).append(build)
    if not lines:
        return []
    going_on = build_runs(api, ["PENDING", "RUNNING", "CANCELLING"])
    queued = {queue: len(line) for queue, line in lines.items()}
    hosts = host_states(api, running=Counter(map(owner_of_document, going_on)), queued=queued)
    found: list[QueuePlace] = []
    for queue, line in lines.items():
        plan = plan_queue(line, _room(queue, going_on, hosts, settings), now)
        found += [QueuePlace(FlowRunId(run), number, f"waits: {NEXT}") for number, run in enumerate(plan.take)]
        for place in plan.waits:
            ahead = place.ahead + len(plan.take)
            found.append(QueuePlace(FlowRunId(place.id), ahead, place.reason))
    return found


def _room(queue: str, going_on: list[dict[str, Any]], hosts: list[HostState], settings: Settings) -> HostRoom:
    name = host_of_queue(queue)
    mine = [run for run in going_on if name and owner_of_document(run) == name]
    served: dict[str, datetime] = {}
    for run in mine:
        if (started := _time(run.get("start_time"))) is not None:
            served[_repository(run)] = max(started, served.get(_repository(run), started))
    running = tuple(map(_repository, mine))
    if not name:
        return HostRoom(sum(host.slots for host in hosts), closed=reason_of_all(hosts))
    limit = settings.repository_concurrency if name == settings.host_name else 0
    host = next((host for host in hosts if host.name == name), None)
    return HostRoom(host.slots if host else 0, limit, running, served, host.reason if host else "")


def _repository(run: Mapping[str, Any]) -> str:
    return repository_of(run.get("parameters") or {})


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
