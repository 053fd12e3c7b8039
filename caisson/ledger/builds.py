"""What Caisson built, tagged and pushed on this host.

Labels on an image can be forged by a Dockerfile; only what is written here says that an image is the result of a spec.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from caisson.engine import ImageID
from caisson.ledger.file import LedgerFile
from caisson.ledger.images import touch
from caisson.ledger.stamps import to_stamp
from caisson.reference import parse_reference


class Builds:
    """Builds, tags and pushes. Each call is one transaction and raises ``LedgerUnusable``."""

    def __init__(self, file: LedgerFile) -> None:
        self._file = file

    def record_build(
        self,
        *,
        build_id: str,
        spec_hash: str,
        sha: str,
        repository_url: str,
        image_id: ImageID,
        finished: datetime,
        seconds: float | None = None,
    ) -> None:
        """Record that an image was built, and how long that took."""
        with self._file.writing() as database:
            database.execute(
                "INSERT OR REPLACE INTO builds VALUES (?, ?, ?, ?, ?, ?, ?)",
                (build_id, spec_hash, sha, repository_url, image_id, finished.isoformat(), seconds),
            )
            touch(database, image_id, finished, "built")

    def record_tag(
        self, *, reference: str, image_id: ImageID, previous: ImageID | None, build_id: str, tagged: datetime
    ) -> None:
        """Record what a tag points to now, and what it pointed to before."""
        with self._file.writing() as database:
            database.execute(
                "INSERT INTO tags VALUES (?, ?, ?, ?, ?)",
                (reference, image_id, previous or "", build_id, tagged.isoformat()),
            )
            touch(database, image_id, tagged, "tagged")

    def claim_tag(self, reference: str, follows: str, *, asked: datetime, now: datetime) -> bool:
        """Whether a build that was asked for then may move a tag that follows a ref of a repository; if so, no build
        that was asked for earlier may from now on.

        A claim of the future is one of a clock that was wrong, and counts for nothing.
        """
        with self._file.writing() as database:
            claimed = database.execute(
                "INSERT INTO tag_claims VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET asked = excluded.asked"
                " WHERE excluded.asked >= asked OR asked > ?",
                (reference, follows, to_stamp(asked), to_stamp(now)),
            )
            return claimed.rowcount > 0

    def record_push(self, *, reference: str, image_id: ImageID, digest: str, build_id: str, pushed: datetime) -> None:
        """Record what of an image a registry has, by the digest that it named."""
        with self._file.writing() as database:
            database.execute(
                "INSERT INTO pushes VALUES (?, ?, ?, ?, ?)", (reference, image_id, digest, build_id, to_stamp(pushed))
            )
            touch(database, image_id, pushed, "pushed")

    def record_reuse(self, image_id: ImageID, reused: datetime) -> None:
        """Record that a build was answered with an image that was there."""
        with self._file.writing() as database:
            touch(database, image_id, reused, "reused")

    def images_of_spec(self, spec_hash: str) -> list[ImageID]:
        """Images that were built to this spec, the newest first; they may have been removed since."""
        with self._file.reading() as database:
            rows = database.execute(
                "SELECT image_id FROM builds WHERE spec_hash = ? ORDER BY finished DESC", (spec_hash,)
            ).fetchall()
        return [ImageID(image_id) for (image_id,) in rows]

    def own_images(self) -> dict[ImageID, float | None]:
        """Every image that was ever built here, with the longest that its build took, in seconds, if that is known."""
        with self._file.reading() as database:
            rows = database.execute("SELECT image_id, MAX(seconds) FROM builds GROUP BY image_id").fetchall()
        return {ImageID(image_id): seconds for image_id, seconds in rows}

    def own_steps(self) -> set[ImageID]:
        """The images that were seen as steps of builds of ours, as far as they were there at the last change."""
        with self._file.reading() as database:
            return {ImageID(image_id) for (image_id,) in database.execute("SELECT image_id FROM own_steps")}

    def record_steps(self, steps: Iterable[ImageID]) -> None:
        """Remember these as the steps of builds of ours, and no others."""
        with self._file.writing() as database:
            database.execute("DELETE FROM own_steps")
            database.executemany("INSERT INTO own_steps VALUES (?)", [(step,) for step in set(steps)])

    def pushed_repositories(self) -> dict[ImageID, frozenset[str]]:
        """Where each image was pushed to from here, as references without tag."""
        with self._file.reading() as database:
            rows = database.execute("SELECT DISTINCT image_id, reference FROM pushes").fetchall()
        pushed: dict[ImageID, set[str]] = {}
        for image_id, reference in rows:
            pushed.setdefault(ImageID(image_id), set()).add(parse_reference(reference).repository.canonical())
        return {image_id: frozenset(repositories) for image_id, repositories in pushed.items()}

    def tags_by_source(self) -> list[tuple[str, str]]:
        """The git repository's URL and the reference of each tag that an image built here was ever given, in the order
        in which they were given last."""
        with self._file.reading() as database:
            rows = database.execute(
                "SELECT repository_url, reference FROM tags JOIN builds ON builds.image_id = tags.image_id "
                "GROUP BY repository_url, reference ORDER BY MAX(tagged)"
            ).fetchall()
        return [(str(url), str(reference)) for url, reference in rows]

    def latest_sources(self) -> list[str]:
        """The URLs of the git repositories that images were built from here, the one built last first."""
        with self._file.reading() as database:
            rows = database.execute(
                "SELECT repository_url FROM builds GROUP BY repository_url ORDER BY MAX(finished) DESC"
            ).fetchall()
        return [str(url) for (url,) in rows]

    def tag_history(self, reference: str) -> list[tuple[ImageID, datetime]]:
        """What a tag pointed to, the newest first, as far as Caisson moved it."""
        with self._file.reading() as database:
            rows = database.execute(
                "SELECT image_id, tagged FROM tags WHERE reference = ? ORDER BY tagged DESC", (reference,)
            ).fetchall()
        return [(ImageID(image_id), datetime.fromisoformat(tagged)) for image_id, tagged in rows]

    def tag_histories(self) -> dict[str, list[ImageID]]:
        """What every tag pointed to, the newest first, each image once."""
        with self._file.reading() as database:
            rows = database.execute("SELECT reference, image_id FROM tags ORDER BY tagged DESC").fetchall()
        histories: dict[str, dict[ImageID, None]] = {}
        for reference, image_id in rows:
            histories.setdefault(str(reference), {})[ImageID(image_id)] = None
        return {reference: list(images) for reference, images in histories.items()}
