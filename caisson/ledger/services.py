"""Which images were seen to run as what: the containers' services, each with the images that it ran."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import NamedTuple

from caisson.engine import ImageID
from caisson.ledger.file import LedgerFile
from caisson.ledger.stamps import from_stamp, to_stamp

# A service that was not seen to run for longer is none any more.
_FORGET_AFTER = timedelta(days=90)


class ServiceImage(NamedTuple):
    """A service, an image that it ran, and when it was last seen to run it."""

    service: str
    image: ImageID
    last_seen: datetime


class Services:
    """The services of one engine. Each call is one transaction and raises ``LedgerUnusable``."""

    def __init__(self, file: LedgerFile) -> None:
        self._file = file

    def list(self) -> list[ServiceImage]:
        """All that are remembered."""
        with self._file.reading() as database:
            rows = database.execute("SELECT service, image_id, last_seen FROM services").fetchall()
        return [ServiceImage(str(service), ImageID(image), from_stamp(seen)) for service, image, seen in rows]

    def names(self) -> frozenset[str]:
        """The services that are remembered."""
        with self._file.reading() as database:
            return frozenset(str(row[0]) for row in database.execute("SELECT DISTINCT service FROM services"))


def record(
    database: sqlite3.Connection,
    running: Iterable[tuple[str, ImageID]],
    now: datetime,
    *,
    ran: Iterable[ServiceImage] = (),
) -> None:
    """What runs now and what ``ran`` since the last look, within the caller's transaction.

    After the images', since those that are unknown are forgotten.
    """
    add(database, (*ran, *(ServiceImage(service, image, now) for service, image in running)))
    database.execute("DELETE FROM services WHERE image_id NOT IN (SELECT image_id FROM images)")
    database.execute(
        "DELETE FROM services WHERE service IN "
        "(SELECT service FROM services GROUP BY service HAVING MAX(last_seen) < ?)",
        (to_stamp(now - _FORGET_AFTER),),
    )


def add(database: sqlite3.Connection, ran: Iterable[ServiceImage]) -> None:
    """What was seen to have run, within the caller's transaction; an earlier time than the last changes nothing."""
    database.executemany(
        "INSERT INTO services VALUES (?, ?, ?) "
        "ON CONFLICT (service, image_id) DO UPDATE SET last_seen = MAX(last_seen, excluded.last_seen)",
        [(service, image, to_stamp(seen)) for service, image, seen in ran],
    )
