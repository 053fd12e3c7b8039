"""In which order builds that wait are taken, and why one waits. Pure.

The queue itself is Prefect's scheduled flow runs; this decides over what they offer.

- Each build has a time that it stands at in the line: when it came, or when its repository was last served, whichever
  is later. So repositories take turns, however many builds one of them has asked for.
- A build of a repository that has builds running stands an hour later for each of them: those with the fewest go first.
- A high priority stands four hours earlier and a low one an hour later. So it goes first, but nothing waits for ever:
  what comes after that time stands behind, whatever its priority.
- The earliest is taken first, as long as the host and its repository have room. A repository at its limit lets the
  others pass.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Literal

PRIORITY_TAG = "caisson:priority="

Supersede = Literal["queued", "running", "off"]
"""Which older builds of a branch a newer push makes needless: those that wait, those that run too, none."""


class Priority(StrEnum):
    """How urgent a build is."""

    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"


SHIFT = {Priority.HIGH: timedelta(hours=-4), Priority.NORMAL: timedelta(), Priority.LOW: timedelta(hours=1)}
"""How much later than it came a build of the priority stands in the line."""
SHIFT_PER_RUNNING = timedelta(hours=1)

REPOSITORY_LIMIT = "repository limit"
NEXT = "it is the next one"


def priority_of(tags: Iterable[str]) -> Priority:
    """The priority that a flow run's tags name; normal where they name none, or none that there is.

    >>> priority_of(["team-a", "caisson:priority=low"]), priority_of(["caisson:priority=now"])
    (<Priority.LOW: 'low'>, <Priority.NORMAL: 'normal'>)
    """
    named = {tag.removeprefix(PRIORITY_TAG) for tag in tags if tag.startswith(PRIORITY_TAG)}
    return next((priority for priority in Priority if priority.value in named), Priority.NORMAL)


@dataclass(frozen=True)
class Waiting:
    """A build that could be taken; ``since`` is when it came."""

    id: str
    repository: str
    since: datetime
    priority: Priority = Priority.NORMAL


@dataclass(frozen=True)
class HostRoom:
    """What a host does now.

    ``builds`` and ``per_repository`` are the most at once, the latter 0 for no limit; ``running`` are the repositories
    of the builds that run, one entry a build; ``served`` is when one of a repository's builds was last taken.
    ``closed`` is why it takes no build at all; empty: it does.
    """

    builds: int
    per_repository: int = 0
    running: tuple[str, ...] = ()
    served: Mapping[str, datetime] | None = None
    closed: str = ""


@dataclass(frozen=True)
class Place:
    """Where a build stands: so many are taken before it; ``reason`` is why it waits, empty for those taken now."""

    id: str
    ahead: int
    reason: str


@dataclass(frozen=True)
class QueuePlan:
    """Whom the host takes now, in this order, and where the others stand, in theirs.

    ``served`` is when a build of each repository was last taken, those of now among them, for the next time.
    """

    take: tuple[str, ...]
    waits: tuple[Place, ...]
    served: Mapping[str, datetime]


def plan_queue(waiting: Iterable[Waiting], room: HostRoom, now: datetime) -> QueuePlan:
    """Decide; the same answer for the same question, in whatever order the builds are given."""
    line = _Line(waiting, room)
    free = 0 if room.closed else max(0, room.builds - len(room.running))
    take: list[str] = []
    while len(take) < free and (build := line.pop(now, limit=room.per_repository)) is not None:
        take.append(build.id)
    running, served = line.running.copy(), dict(line.served)
    waits: list[Place] = []
    # The rest in the order in which it would be taken, were there room without end.
    while (build := line.pop(now, limit=0)) is not None:
        at_limit = 0 < room.per_repository <= running[build.repository]
        reason = room.closed or (REPOSITORY_LIMIT if at_limit else _builds_ahead(len(waits)))
        waits.append(Place(build.id, len(waits), f"waits: {reason}"))
    return QueuePlan(tuple(take), tuple(waits), served)


def _builds_ahead(count: int) -> str:
    return f"{count} build{'' if count == 1 else 's'} ahead" if count else NEXT


class _Line:
    """The repositories' lines, each in an order of its own that nothing changes; their heads are compared."""

    def __init__(self, waiting: Iterable[Waiting], room: HostRoom) -> None:
        self.running = Counter(room.running)
        self._now = datetime.min.replace(tzinfo=UTC)
        self.served = dict(room.served or {})
        self._of: dict[str, deque[Waiting]] = defaultdict(deque)
        builds = {build.id: build for build in waiting}.values()
        for build in sorted(builds, key=lambda build: (build.since + SHIFT[build.priority], build.since, build.id)):
            self._of[build.repository].append(build)

    def pop(self, now: datetime, *, limit: int) -> Waiting | None:
        """The next build, which runs from now on; None where there is none that may."""
        heads = [line[0] for repository, line in self._of.items() if not limit or self.running[repository] < limit]
        if not heads:
            return None
        build = min(heads, key=self._position)
        line = self._of[build.repository]
        line.popleft()
        if not line:
            del self._of[build.repository]
        self.running[build.repository] += 1
        # Later than the one before, or two that are served together would tie and the same one win each time.
        self.served[build.repository] = self._now = max(now, self._now) + timedelta(microseconds=1)
        return build

    def _position(self, build: Waiting) -> tuple[datetime, datetime, str]:
        stands = max(build.since, self.served.get(build.repository, build.since))
        shift = SHIFT[build.priority] + self.running[build.repository] * SHIFT_PER_RUNNING
        return stands + shift, build.since, build.id
