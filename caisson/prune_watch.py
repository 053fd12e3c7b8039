"""Whether prunes come as they should: one at once under pressure, and an alarm when none has succeeded for long. Pure.

What is known of them is the ledger's, so a prune from the command line counts as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Literal

from caisson.disk_places import holds_images
from caisson.disk_watch import Reading
from caisson.ledger import Prune

PAUSE = timedelta(minutes=10)
"""How long after one prune the next one may begin while the pressure goes on."""
TOLD_EVERY = timedelta(hours=24)
_INTERVALS = 2
_SUCCEEDED = frozenset(("done", "target-reached", "short"))


def wants_prune(readings: Iterable[Reading], prunes: Iterable[Prune], *, asked: datetime | None, now: datetime) -> bool:
    """Whether a prune is to start at once: pressure on a disk of images has begun, or goes on and none was there for
    ten minutes. ``asked`` is when one was last started for that."""
    pressed = [item for item in readings if item.pressure.level != "normal" and holds_images(item.place)]
    if not pressed:
        return False
    if any(item.change is not None and item.change.before == "normal" for item in pressed):
        return True
    last = [asked] if asked is not None else []
    last += [prune.ended or prune.started for prune in prunes]
    # A time that lies ahead is of a clock that was set back.
    return not any(timedelta() <= now - at < PAUSE for at in last)


@dataclass(frozen=True)
class PruneWatch:
    """What is remembered: since when prunes are expected, when it was last told that they are overdue, and the last
    success, which the ledger may not be asked for any more when it is long ago."""

    expected: datetime | None = None
    told: datetime | None = None
    success: datetime | None = None


@dataclass(frozen=True)
class Watched:
    """What a look at the prunes found; ``since`` is the last success, or since when one is expected."""

    watch: PruneWatch
    finding: Literal["", "overdue", "recovered"] = ""
    since: datetime | None = None


def watch_prunes(watch: PruneWatch, prunes: Sequence[Prune], *, interval: timedelta, now: datetime) -> Watched:
    """Overdue is what has not succeeded for twice its interval, and told once a day; an interval of 0: never.

    ``prunes`` are those that began within the last two intervals, at least.
    """
    if not interval:
        return Watched(PruneWatch())
    expected = watch.expected if watch.expected is not None and watch.expected <= now else now
    told = watch.told if watch.told is not None and watch.told <= now else None
    successes = [prune.ended for prune in prunes if prune.ended and succeeded(prune)]
    if watch.success is not None and watch.success <= now:
        successes.append(watch.success)
    success = max(successes, default=None)
    watch = PruneWatch(expected, told, success)
    since = max(success, expected) if success else expected
    if now - since > _INTERVALS * interval:
        if told is not None and now - told < TOLD_EVERY:
            return Watched(watch, since=since)
        return Watched(replace(watch, told=now), "overdue", since)
    has_recovered = told is not None and success is not None and success > told
    return Watched(replace(watch, told=None), "recovered" if has_recovered else "", since)


def succeeded(prune: Prune) -> bool:
    """Whether a prune came to its end; one that could not free enough did, too."""
    return prune.outcome in _SUCCEEDED
