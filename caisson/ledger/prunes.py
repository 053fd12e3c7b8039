"""Prunes: when, why, what they planned and what came of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from caisson.ledger.file import LedgerFile
from caisson.ledger.stamps import from_stamp, to_stamp

UNFINISHED = ""
"""Outcome of a prune that runs, or whose process died."""


@dataclass(frozen=True)
class Prune:
    """One prune; ``plan`` is its summary as JSON values. ``ended`` is None and ``outcome`` empty until it has ended."""

    id: str
    started: datetime
    ended: datetime | None
    trigger: str
    freed_bytes: int
    freed_inodes: int
    outcome: str
    plan: Mapping[str, Any]


class Prunes:
    """The prunes of this host. Each call is one transaction and raises ``LedgerUnusable``."""

    def __init__(self, file: LedgerFile) -> None:
        self._file = file

    def begin(self, prune_id: str, *, started: datetime, trigger: str, plan: Mapping[str, Any]) -> None:
        """Record before the first removal; ``trigger`` is what started it: a schedule, a person, the disk."""
        with self._file.writing() as database:
            database.execute(
                "INSERT INTO prunes VALUES (?, ?, NULL, ?, 0, 0, ?, ?)",
                (prune_id, to_stamp(started), trigger, UNFINISHED, json.dumps(plan)),
            )

    def end(self, prune_id: str, *, ended: datetime, outcome: str, freed_bytes: int, freed_inodes: int) -> None:
        """Record how it ended, and what it freed as the file system measured it."""
        with self._file.writing() as database:
            database.execute(
                "UPDATE prunes SET ended = ?, outcome = ?, freed_bytes = ?, freed_inodes = ? WHERE prune_id = ?",
                (to_stamp(ended), outcome, freed_bytes, freed_inodes, prune_id),
            )

    def list(self, *, since: datetime | None = None) -> list[Prune]:
        """The prunes, the newest first."""
        with self._file.reading() as database:
            rows = database.execute(
                "SELECT prune_id, started, ended, trigger, freed_bytes, freed_inodes, outcome, plan FROM prunes "
                "WHERE started >= ? ORDER BY started DESC",
                (to_stamp(since) if since else 0,),
            ).fetchall()
        return [
            Prune(
                id=row[0],
                started=from_stamp(row[1]),
                ended=None if row[2] is None else from_stamp(row[2]),
                trigger=row[3],
                freed_bytes=row[4],
                freed_inodes=row[5],
                outcome=row[6],
                plan=json.loads(row[7]),
            )
            for row in rows
        ]
