"""One look at the engine: what was on it and how far its events were replayed, recorded together or not at all."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType

from caisson.engine import ImageID
from caisson.ledger import images, services, volumes
from caisson.ledger.file import LedgerFile
from caisson.ledger.images import Inspected, KnownImage, Registries
from caisson.ledger.services import ServiceImage
from caisson.ledger.stamps import from_stamp, to_stamp
from caisson.ledger.volumes import KnownVolume

_NONE: Mapping[ImageID, frozenset[str]] = MappingProxyType({})


@dataclass(frozen=True)
class Position:
    """How far the engine was looked at.

    ``replayed`` is when its events were last read, ``anchor`` what tells the last of them from all others (empty when
    there was none), ``listed`` when its images were last listed.
    """

    replayed: datetime
    anchor: tuple[str, ...] = ()
    listed: datetime | None = None


class Observations:
    """Looks at the engine. Each call is one transaction and raises ``LedgerUnusable``.

    Uses and position are written in one: an event that was passed by is never one whose use was not recorded.
    """

    def __init__(self, file: LedgerFile) -> None:
        self._file = file

    def position(self) -> Position | None:
        """Where the last look ended; None before the first."""
        with self._file.reading() as database:
            row = database.execute("SELECT replayed, anchor, listed FROM engine_position").fetchone()
        if row is None:
            return None
        replayed, anchor, listed = row
        return Position(from_stamp(replayed), tuple(json.loads(anchor)), None if listed is None else from_stamp(listed))

    def record(
        self,
        listed: Iterable[KnownImage],
        inspected: Inspected,
        position: Position,
        now: datetime,
        *,
        registries: Registries = _NONE,
        known_volumes: Iterable[KnownVolume] = (),
        running: Iterable[tuple[str, ImageID]] = (),
        ran: Iterable[ServiceImage] = (),
    ) -> None:
        """A listing with all that it showed; ``running`` are services, each with an image that it runs.

        ``ran`` are those that ran since the last look, by the engine's events.
        """
        with self._file.writing() as database:
            images.record(database, listed, inspected, now)
            images.add_registries(database, registries, now)
            volumes.record(database, known_volumes, now)
            services.record(database, running, now, ran=ran)
            _put(database, position)

    def record_uses(
        self,
        uses: Mapping[ImageID, tuple[datetime, str]],
        position: Position,
        *,
        names: Mapping[ImageID, Collection[str]] = _NONE,
        registries: Registries = _NONE,
        used_volumes: Iterable[str] = (),
        ran: Iterable[ServiceImage] = (),
    ) -> None:
        """What events told between two listings, of images and volumes that are known.

        ``names`` are those that images were given: the engine names its images by them in later events.
        """
        with self._file.writing() as database:
            for image, (used, how) in uses.items():
                images.use(database, image, used, how)
            for image, given in names.items():
                images.add_names(database, image, given)
            images.add_registries(database, registries, position.replayed)
            for volume in used_volumes:
                volumes.use(database, volume, position.replayed)
            services.add(database, ran)
            _put(database, position)


def _put(database: sqlite3.Connection, position: Position) -> None:
    database.execute(
        "INSERT OR REPLACE INTO engine_position VALUES (1, ?, ?, ?)",
        (
            to_stamp(position.replayed),
            json.dumps(position.anchor),
            None if position.listed is None else to_stamp(position.listed),
        ),
    )
