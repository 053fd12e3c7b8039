"""Which runs a worker takes now: so many builds at once, and beside them what looks after the host.

A monitor that waited behind builds would be blind exactly while they fill the disk, and one that waited behind a prune
would not see what the prune frees. So each flow of the host's care queue has one slot of its own.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol, TypeVar
from uuid import UUID

CARE_FLOWS = 3
"""The monitor, the prune and the audit."""


class _FlowRun(Protocol):
    @property
    def id(self) -> UUID: ...
    @property
    def flow_id(self) -> UUID: ...
    @property
    def work_queue_name(self) -> str | None: ...


class _Offer(Protocol):
    @property
    def flow_run(self) -> _FlowRun: ...


Offer = TypeVar("Offer", bound=_Offer)


class Slots:
    """The slots of one worker."""

    def __init__(self, builds: int, *, care_queue: str) -> None:
        self._builds = builds
        self._care_queue = care_queue
        self._care: dict[UUID, UUID] = {}

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
        self._care = {run: flow for run, flow in self._care.items() if run in running}
        room = self.free(running)
        chosen = []
        for offer in offered:
            flow_run = offer.flow_run
            if flow_run.id in running:
                continue
            if flow_run.work_queue_name == self._care_queue:
                if len(self._care) < CARE_FLOWS and flow_run.flow_id not in self._care.values():
                    self._care[flow_run.id] = flow_run.flow_id
                    chosen.append(offer)
            elif room > 0:
                room -= 1
                chosen.append(offer)
        return chosen
