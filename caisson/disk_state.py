"""What the monitor remembers from one look to the next: one small file in the state directory.

It may be lost at any time: then pressure is found out anew with two readings, and the engine is asked once more.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from caisson.disk_attribution import Attribution
from caisson.disk_places import Places
from caisson.file_lock import locked_if_free
from caisson.pressure import Level, Pressure
from caisson.private_file import write_private


class Remembered(BaseModel):
    """Pressure as a value that can be written down."""

    model_config = ConfigDict(frozen=True)

    level: Level = "normal"
    since: datetime | None = None
    pending: Level | None = None
    read: datetime | None = None

    @classmethod
    def of(cls, pressure: Pressure) -> Remembered:
        return cls(level=pressure.level, since=pressure.since, pending=pressure.pending, read=pressure.read)

    @property
    def pressure(self) -> Pressure:
        return Pressure(self.level, self.since, self.pending, self.read)


class DiskState(BaseModel):
    """The state between looks; ``horizons`` are the forecasts last told, by the path of their file system."""

    model_config = ConfigDict(frozen=True)

    looked: datetime | None = None
    places: Places | None = None
    pressures: Mapping[str, Remembered] = {}
    horizons: Mapping[str, int] = {}
    attributed: datetime | None = None
    """When the engine was last asked for its account, successfully or not."""
    published: datetime | None = None
    artifact: str = ""
    """ID of the artifact that is renewed in place."""
    cleaned: datetime | None = None
    """When old runs of the monitor were last removed."""
    replayed: datetime | None = None
    """When the engine's events were last asked for, successfully or not."""
    prune_asked: datetime | None = None
    """When a prune was last started for pressure."""
    prunes_expected: datetime | None = None
    """Since when prunes are to come."""
    prune_succeeded: datetime | None = None
    """When the last prune ended that came to its end."""
    overdue_told: datetime | None = None
    """When it was last told that none has succeeded for long."""

    def changed(self, **values: object) -> DiskState:
        return self.model_copy(update=values)


def state_file(state_dir: Path) -> Path:
    return state_dir / "disk.json"


def attribution_file(state_dir: Path) -> Path:
    return state_dir / "disk-attribution.json"


def read_state(state_dir: Path) -> DiskState:
    """What was remembered; nothing where there is no such file or it can't be read."""
    try:
        return DiskState.model_validate_json(state_file(state_dir).read_bytes())
    except (OSError, ValidationError):
        return DiskState()


def write_state(state_dir: Path, state: DiskState) -> None:
    """Remember; raises ``OSError``."""
    write_private(state_file(state_dir), state.model_dump_json())


def read_attribution(state_dir: Path) -> Attribution | None:
    """The last account of the disk, however old; None where there is none that can be read."""
    try:
        return Attribution.model_validate_json(attribution_file(state_dir).read_bytes())
    except (OSError, ValidationError):
        return None


def write_attribution(state_dir: Path, attribution: Attribution) -> None:
    """Keep an account; raises ``OSError``."""
    write_private(attribution_file(state_dir), attribution.model_dump_json())


@contextmanager
def only_one(state_dir: Path, what: str) -> Iterator[bool]:
    """Hold a lock of that name for the block; yields False where another process holds it. Raises ``OSError``."""
    state_dir.mkdir(parents=True, exist_ok=True)
    with locked_if_free(state_dir / f"{what}.lock") as mine:
        yield mine
