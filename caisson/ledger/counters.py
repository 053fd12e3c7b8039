"""Counters that outlive the process that counts: how often what has happened on this host, by name and labels."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from caisson.ledger.file import LedgerFile


@dataclass(frozen=True)
class Count:
    """A counter, and how much it grows by, or its value."""

    name: str
    labels: Mapping[str, str]
    value: float = 1


class Counters:
    """The counters of this host. Each call is one transaction and raises ``LedgerUnusable``."""

    def __init__(self, file: LedgerFile) -> None:
        self._file = file

    def add(self, counts: Iterable[Count]) -> None:
        """Let counters grow, all or none; one that is new begins at 0. Raises ``ValueError`` for a negative value."""
        rows = [(count.name, _key(count.labels), count.value) for count in counts]
        if any(value < 0 for _, _, value in rows):
            raise ValueError("a counter never falls")
        with self._file.writing() as database:
            database.executemany(
                "INSERT INTO counters VALUES (?, ?, ?) "
                "ON CONFLICT (name, labels) DO UPDATE SET value = value + excluded.value",
                rows,
            )

    def list(self) -> list[Count]:
        """All counters, by name and labels."""
        with self._file.reading() as database:
            rows = database.execute("SELECT name, labels, value FROM counters ORDER BY name, labels").fetchall()
        return [Count(name, json.loads(labels), value) for name, labels, value in rows]


def _key(labels: Mapping[str, str]) -> str:
    return json.dumps(dict(sorted(labels.items())))
