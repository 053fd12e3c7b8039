"""SQLite files that grow with Caisson: their schema as the steps that lead from one version to the next."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence


def read_version(database: sqlite3.Connection) -> int:
    """The schema version of a file; 0 for one that is new."""
    (version,) = database.execute("PRAGMA user_version").fetchone()
    return int(version)


def migrate(database: sqlite3.Connection, migrations: Sequence[Sequence[str]]) -> None:
    """Take the steps that are missing, each in a transaction of its own; safe while others do so. Never goes down.

    The connection must not begin transactions by itself.
    """
    for version, statements in enumerate(migrations, start=1):
        database.execute("BEGIN IMMEDIATE")
        try:
            if read_version(database) < version:
                for statement in statements:
                    database.execute(statement)
                database.execute(f"PRAGMA user_version={version}")
        except BaseException:
            database.execute("ROLLBACK")
            raise
        database.execute("COMMIT")
