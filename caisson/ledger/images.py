"""What is remembered of each image: when it was first seen and last used, its names, and what of it never changes."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from caisson.engine import ImageID
from caisson.ledger.file import LedgerFile
from caisson.ledger.stamps import from_stamp, to_stamp

# An image that is gone for longer is new when it comes back.
_FORGET_AFTER = timedelta(days=90)


@dataclass(frozen=True)
class ImageFacts:
    """What an image ID stands for, whatever happens around it.

    ``layers`` are diff IDs, the base's first, ``layer_sizes`` their bytes.
    """

    layers: tuple[str, ...]
    layer_sizes: tuple[int, ...]
    labels: Mapping[str, str] = field(default_factory=dict)
    parent: str = ""

    def __post_init__(self) -> None:
        if len(self.layers) != len(self.layer_sizes):
            raise ValueError(f"{len(self.layers)} layers with {len(self.layer_sizes)} sizes; give one for each")


@dataclass(frozen=True)
class KnownImage:
    """One image as it was when it was last listed.

    ``names`` are its references then, ``registries`` the repositories that it was seen to be pulled from or pushed to.
    ``facts`` is None where it was never inspected.
    """

    id: ImageID
    first_seen: datetime
    last_used: datetime
    last_use: str
    last_listed: datetime
    names: tuple[str, ...] = ()
    registries: tuple[str, ...] = ()
    facts: ImageFacts | None = None


class Images:
    """The images of one engine. Each call is one transaction and raises ``LedgerUnusable``."""

    def __init__(self, file: LedgerFile) -> None:
        self._file = file

    def known(self) -> dict[ImageID, KnownImage]:
        """All that is remembered, also of images that are gone."""
        with self._file.reading() as database:
            rows = database.execute(
                "SELECT image_id, first_seen, last_used, last_use, last_listed, names, registries, facts FROM images"
            ).fetchall()
        return {ImageID(row[0]): _known(row) for row in rows}

    def touch(self, image_id: ImageID, used: datetime, how: str) -> None:
        """Record one use; an earlier one than the last changes nothing."""
        with self._file.writing() as database:
            touch(database, image_id, used, how)

    def record(self, images: Iterable[KnownImage], now: datetime) -> None:
        """Record a listing, and forget what has been gone for long. What is known of a use is never made older."""
        with self._file.writing() as database:
            record(database, images, now)


def touch(database: sqlite3.Connection, image_id: ImageID, used: datetime, how: str) -> None:
    """One use, within the caller's transaction."""
    stamp = to_stamp(used)
    database.execute(
        "INSERT INTO images VALUES (?, ?, ?, ?, ?, '[]', '[]', '') ON CONFLICT (image_id) DO UPDATE SET "
        "last_use = CASE WHEN excluded.last_used >= last_used THEN excluded.last_use ELSE last_use END, "
        "last_used = MAX(last_used, excluded.last_used), last_listed = MAX(last_listed, excluded.last_listed)",
        (image_id, stamp, stamp, how, stamp),
    )


def record(database: sqlite3.Connection, images: Iterable[KnownImage], now: datetime) -> None:
    """A listing, within the caller's transaction."""
    database.executemany(
        "INSERT INTO images VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (image_id) DO UPDATE SET "
        "last_use = CASE WHEN excluded.last_used >= last_used THEN excluded.last_use ELSE last_use END, "
        "first_seen = MAX(first_seen, excluded.first_seen), last_used = MAX(last_used, excluded.last_used), "
        "last_listed = MAX(last_listed, excluded.last_listed), names = excluded.names, "
        "registries = excluded.registries, facts = excluded.facts",
        [
            (
                image.id,
                to_stamp(image.first_seen),
                to_stamp(image.last_used),
                image.last_use,
                to_stamp(image.last_listed),
                json.dumps(image.names),
                json.dumps(image.registries),
                _facts_text(image.facts),
            )
            for image in images
        ],
    )
    database.execute("DELETE FROM images WHERE last_listed < ?", (to_stamp(now - _FORGET_AFTER),))


def _known(row: tuple[str, int, int, str, int, str, str, str]) -> KnownImage:
    image_id, first_seen, last_used, last_use, last_listed, names, registries, facts = row
    return KnownImage(
        id=ImageID(image_id),
        first_seen=from_stamp(first_seen),
        last_used=from_stamp(last_used),
        last_use=last_use,
        last_listed=from_stamp(last_listed),
        names=tuple(json.loads(names)),
        registries=tuple(json.loads(registries)),
        facts=_facts(facts),
    )


def _facts_text(facts: ImageFacts | None) -> str:
    if facts is None:
        return ""
    return json.dumps(
        {
            "layers": list(zip(facts.layers, facts.layer_sizes, strict=True)),
            "labels": dict(facts.labels),
            "parent": facts.parent,
        },
        separators=(",", ":"),
    )


def _facts(text: str) -> ImageFacts | None:
    if not text:
        return None
    value = json.loads(text)
    return ImageFacts(
        layers=tuple(diff_id for diff_id, _ in value["layers"]),
        layer_sizes=tuple(size for _, size in value["layers"]),
        labels=value["labels"],
        parent=value["parent"],
    )
