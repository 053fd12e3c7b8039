"""What was told of prunes, so that one thing is not told with each prune: under pressure they come every ten minutes.

Kept in a small file of the state directory, which may be lost at any time: then something is told once more.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from pathlib import Path

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from caisson.private_file import write_private
from caisson.prune_events import PruneEvent

TOLD_EVERY = timedelta(hours=24)


class Told(BaseModel):
    """When it was last told that a prune failed, and that one could not free enough; None where that is over."""

    model_config = ConfigDict(frozen=True)

    failed: AwareDatetime | None = None
    short: AwareDatetime | None = None


def choose_untold(told: Told, events: Iterable[PruneEvent], now: datetime) -> tuple[list[PruneEvent], Told]:
    """The events of one prune that are worth telling, and what is told then. Pure.

    A failure, and that too little could be freed, are told when they are new and once a day while they go on. A failed
    prune says nothing of whether there would have been enough to free.
    """
    events = list(events)
    names = {event.name for event in events}
    failed = _told(told.failed, "caisson.prune.failed" in names, now)
    short = told.short if "caisson.prune.failed" in names else _told(told.short, "caisson.prune.short" in names, now)
    repeated = {"caisson.prune.failed": failed != now, "caisson.prune.short": short != now}
    return [event for event in events if not repeated.get(event.name, False)], Told(failed=failed, short=short)


def _told(last: datetime | None, is_so: bool, now: datetime) -> datetime | None:
    if not is_so:
        return None
    # A time that lies ahead is of a clock that was set back.
    return last if last is not None and timedelta() <= now - last < TOLD_EVERY else now


def _file(state_dir: Path) -> Path:
    return state_dir / "prune-told.json"


def read_told(state_dir: Path) -> Told:
    """What was told; nothing where there is no such file or it can't be read."""
    try:
        return Told.model_validate_json(_file(state_dir).read_bytes())
    except (OSError, ValidationError):
        return Told()


def write_told(state_dir: Path, told: Told) -> None:
    """Remember; raises ``OSError``."""
    write_private(_file(state_dir), told.model_dump_json())
