"""Disk pressure as a state machine over readings. Pure.

- A change needs two readings in a row that agree: one large layer that comes and goes is no pressure.
- Pressure begins at high and ends below low; in between everything stays as it is, or the line would be crossed with
  every image.
- Two readings are in a row only if little time lies between them: what was read before the monitor was down for an hour
  confirms nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from caisson.disk_limits import Zone

Level = Literal["normal", "high", "critical"]
LEVELS: tuple[Level, ...] = ("normal", "high", "critical")
"""In the order of severity."""


@dataclass(frozen=True)
class Pressure:
    """The level, since when, and what the last reading would have made of it."""

    level: Level = "normal"
    since: datetime | None = None
    pending: Level | None = None
    """The level that the last reading alone spoke for; None where it spoke for the present one."""
    read: datetime | None = None
    """When the last reading was."""


@dataclass(frozen=True)
class Change:
    """From one level to another; ``recovered`` when pressure has ended."""

    before: Level
    after: Level
    at: datetime

    @property
    def recovered(self) -> bool:
        return self.after == "normal"

    @property
    def worse(self) -> bool:
        return LEVELS.index(self.after) > LEVELS.index(self.before)


def advance(now: Pressure, zone: Zone, at: datetime, *, most_gap: timedelta) -> tuple[Pressure, Change | None]:
    """The pressure after one more reading, and the change that it confirmed, if any.

    A reading that is not later than the last one changes nothing. Where that lies further ahead than two readings in a
    row are apart, the clock was set back, and this one is the first of a new row.
    """
    if now.read is not None and now.read - most_gap <= at <= now.read:
        return now, None
    wanted = _wanted(now.level, zone)
    pending = now.pending if now.read is not None and now.read < at <= now.read + most_gap else None
    if wanted == now.level:
        return Pressure(now.level, now.since, None, at), None
    agreed = _agreed(now.level, pending, wanted)
    if agreed is None:
        return Pressure(now.level, now.since, wanted, at), None
    # What this reading alone goes beyond the agreed level may be confirmed by the next.
    left = wanted if wanted != agreed else None
    return Pressure(agreed, at, left, at), Change(now.level, agreed, at)


def replay(readings: Iterable[tuple[datetime, Zone]], *, most_gap: timedelta) -> tuple[Pressure, list[Change]]:
    """The state after all readings in turn, from ``normal``, and every change on the way."""
    state, changes = Pressure(), []
    for at, zone in readings:
        state, change = advance(state, zone, at, most_gap=most_gap)
        if change is not None:
            changes.append(change)
    return state, changes


def _wanted(level: Level, zone: Zone) -> Level:
    """The level that one reading speaks for."""
    if zone is Zone.CRITICAL:
        return "critical"
    if zone is Zone.HIGH:
        return "high"
    if zone is Zone.BETWEEN:
        return "normal" if level == "normal" else "high"
    return "normal"


def _agreed(level: Level, before: Level | None, wanted: Level) -> Level | None:
    """The level nearest to the present one that both readings go as far as; None when they go different ways."""
    if before is None:
        return None
    here, first, second = (LEVELS.index(name) for name in (level, before, wanted))
    if (first - here) * (second - here) <= 0:
        return None
    return LEVELS[min(first, second)] if first > here else LEVELS[max(first, second)]
