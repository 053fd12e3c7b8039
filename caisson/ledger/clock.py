"""What is remembered of this host's clock: see ``caisson.clock``."""

from __future__ import annotations

from pydantic import TypeAdapter

from caisson.clock import KnownClock
from caisson.ledger.file import LedgerFile

_ADAPTER = TypeAdapter(KnownClock)


class ClockMemory:
    """One value. Each call is one transaction and raises ``LedgerUnusable``."""

    def __init__(self, file: LedgerFile) -> None:
        self._file = file

    def known(self) -> KnownClock | None:
        """As it was recorded; None before the first look."""
        with self._file.reading() as database:
            row = database.execute("SELECT value FROM facts WHERE name = 'clock'").fetchone()
        return _ADAPTER.validate_json(row[0]) if row else None

    def record(self, known: KnownClock) -> None:
        """Remember this, and nothing of before."""
        with self._file.writing() as database:
            database.execute("INSERT OR REPLACE INTO facts VALUES ('clock', ?)", (_ADAPTER.dump_json(known).decode(),))
