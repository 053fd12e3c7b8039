"""Whether this host's clock can be believed when it says how old anything is. Pure.

Rules of this module:

- The kernel counts the seconds of a boot, those asleep too, whatever the clock says (``CLOCK_BOOTTIME``,
  clock_gettime(2)). A clock that went ahead of that count by more than ``MARGIN`` has jumped: by it, everything would
  seem to be old.
- Over a restart nothing tells of a jump ahead. But a time before the last look's is wrong then, too.
- A clock in doubt is believed again when it is back in step with the look that was believed last, or, whatever it says,
  when it has kept step with the boot's seconds for ``SETTLED`` since the first look that found it so. A restart begins
  that time anew.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, timedelta

from pydantic import AwareDatetime

from caisson.boot import Boot
from caisson.durations import format_age

MARGIN = timedelta(hours=1)
SETTLED = timedelta(hours=1)
_BACK = timedelta(minutes=1)
"""What a look may be before the last one: several processes look, and a clock is set by seconds."""


@dataclass(frozen=True)
class Reading:
    """The clock and the boot's seconds, at one moment."""

    clock: AwareDatetime
    boot: Boot


@dataclass(frozen=True)
class KnownClock:
    """The last reading that was believed; and where those since are not, the first with the time that it is now."""

    believed: Reading
    doubted: Reading | None = None


def judge_clock(known: KnownClock | None, now: Reading) -> tuple[KnownClock, str]:
    """What to remember after a look, and why nothing may be removed by its time; empty where it is believed."""
    doubt = _doubt(known, now) if known is not None else ""
    if known is None or not doubt:
        return KnownClock(now), ""
    first = known.doubted
    if first is None or not _are_in_step(first, now):
        first = now
    if now.boot.seconds - first.boot.seconds >= SETTLED.total_seconds():
        return KnownClock(now), ""
    again = (first.clock + SETTLED).astimezone(UTC)
    reason = (
        f"{doubt}, and until it has kept that time for {format_age(SETTLED)} nothing is removed: see whether it is "
        f"right (`timedatectl`), and prune again after {again:%Y-%m-%d %H:%M} UTC by it."
    )
    return KnownClock(known.believed, first), reason


def _doubt(known: KnownClock, now: Reading) -> str:
    last = known.believed
    if (back := last.clock - now.clock) > _BACK:
        return f"the clock of this host is {format_age(back)} behind the last look's time"
    if last.boot.id == now.boot.id:
        ahead = _ahead(last, now)
        if ahead <= MARGIN:
            return ""
        passed = format_age(timedelta(seconds=now.boot.seconds - last.boot.seconds))
        return f"the clock of this host went {format_age(ahead)} ahead of the {passed} since the last look"
    # What it was then nobody knows now.
    return "the clock of this host was in doubt, and the host was started anew" if known.doubted is not None else ""


def _ahead(before: Reading, now: Reading) -> timedelta:
    return now.clock - before.clock - timedelta(seconds=now.boot.seconds - before.boot.seconds)


def _are_in_step(before: Reading, now: Reading) -> bool:
    return before.boot.id == now.boot.id and abs(_ahead(before, now)) <= MARGIN
