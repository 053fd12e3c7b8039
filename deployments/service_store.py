"""Data of the service that is not Prefect's: tokens, and what comes later, in one SQLite file of the state directory.

Nothing in it can be told again from elsewhere, so that a damaged file is left as it is and refused: nobody gets in, and
nothing is made anew in silence. Times are whole microseconds since 1970, UTC.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from caisson.errors import StoreUnusable
from caisson.migrations import migrate, read_version
from caisson.settings import Settings

_BUSY_SECONDS = 10.0

# A step is never changed once it was released: files that were made by it are on people's hosts.
MIGRATIONS: tuple[tuple[str, ...], ...] = (
    # From nothing to version 1: the tokens of Caisson's own API.
    (
        """CREATE TABLE tokens (
    token_id TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    scopes TEXT NOT NULL,
    images TEXT NOT NULL,
    repositories TEXT NOT NULL,
    digest TEXT NOT NULL,
    created INTEGER NOT NULL,
    expires INTEGER,
    last_used INTEGER
) WITHOUT ROWID""",
    ),
    # From version 1 to version 2: deliveries of webhooks that were seen, and the builds that they asked for.
    (
        """CREATE TABLE webhook_deliveries (
    hook TEXT NOT NULL,
    delivery TEXT NOT NULL,
    digest TEXT NOT NULL,
    seen INTEGER NOT NULL,
    PRIMARY KEY (hook, delivery)
) WITHOUT ROWID""",
        "CREATE INDEX webhook_deliveries_by_digest ON webhook_deliveries (hook, digest)",
        "CREATE INDEX webhook_deliveries_by_time ON webhook_deliveries (seen)",
        """CREATE TABLE webhook_builds (
    key TEXT PRIMARY KEY,
    hook TEXT NOT NULL,
    request TEXT NOT NULL,
    sha TEXT NOT NULL,
    ref TEXT NOT NULL,
    context TEXT NOT NULL,
    priority TEXT NOT NULL,
    supersede INTEGER NOT NULL,
    asked INTEGER NOT NULL,
    flow_run_id TEXT NOT NULL DEFAULT '',
    state TEXT NOT NULL DEFAULT 'queued',
    told TEXT NOT NULL DEFAULT '',
    attempts INTEGER NOT NULL DEFAULT 0,
    due INTEGER NOT NULL
)""",
        "CREATE INDEX webhook_builds_open ON webhook_builds (state) WHERE state IN ('queued', 'running')",
        "CREATE INDEX webhook_builds_untold ON webhook_builds (due) WHERE told <> state",
    ),
    # From version 2 to version 3: where a webhook's build is built; empty: on the API's own host.
    ("ALTER TABLE webhook_builds ADD COLUMN host TEXT NOT NULL DEFAULT ''",),
    # From version 3 to version 4: which secrets the builds of a token may use.
    ("ALTER TABLE tokens ADD COLUMN secrets TEXT NOT NULL DEFAULT '[]'",),
)
VERSION = len(MIGRATIONS)


def store_file(settings: Settings) -> Path:
    """Where it is."""
    return settings.state_dir / "service.sqlite"


class ServiceStore:
    """The file, made and migrated if need be, for its owner only. For any number of threads and processes at once.

    Every call raises ``StoreUnusable`` when the file can't be read or written, or a newer Caisson made it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with _explained(path):
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            # SQLite would make it as the umask says, and its companions get the mode of the file itself.
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            with self._connection() as database:
                database.execute("PRAGMA journal_mode=WAL")
                _migrate(database)

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """One view of the whole, unchanged by what others write meanwhile."""
        with _explained(self.path), self._connection() as database, _transaction(database, "BEGIN"):
            yield database

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """All of it or nothing; one writer at a time."""
        with _explained(self.path), self._connection() as database, _transaction(database, "BEGIN IMMEDIATE"):
            yield database

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        uri = f"{self.path.absolute().as_uri()}?mode=rw"
        database = sqlite3.connect(uri, uri=True, timeout=_BUSY_SECONDS, isolation_level=None)
        try:
            database.execute("PRAGMA synchronous=FULL")
            yield database
        finally:
            database.close()


@contextmanager
def _transaction(database: sqlite3.Connection, begin: str) -> Iterator[None]:
    database.execute(begin)
    try:
        yield
    except BaseException:
        with suppress(sqlite3.Error):
            database.execute("ROLLBACK")
        raise
    database.execute("COMMIT")


def _migrate(database: sqlite3.Connection) -> None:
    if (found := read_version(database)) > VERSION:
        raise StoreUnusable(
            f"schema version {found} is newer than this Caisson's {VERSION}", hint="Upgrade this Caisson."
        )
    if found < VERSION:
        migrate(database, MIGRATIONS)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.IntegrityError:
        # What the caller wrote breaks a rule of the table: that is the caller's to tell.
        raise
    except StoreUnusable as error:
        raise StoreUnusable(f"{path} can't be used: {error.message}.", hint=error.hint) from None
    except (sqlite3.Error, OSError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise StoreUnusable(
            f"{path} can't be used: {reason}.",
            hint="Make CAISSON_STATE_DIR a directory that Caisson can write to; put a damaged file aside and make the "
            "tokens anew.",
        ) from error
