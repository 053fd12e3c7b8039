"""The ledger's file: opened, migrated, and set aside where it is damaged. One short connection for each transaction.

- Every use holds a shared lock (``flock`` on a file beside it); who sets a damaged file aside holds it exclusively.
  Thus no one writes to a file that was renamed, and SQLite never removes the write-ahead log of its successor.
- A damaged file is renamed, never deleted, and what is made in its place says so: ``rebuilt_at``.
- A reserve of some megabytes stands beside it, and is given up when the disk is full: a prune that is to make room has
  to be able to write that it does.
- A file that can't be read or written, or is of a newer Caisson, is left as it is, and refused.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from caisson.errors import LedgerUnusable
from caisson.file_lock import locked
from caisson.ledger.schema import VERSION, migrate, missing_parts, read_schema
from caisson.ledger.stamps import to_stamp
from caisson.migrations import read_version

# Seconds. A transaction takes milliseconds, on a disk that is busy a few seconds.
_BUSY_SECONDS = 30.0
_RESERVE_BYTES = 2 << 20
_COMPANIONS = ("", "-wal", "-shm", "-journal")
_DAMAGED_CODES = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


class LedgerFile:
    """One file; sound, and of this version, when this is made. Raises ``LedgerUnusable``.

    For any number of threads and processes at once; it keeps nothing open.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with _explained(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._keep_reserve()
            with self._locked(shared=True):
                is_ready = path.exists() and self._find_damage() is None and self._version() == VERSION
            if not is_ready:
                with self._locked(shared=False):
                    self._make_ready()

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """One view of the whole, unchanged by what others write meanwhile."""
        with self._transaction("BEGIN") as database:
            yield database

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """All of it or nothing; one writer at a time."""
        with self._transaction("BEGIN IMMEDIATE") as database:
            yield database

    @contextmanager
    def _transaction(self, begin: str) -> Iterator[sqlite3.Connection]:
        self._keep_reserve()
        with _explained(self.path), self._locked(shared=True), self._connection() as database:
            database.execute(begin)
            if (version := read_version(database)) != VERSION:
                database.execute("ROLLBACK")
                raise _other_version(self.path, version)
            try:
                yield database
            except BaseException:
                with suppress(sqlite3.Error):
                    database.execute("ROLLBACK")
                raise
            database.execute("COMMIT")

    @contextmanager
    def _connection(self, mode: str = "rw") -> Iterator[sqlite3.Connection]:
        uri = f"{self.path.absolute().as_uri()}?mode={mode}"
        database = sqlite3.connect(uri, uri=True, timeout=_BUSY_SECONDS, isolation_level=None)
        try:
            database.execute("PRAGMA synchronous=NORMAL")
            yield database
        finally:
            database.close()

    def _locked(self, *, shared: bool) -> AbstractContextManager[int]:
        return locked(self.path.with_name(f"{self.path.name}.lock"), shared=shared)

    def _keep_reserve(self) -> None:
        reserve = self.path.with_name(f"{self.path.name}.reserve")
        with suppress(OSError):
            disk = os.statvfs(self.path.parent)
            free = disk.f_bavail * disk.f_frsize
            if free < _RESERVE_BYTES:
                reserve.unlink(missing_ok=True)
            elif free > 16 * _RESERVE_BYTES and not reserve.exists():
                descriptor = os.open(reserve, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
                try:
                    os.posix_fallocate(descriptor, 0, _RESERVE_BYTES)
                finally:
                    os.close(descriptor)

    def _version(self) -> int:
        with self._connection() as database:
            return read_version(database)

    def _find_damage(self) -> str | None:
        """What is wrong with the file; None for a sound one. Raises what is no damage of the file's."""
        if self.path.stat().st_size == 0:
            return "it is empty"
        try:
            with self._connection() as database:
                if (version := read_version(database)) > VERSION:
                    raise _other_version(self.path, version)
                (verdict,) = database.execute("PRAGMA quick_check(1)").fetchone()
                if verdict != "ok":
                    return str(verdict)
                if version == 0 and read_schema(database):
                    return "it is another program's database"
                if version and (missing := missing_parts(database)):
                    return f"without {', '.join(missing)}"
        except sqlite3.DatabaseError as error:
            if _code(error) in _DAMAGED_CODES:
                return str(error)
            raise
        return None

    def _make_ready(self) -> None:
        """With the exclusive lock: no other uses the file."""
        is_rebuilt = self.path.exists() and self._find_damage() is not None
        if is_rebuilt:
            self._set_aside()
        with self._connection("rwc") as database:
            database.execute("PRAGMA journal_mode=WAL")
            migrate(database)
            if is_rebuilt:
                now = to_stamp(datetime.now(UTC))
                database.execute("INSERT OR REPLACE INTO facts VALUES ('rebuilt_at', ?)", (str(now),))

    def _set_aside(self) -> None:
        name = f"{self.path.name}.damaged-{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}"
        for companion in _COMPANIONS:
            with suppress(FileNotFoundError):
                self.path.with_name(self.path.name + companion).rename(self.path.with_name(name + companion))


def _code(error: sqlite3.Error) -> int:
    # Without the bits of an extended code.
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def _other_version(path: Path, version: int) -> LedgerUnusable:
    return LedgerUnusable(
        f"The ledger {path} has schema version {version}, and this Caisson knows {VERSION}.",
        hint="It was written by a newer Caisson: upgrade this one.",
    )


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise LedgerUnusable(
            f"The ledger {path} can't be used: {reason}.",
            hint="Make CAISSON_STATE_DIR a directory with room in it that Caisson can write to.",
        ) from error
