"""Records of leases: who holds which images, since when. The locks themselves are ``caisson.leases``'s."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime

from caisson.ledger.file import LedgerFile
from caisson.ledger.stamps import from_stamp, to_stamp


@dataclass(frozen=True)
class LeaseRecord:
    """One lease; ``holder`` is what a person knows it by, ``names`` are references and image IDs."""

    id: str
    holder: str
    pid: int
    names: tuple[str, ...]
    taken: datetime


class LeaseRecords:
    """The leases that were taken and not given back. Each call is one transaction and raises ``LedgerUnusable``."""

    def __init__(self, file: LedgerFile) -> None:
        self._file = file

    def put(self, lease: LeaseRecord) -> None:
        """Record a lease, or what it holds now."""
        with self._file.writing() as database:
            database.execute(
                "INSERT OR REPLACE INTO leases VALUES (?, ?, ?, ?, ?)",
                (lease.id, lease.holder, lease.pid, json.dumps(lease.names), to_stamp(lease.taken)),
            )

    def remove(self, *lease_ids: str) -> None:
        with self._file.writing() as database:
            database.executemany("DELETE FROM leases WHERE lease_id = ?", [(lease_id,) for lease_id in lease_ids])

    def list(self) -> list[LeaseRecord]:
        """All records, also those whose holder died: its lock tells."""
        with self._file.reading() as database:
            rows = database.execute("SELECT lease_id, holder, pid, names, taken FROM leases ORDER BY taken").fetchall()
        return [
            LeaseRecord(lease_id, holder, pid, tuple(json.loads(names)), from_stamp(taken))
            for lease_id, holder, pid, names, taken in rows
        ]
