"""Which hosts are gone, by their heartbeats. Pure: times come in, on this host's monotonic clock.

A heartbeat is only compared with the one before it, never with a clock: hosts' clocks differ. And silence only counts
while somebody could have heard: when the Prefect server itself was away for a while, nobody's heartbeat came through,
and all hosts would seem to be gone in the moment of its return. So what was observed before a gap counts for nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Set

HEARTBEATS_MISSED = 3
"""As many as Prefect's server lets pass before it calls a worker offline."""


class HostWatch:
    """One observer's view of the other hosts."""

    def __init__(self, *, timeout_seconds: float, most_gap_seconds: float) -> None:
        """A host is gone after ``timeout_seconds`` without a new heartbeat, all of them observed: with no two looks
        further apart than ``most_gap_seconds``."""
        self._timeout = timeout_seconds
        self._most_gap = most_gap_seconds
        self._looked: float | None = None
        self._heard: dict[str, tuple[str, float]] = {}

    def look(self, now: float, heartbeats: Mapping[str, str]) -> frozenset[str]:
        """Tell the last heartbeat of each host, as Prefect writes it; returns the hosts that are gone."""
        if self._looked is None or now - self._looked > self._most_gap:
            self._heard.clear()
        self._looked = now
        self._heard = {
            host: (beat, self._heard[host][1] if host in self._heard and self._heard[host][0] == beat else now)
            for host, beat in heartbeats.items()
        }
        return frozenset(host for host, (_, since) in self._heard.items() if now - since >= self._timeout)


def hosts_to_settle(observer: str, others: Collection[str], *, silent: Set[str], offline: Set[str]) -> frozenset[str]:
    """The hosts that are gone, by the observer's watch and by Prefect's, if their runs are the observer's to settle.

    Of the hosts that are left it is the first by name, so that two rarely do the same; where none is left it is a
    server that has no worker beside it, whose name is empty.

    >>> sorted(hosts_to_settle("b2", ["b1", "b3"], silent={"b1", "b3"}, offline={"b1", "b3"}))
    ['b1', 'b3']
    >>> hosts_to_settle("b2", ["b1", "b3"], silent={"b3"}, offline={"b3"})
    frozenset()
    >>> sorted(hosts_to_settle("", ["b1"], silent={"b1"}, offline={"b1"}))
    ['b1']
    >>> hosts_to_settle("", ["b1", "b3"], silent={"b3"}, offline={"b3"})
    frozenset()
    """
    gone = silent & offline
    first = min({observer, *(set(others) - silent - offline)})
    is_mine = observer == first if observer else set(others) <= gone
    return frozenset(gone) if is_mine else frozenset()
