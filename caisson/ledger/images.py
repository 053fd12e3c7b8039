"""What is remembered of each image: when it was first seen and last used, its names, and what of it never changes."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from caisson.engine import ImageID
from caisson.ledger.file import LedgerFile
from caisson.ledger.stamps import from_stamp, to_stamp
from caisson.snapshot import ChainID, StoredLayer

Inspected = Mapping[ImageID, Sequence[StoredLayer]]
"""The layers of images that were inspected for the first time."""

Registries = Mapping[ImageID, Collection[str]]
"""The repositories that images were seen to be pulled from or pushed to."""

# An image that is gone for longer is new when it comes back.
_FORGET_AFTER = timedelta(days=90)


@dataclass(frozen=True)
class KnownImage:
    """One image as it was when it was last listed.

    ``names`` are its references then and those that it was given since. ``registries`` are the repositories that it was
    seen to be pulled from or pushed to. ``layers`` never change; None where the image was never inspected.
    """

    id: ImageID
    first_seen: datetime
    last_used: datetime
    last_use: str
    last_listed: datetime
    names: tuple[str, ...] = ()
    registries: tuple[str, ...] = ()
    layers: tuple[StoredLayer, ...] | None = None


class Images:
    """The images of one engine. Each call is one transaction and raises ``LedgerUnusable``."""

    def __init__(self, file: LedgerFile) -> None:
        self._file = file

    def known(self, *, layers: bool = True) -> dict[ImageID, KnownImage]:
        """All that is remembered, also of images that are gone; the layers, which are most of it, only if wanted."""
        with self._file.reading() as database:
            rows = database.execute(
                "SELECT images.image_id, first_seen, last_used, last_use, last_listed, names, registries, layers "
                "FROM images LEFT JOIN image_layers ON image_layers.image_id = images.image_id AND ?",
                (layers,),
            ).fetchall()
        # Images share most of their layers: one value for each.
        shared: dict[StoredLayer, StoredLayer] = {}
        return {ImageID(row[0]): _known(row, shared) for row in rows}

    def registries(self) -> dict[ImageID, set[str]]:
        """What events told of pulls and pushes, also of images that were not listed yet."""
        with self._file.reading() as database:
            rows = database.execute("SELECT image_id, repository FROM image_registries").fetchall()
        found: dict[ImageID, set[str]] = {}
        for image_id, repository in rows:
            found.setdefault(ImageID(image_id), set()).add(repository)
        return found

    def touch(self, image_id: ImageID, used: datetime, how: str) -> None:
        """Record one use; an earlier one than the last changes nothing."""
        with self._file.writing() as database:
            touch(database, image_id, used, how)

    def record(self, images: Iterable[KnownImage], inspected: Inspected, now: datetime) -> None:
        """Record a listing, and forget what has been gone for long. What is known of a use is never made older."""
        with self._file.writing() as database:
            record(database, images, inspected, now)


def touch(database: sqlite3.Connection, image_id: ImageID, used: datetime, how: str) -> None:
    """One use, within the caller's transaction."""
    stamp = to_stamp(used)
    database.execute(
        "INSERT INTO images VALUES (?, ?, ?, ?, ?, '[]', '[]') ON CONFLICT (image_id) DO UPDATE SET "
        "last_use = CASE WHEN excluded.last_used >= last_used THEN excluded.last_use ELSE last_use END, "
        "last_used = MAX(last_used, excluded.last_used), last_listed = MAX(last_listed, excluded.last_listed)",
        (image_id, stamp, stamp, how, stamp),
    )


def use(database: sqlite3.Connection, image_id: ImageID, used: datetime, how: str) -> None:
    """One use of an image that is known, within the caller's transaction; an earlier one changes nothing."""
    stamp = to_stamp(used)
    database.execute(
        "UPDATE images SET last_used = ?, last_use = ? WHERE image_id = ? AND last_used < ?",
        (stamp, how, image_id, stamp),
    )


def add_names(database: sqlite3.Connection, image_id: ImageID, names: Iterable[str]) -> None:
    """Names that a known image was given since it was listed, within the caller's transaction."""
    row = database.execute("SELECT names FROM images WHERE image_id = ?", (image_id,)).fetchone()
    if row is not None:
        every = dict.fromkeys((*json.loads(row[0]), *sorted(names)))
        database.execute("UPDATE images SET names = ? WHERE image_id = ?", (json.dumps(list(every)), image_id))


def add_registries(database: sqlite3.Connection, registries: Registries, now: datetime) -> None:
    """Pulls and pushes, within the caller's transaction."""
    database.executemany(
        "INSERT OR REPLACE INTO image_registries VALUES (?, ?, ?)",
        [(image_id, name, to_stamp(now)) for image_id, names in registries.items() for name in names],
    )


def record(database: sqlite3.Connection, images: Iterable[KnownImage], inspected: Inspected, now: datetime) -> None:
    """A listing, within the caller's transaction."""
    database.executemany(
        "INSERT INTO images VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (image_id) DO UPDATE SET "
        "last_use = CASE WHEN excluded.last_used >= last_used THEN excluded.last_use ELSE last_use END, "
        "first_seen = MAX(first_seen, excluded.first_seen), last_used = MAX(last_used, excluded.last_used), "
        "last_listed = MAX(last_listed, excluded.last_listed), names = excluded.names, "
        "registries = excluded.registries",
        [
            (
                image.id,
                to_stamp(image.first_seen),
                to_stamp(image.last_used),
                image.last_use,
                to_stamp(image.last_listed),
                json.dumps(image.names),
                json.dumps(image.registries),
            )
            for image in images
        ],
    )
    database.executemany(
        "INSERT OR REPLACE INTO image_layers VALUES (?, ?)",
        [(image_id, json.dumps(layers, separators=(",", ":"))) for image_id, layers in inspected.items()],
    )
    forgotten = (to_stamp(now - _FORGET_AFTER),)
    database.execute(
        "DELETE FROM image_layers WHERE image_id IN (SELECT image_id FROM images WHERE last_listed < ?)", forgotten
    )
    database.execute("DELETE FROM images WHERE last_listed < ?", forgotten)
    # What was listed since has it in ``registries``.
    database.execute("DELETE FROM image_registries WHERE seen < ?", forgotten)


def _known(
    row: tuple[str, int, int, str, int, str, str, str | None], shared: dict[StoredLayer, StoredLayer]
) -> KnownImage:
    image_id, first_seen, last_used, last_use, last_listed, names, registries, text = row
    layers = None
    if text is not None:
        read = (StoredLayer(ChainID(chain_id), size) for chain_id, size in json.loads(text))
        layers = tuple(shared.setdefault(layer, layer) for layer in read)
    return KnownImage(
        id=ImageID(image_id),
        first_seen=from_stamp(first_seen),
        last_used=from_stamp(last_used),
        last_use=last_use,
        last_listed=from_stamp(last_listed),
        names=tuple(json.loads(names)),
        registries=tuple(json.loads(registries)),
        layers=layers,
    )
