"""How full each file system was over time, thinned as it gets older."""

from __future__ import annotations

import sqlite3
from datetime import datetime

from caisson.disk import DiskUsage
from caisson.ledger.file import LedgerFile
from caisson.ledger.stamps import from_stamp, to_stamp

_MINUTE = 60_000_000
_HOUR = 60 * _MINUTE
_FINE = 48 * _HOUR
_COARSE = 60 * 24 * _HOUR


class DiskSamples:
    """Every sample of the last hour or two, one a minute for two days, one an hour for sixty, then none.

    Each call is one transaction and raises ``LedgerUnusable``.
    """

    def __init__(self, file: LedgerFile) -> None:
        self._file = file

    def record(self, taken: datetime, *usages: DiskUsage) -> None:
        """Record what was read at one time, ``path`` naming the file system; the first of an hour thins out."""
        stamp = to_stamp(taken)
        hour = stamp // _HOUR * _HOUR
        with self._file.writing() as database:
            is_first = not database.execute(
                "SELECT 1 FROM disk_samples WHERE file_system = ? AND taken >= ? LIMIT 1",
                (usages[0].path if usages else "", hour),
            ).fetchone()
            database.executemany(
                "INSERT OR REPLACE INTO disk_samples VALUES (?, ?, ?, ?, ?, ?)",
                [
                    (usage.path, stamp, usage.total_bytes, usage.free_bytes, usage.total_inodes, usage.free_inodes)
                    for usage in usages
                ],
            )
            if is_first:
                _thin_out(database, hour)

    def of(self, file_system: str, *, since: datetime | None = None) -> list[tuple[datetime, DiskUsage]]:
        """The samples of one file system, the oldest first."""
        with self._file.reading() as database:
            rows = database.execute(
                "SELECT taken, total_bytes, free_bytes, total_inodes, free_inodes FROM disk_samples "
                "WHERE file_system = ? AND taken >= ? ORDER BY taken",
                (file_system, to_stamp(since) if since else 0),
            ).fetchall()
        return [(from_stamp(taken), DiskUsage(file_system, *counts)) for taken, *counts in rows]

    def file_systems(self) -> list[str]:
        """The file systems that there are samples of."""
        with self._file.reading() as database:
            rows = database.execute("SELECT DISTINCT file_system FROM disk_samples ORDER BY file_system").fetchall()
        return [str(name) for (name,) in rows]


def _thin_out(database: sqlite3.Connection, hour: int) -> None:
    """What is older than the hour: of each minute, or later of each hour, the first sample stays."""
    database.execute("DELETE FROM disk_samples WHERE taken < ?", (hour - _COARSE,))
    for before, period in ((hour - _FINE, _HOUR), (hour, _MINUTE)):
        database.execute(
            "DELETE FROM disk_samples WHERE taken < ? AND EXISTS (SELECT 1 FROM disk_samples AS earlier "
            "WHERE earlier.file_system = disk_samples.file_system AND earlier.taken < disk_samples.taken "
            "AND earlier.taken >= disk_samples.taken / ? * ?)",
            (before, period, period),
        )
