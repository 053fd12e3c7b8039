"""What is remembered of each anonymous volume: when it was first seen, and when a container last had it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from caisson.ledger.file import LedgerFile
from caisson.ledger.stamps import from_stamp, to_stamp

# One that is gone for longer is new when it comes back.
_FORGET_AFTER = timedelta(days=90)


@dataclass(frozen=True)
class KnownVolume:
    """One volume as it was when it was last listed.

    ``held`` is whether a container, in any state, had it at the last look, or was seen to get it since.
    """

    name: str
    first_seen: datetime
    last_used: datetime
    last_listed: datetime
    held: bool = False


class Volumes:
    """The anonymous volumes of one engine. Each call is one transaction and raises ``LedgerUnusable``."""

    def __init__(self, file: LedgerFile) -> None:
        self._file = file

    def known(self) -> dict[str, KnownVolume]:
        """All that is remembered, also of volumes that are gone."""
        with self._file.reading() as database:
            rows = database.execute("SELECT name, first_seen, last_used, last_listed, held FROM volumes").fetchall()
        return {
            str(name): KnownVolume(str(name), from_stamp(seen), from_stamp(used), from_stamp(listed), bool(held))
            for name, seen, used, listed, held in rows
        }


def record(database: sqlite3.Connection, volumes: Iterable[KnownVolume], now: datetime) -> None:
    """A look, within the caller's transaction; forgets what has been gone for long. No use is ever made older."""
    database.executemany(
        "INSERT INTO volumes VALUES (?, ?, ?, ?, ?) ON CONFLICT (name) DO UPDATE SET "
        "held = CASE WHEN excluded.last_listed >= last_listed THEN excluded.held ELSE held END, "
        "last_used = MAX(last_used, excluded.last_used), last_listed = MAX(last_listed, excluded.last_listed)",
        [
            (
                volume.name,
                to_stamp(volume.first_seen),
                to_stamp(volume.last_used),
                to_stamp(volume.last_listed),
                volume.held,
            )
            for volume in volumes
        ],
    )
    database.execute("DELETE FROM volumes WHERE last_listed < ?", (to_stamp(now - _FORGET_AFTER),))


def use(database: sqlite3.Connection, name: str, used: datetime) -> None:
    """A container got a volume that is known, within the caller's transaction."""
    database.execute(
        "UPDATE volumes SET held = 1, last_used = MAX(last_used, ?) WHERE name = ?", (to_stamp(used), name)
    )
