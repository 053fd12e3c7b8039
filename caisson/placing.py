"""Which host takes a build that any host may take. Pure: the worker asks, and takes the run or leaves it.

Every host decides for itself, by what it knows of itself and what the others last told: none of them is in charge, so
none is missed when it goes away. Whoever decides to take a run still asks Prefect for it, which gives it to one alone.
So what is told late or is wrong costs a build its cache, or a moment, and never the build.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Candidate:
    """A host as a place for builds; ``repositories`` are marks of those whose build cache it has (see ``mark``)."""

    name: str
    is_live: bool = True
    drains: bool = False
    is_critical: bool = False
    """Its disk is: a build would be refused there."""
    engine_answers: bool = True
    """Whether its Docker engine does: a build would fail there."""
    free_slots: int = 0
    repositories: frozenset[str] = field(default=frozenset(), repr=False)

    @property
    def has_room(self) -> bool:
        """Whether it would take a build now."""
        return self.free_slots > 0 and not hold_reason(self)


@dataclass(frozen=True)
class Placing:
    """Whether to take the build now; if not, why, and after how many seconds to ask again (0: when things change)."""

    take: bool
    reason: str
    again_seconds: float = 0


def hold_reason(host: Candidate) -> str:
    """Why the host takes no build at all now, in words that follow "waits: "; empty when it takes some.

    >>> hold_reason(Candidate("b2", is_critical=True))
    'disk critical on host b2'
    """
    if not host.is_live:
        return f"host {host.name} is offline"
    if host.drains:
        return f"host {host.name} drains"
    if not host.engine_answers:
        return f"the Docker engine of host {host.name} does not answer"
    if host.is_critical:
        return f"disk critical on host {host.name}"
    return ""


def place(
    repository: str, host: Candidate, others: Iterable[Candidate], *, waited_seconds: float, patience_seconds: float
) -> Placing:
    """Whether this host takes a build of that repository (its mark) which it has seen waiting for that long.

    Cache first: a host that has it takes the build at once; one that has not leaves it for ``patience_seconds`` to a
    live host that has it and has room. No host takes one while its disk is critical, its engine is down, or it drains.
    """
    if reason := hold_reason(host):
        return Placing(False, reason)
    if host.free_slots < 1:
        return Placing(False, f"every slot of host {host.name} is taken")
    if repository in host.repositories:
        return Placing(True, f"host {host.name} has the cache")
    with_cache = sorted(other.name for other in others if repository in other.repositories and other.has_room)
    if with_cache and waited_seconds < patience_seconds:
        left = patience_seconds - waited_seconds
        return Placing(False, f"host {with_cache[0]} has the cache and room", again_seconds=left)
    return Placing(True, f"host {host.name} has room")
