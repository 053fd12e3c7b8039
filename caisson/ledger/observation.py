"""One look at the engine: its images and how far its events were replayed, recorded together or not at all."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from caisson.ledger.file import LedgerFile
from caisson.ledger.images import Inspected, KnownImage, record
from caisson.ledger.stamps import from_stamp, to_stamp


@dataclass(frozen=True)
class Position:
    """Where in the engine's events the last look ended.

    ``anchor`` is what tells the last event that was seen from all others; empty when the engine had none.
    """

    replayed: datetime
    anchor: tuple[str, ...] = ()


class Observations:
    """Looks at the engine. Each call is one transaction and raises ``LedgerUnusable``."""

    def __init__(self, file: LedgerFile) -> None:
        self._file = file

    def position(self) -> Position | None:
        """Where the last look ended; None before the first."""
        with self._file.reading() as database:
            row = database.execute("SELECT replayed, anchor FROM engine_position").fetchone()
        return Position(from_stamp(row[0]), tuple(json.loads(row[1]))) if row else None

    def record(self, images: Iterable[KnownImage], inspected: Inspected, position: Position, now: datetime) -> None:
        """Images and position in one: an event that was passed by is never one whose use was not recorded."""
        with self._file.writing() as database:
            record(database, images, inspected, now)
            database.execute(
                "INSERT OR REPLACE INTO engine_position VALUES (1, ?, ?)",
                (to_stamp(position.replayed), json.dumps(position.anchor)),
            )
