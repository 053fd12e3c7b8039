"""The ledger: what Caisson built and tagged on this host, by image ID, in SQLite.

Labels on an image can be forged by a Dockerfile; only what is written here says that an image is the result of a spec.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from caisson.engine import ImageID

_SCHEMA_VERSION = 1
_SCHEMA = """
CREATE TABLE builds (
    build_id TEXT PRIMARY KEY,
    spec_hash TEXT NOT NULL,
    sha TEXT NOT NULL,
    repository_url TEXT NOT NULL,
    image_id TEXT NOT NULL,
    finished TEXT NOT NULL
);
CREATE INDEX builds_by_spec ON builds (spec_hash, finished);
CREATE TABLE tags (
    reference TEXT NOT NULL,
    image_id TEXT NOT NULL,
    previous_image_id TEXT NOT NULL,
    build_id TEXT NOT NULL,
    tagged TEXT NOT NULL
);
CREATE INDEX tags_by_reference ON tags (reference, tagged);
"""


class Ledger:
    """One file per host; each call is one short transaction. Raises ``sqlite3.Error``."""

    def __init__(self, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        self._database = sqlite3.connect(file, timeout=30, isolation_level=None, check_same_thread=False)
        self._database.execute("PRAGMA journal_mode=WAL")
        self._database.execute("PRAGMA synchronous=NORMAL")
        with self._transaction():
            (version,) = self._database.execute("PRAGMA user_version").fetchone()
            if version > _SCHEMA_VERSION:
                raise sqlite3.DatabaseError(f"{file} has schema {version}; this Caisson knows {_SCHEMA_VERSION}")
            if version == 0:
                for statement in filter(str.strip, _SCHEMA.split(";")):
                    self._database.execute(statement)
                self._database.execute(f"PRAGMA user_version={_SCHEMA_VERSION}")

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._database.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._database.execute("ROLLBACK")
            raise
        self._database.execute("COMMIT")

    def record_build(
        self, *, build_id: str, spec_hash: str, sha: str, repository_url: str, image_id: ImageID, finished: datetime
    ) -> None:
        with self._transaction():
            self._database.execute(
                "INSERT OR REPLACE INTO builds VALUES (?, ?, ?, ?, ?, ?)",
                (build_id, spec_hash, sha, repository_url, image_id, finished.isoformat()),
            )

    def images_of_spec(self, spec_hash: str) -> list[ImageID]:
        """Images that were built to this spec, the newest first; they may have been removed since."""
        rows = self._database.execute(
            "SELECT image_id FROM builds WHERE spec_hash = ? ORDER BY finished DESC", (spec_hash,)
        )
        return [ImageID(image_id) for (image_id,) in rows]

    def record_tag(
        self, *, reference: str, image_id: ImageID, previous: ImageID | None, build_id: str, tagged: datetime
    ) -> None:
        """Record what a tag points to now, and what it pointed to before."""
        with self._transaction():
            self._database.execute(
                "INSERT INTO tags VALUES (?, ?, ?, ?, ?)",
                (reference, image_id, previous or "", build_id, tagged.isoformat()),
            )

    def tags_by_source(self) -> list[tuple[str, str]]:
        """The git repository's URL and the reference of each tag that an image built here was ever given."""
        rows = self._database.execute(
            "SELECT DISTINCT repository_url, reference FROM tags JOIN builds ON builds.image_id = tags.image_id"
        )
        return [(str(url), str(reference)) for url, reference in rows]

    def tag_history(self, reference: str) -> list[tuple[ImageID, datetime]]:
        """What a tag pointed to, the newest first, as far as Caisson moved it."""
        rows = self._database.execute(
            "SELECT image_id, tagged FROM tags WHERE reference = ? ORDER BY tagged DESC", (reference,)
        )
        return [(ImageID(image_id), datetime.fromisoformat(tagged)) for image_id, tagged in rows]
