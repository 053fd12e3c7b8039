"""Which runs a worker takes now: so many builds at once, and beside them what looks after the host.

A monitor that waited behind builds would be blind exactly while they fill the disk, and one that waited behind a prune
would not see what the prune frees. So each flow of the host's care queue has one slot of its own. In which order builds
are taken is decided by ``caisson.queueing``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Protocol, TypeVar
from uuid import UUID

from caisson.queueing import HostRoom, Place, QueuePlan, Waiting, plan_queue, priority_of
from deployments.queued import repository_of

CARE_FLOWS = 3
"""The monitor, the prune and the audit."""


class _FlowRun(Protocol):
    @property
    def id(self) -> UUID: ...
    @property
    def flow_id(self) -> UUID: ...
    @property
    def work_queue_name(self) -> str | None: ...
    @property
    def parameters(self) -> dict[str, Any]: ...
    @property
    def tags(self) -> list[str]: ...
    @property
    def expected_start_time(self) -> datetime | None: ...


class _Offer(Protocol):
    @property
    def flow_run(self) -> _FlowRun: ...


Offer = TypeVar("Offer", bound=_Offer)


def _utc_now() -> datetime:
    return datetime.now(UTC)


class Slots:
    """The slots of one worker; ``per_repository`` is how many of them one repository may have, 0: all."""

    def __init__(
        self, builds: int, *, care_queue: str, per_repository: int = 0, clock: Callable[[], datetime] = _utc_now
    ) -> None:
        self._builds = builds
        self._per_repository = per_repository
        self._care_queue = care_queue
        self._clock = clock
        self._care: dict[UUID, UUID] = {}
        self._repositories: dict[UUID, str] = {}
        self._served: Mapping[str, datetime] = {}
        self.waits: tuple[Place, ...] = ()
        """Where the builds stand that were not chosen the last time."""

    @property
    def most(self) -> int:
        """Runs at once, of both kinds."""
        return self._builds + CARE_FLOWS

    def free(self, running: Collection[UUID]) -> int:
        """Slots for builds that none of the ``running`` runs has."""
        care = {run for run in self._care if run in running}
        return max(self._builds - len(set(running) - care), 0)

    def choose(self, offered: Sequence[Offer], running: Collection[UUID]) -> list[Offer]:
        """Those of the offered runs that there is room for, in their order; ``running`` ones are not taken again."""
        new = [offer for offer in offered if offer.flow_run.id not in running]
        care = [offer for offer in new if offer.flow_run.work_queue_name == self._care_queue]
        return [*self._choose_care(care, running), *self._choose_builds(new, running)]

    def _choose_care(self, offered: Sequence[Offer], running: Collection[UUID]) -> list[Offer]:
        self._care = {run: flow for run, flow in self._care.items() if run in running}
        chosen = []
        for offer in offered:
            flow_run = offer.flow_run
            if len(self._care) < CARE_FLOWS and flow_run.flow_id not in self._care.values():
                self._care[flow_run.id] = flow_run.flow_id
                chosen.append(offer)
        return chosen

    def _choose_builds(self, offered: Sequence[Offer], running: Collection[UUID]) -> list[Offer]:
        builds = {
            str(offer.flow_run.id): offer for offer in offered if offer.flow_run.work_queue_name != self._care_queue
        }
        going_on = [self._repositories.get(run, "") for run in set(running) - self._care.keys()]
        now = self._clock()
        room = HostRoom(self._builds, self._per_repository, tuple(going_on), self._served)
        plan: QueuePlan = plan_queue((_waiting(offer.flow_run, now) for offer in builds.values()), room, now)
        chosen = [builds[build] for build in plan.take]
        self._served, self.waits = plan.served, plan.waits
        self._repositories = {run: name for run, name in self._repositories.items() if run in running}
        for offer in chosen:
            self._repositories[offer.flow_run.id] = repository_of(offer.flow_run.parameters)
        return chosen


def _waiting(flow_run: _FlowRun, now: datetime) -> Waiting:
    return Waiting(
        str(flow_run.id),
        repository_of(flow_run.parameters),
        flow_run.expected_start_time or now,
        priority_of(flow_run.tags),
    )
