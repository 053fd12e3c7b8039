"""The ledger's tables, as the steps that lead from one schema version to the next.

A step is never changed once it was released: files that were made by it are on people's hosts. Times are whole
microseconds since 1970, UTC, but for version 1's, which are ISO 8601.
"""

from __future__ import annotations

import functools
import sqlite3

from caisson import migrations
from caisson.migrations import read_version

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    # From nothing to version 1.
    (
        """CREATE TABLE builds (
    build_id TEXT PRIMARY KEY,
    spec_hash TEXT NOT NULL,
    sha TEXT NOT NULL,
    repository_url TEXT NOT NULL,
    image_id TEXT NOT NULL,
    finished TEXT NOT NULL
)""",
        "CREATE INDEX builds_by_spec ON builds (spec_hash, finished)",
        """CREATE TABLE tags (
    reference TEXT NOT NULL,
    image_id TEXT NOT NULL,
    previous_image_id TEXT NOT NULL,
    build_id TEXT NOT NULL,
    tagged TEXT NOT NULL
)""",
        "CREATE INDEX tags_by_reference ON tags (reference, tagged)",
    ),
    # From version 1 to version 2: what pruning and the disk's monitor remember.
    (
        "ALTER TABLE builds ADD COLUMN seconds REAL",
        "CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL)",
        """CREATE TABLE images (
    image_id TEXT PRIMARY KEY,
    first_seen INTEGER NOT NULL,
    last_used INTEGER NOT NULL,
    last_use TEXT NOT NULL,
    last_listed INTEGER NOT NULL,
    names TEXT NOT NULL,
    registries TEXT NOT NULL
)""",
        # Apart: it never changes, and is far larger than what does.
        "CREATE TABLE image_layers (image_id TEXT PRIMARY KEY, layers TEXT NOT NULL)",
        """CREATE TABLE pushes (
    reference TEXT NOT NULL,
    image_id TEXT NOT NULL,
    digest TEXT NOT NULL,
    build_id TEXT NOT NULL,
    pushed INTEGER NOT NULL
)""",
        "CREATE INDEX pushes_by_image ON pushes (image_id, pushed)",
        """CREATE TABLE leases (
    lease_id TEXT PRIMARY KEY,
    holder TEXT NOT NULL,
    pid INTEGER NOT NULL,
    names TEXT NOT NULL,
    taken INTEGER NOT NULL
)""",
        """CREATE TABLE disk_samples (
    file_system TEXT NOT NULL,
    taken INTEGER NOT NULL,
    total_bytes INTEGER NOT NULL,
    free_bytes INTEGER NOT NULL,
    total_inodes INTEGER NOT NULL,
    free_inodes INTEGER NOT NULL,
    PRIMARY KEY (file_system, taken)
) WITHOUT ROWID""",
        """CREATE TABLE prunes (
    prune_id TEXT PRIMARY KEY,
    started INTEGER NOT NULL,
    ended INTEGER,
    trigger TEXT NOT NULL,
    freed_bytes INTEGER NOT NULL,
    freed_inodes INTEGER NOT NULL,
    outcome TEXT NOT NULL,
    plan TEXT NOT NULL
)""",
        "CREATE INDEX prunes_by_start ON prunes (started)",
        """CREATE TABLE engine_position (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    replayed INTEGER NOT NULL,
    anchor TEXT NOT NULL,
    listed INTEGER
)""",
    ),
    # From version 2 to version 3: anonymous volumes, and what containers were seen to run.
    (
        """CREATE TABLE volumes (
    name TEXT PRIMARY KEY,
    first_seen INTEGER NOT NULL,
    last_used INTEGER NOT NULL,
    last_listed INTEGER NOT NULL,
    held INTEGER NOT NULL
)""",
        """CREATE TABLE services (
    service TEXT NOT NULL,
    image_id TEXT NOT NULL,
    last_seen INTEGER NOT NULL,
    PRIMARY KEY (service, image_id)
) WITHOUT ROWID""",
    ),
    # From version 3 to version 4: how often what has happened, since each build is a process of its own; and which
    # untagged images were steps of our builds, which nothing tells once what stood on them is gone.
    (
        "CREATE TABLE own_steps (image_id TEXT PRIMARY KEY) WITHOUT ROWID",
        """CREATE TABLE counters (
    name TEXT NOT NULL,
    labels TEXT NOT NULL,
    value REAL NOT NULL,
    PRIMARY KEY (name, labels)
) WITHOUT ROWID""",
    ),
    # From version 4 to version 5: of the builds that moved a tag which follows a branch, when the last was asked for.
    (
        """CREATE TABLE tag_claims (
    reference TEXT NOT NULL,
    follows TEXT NOT NULL,
    asked INTEGER NOT NULL,
    PRIMARY KEY (reference, follows)
) WITHOUT ROWID""",
    ),
    # From version 5 to version 6: the repositories that images were pulled from or pushed to, also of images that were
    # not listed yet.
    (
        """CREATE TABLE image_registries (
    image_id TEXT NOT NULL,
    repository TEXT NOT NULL,
    seen INTEGER NOT NULL,
    PRIMARY KEY (image_id, repository)
) WITHOUT ROWID""",
    ),
)

VERSION = len(MIGRATIONS)


def read_schema(database: sqlite3.Connection) -> dict[str, str]:
    """What a database has of tables and indexes, by name, each as it was created."""
    rows = database.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL")
    return {str(name): str(sql) for name, sql in rows}


def migrate(database: sqlite3.Connection, *, to: int = VERSION) -> None:
    """Go up to a version: see ``caisson.migrations``."""
    migrations.migrate(database, MIGRATIONS[:to])


@functools.cache
def _schema_of(version: int) -> dict[str, str]:
    database = sqlite3.connect(":memory:", isolation_level=None)
    migrate(database, to=version)
    try:
        return read_schema(database)
    finally:
        database.close()


def missing_parts(database: sqlite3.Connection) -> list[str]:
    """Tables and indexes that a file of its version must have and has not, or not as they should be."""
    found = read_schema(database)
    return sorted(name for name, sql in _schema_of(read_version(database)).items() if found.get(name) != sql)
