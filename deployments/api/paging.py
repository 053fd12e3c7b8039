"""Pages by keyset: a cursor says after which row the next page begins, so that new rows shift nothing. Pure."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

T = TypeVar("T")

_LONGEST = 8192


@dataclass(frozen=True)
class BuildCursor:
    """After the builds up to ``at``, the newest first, of which ``seen`` are those of that very moment."""

    at: datetime
    seen: tuple[str, ...]

    def dump(self) -> str:
        return _dump([self.at.isoformat(), list(self.seen)])

    @classmethod
    def parse(cls, text: str) -> BuildCursor:
        """The cursor that ``dump`` wrote; raises ``ValueError`` for anything else.

        >>> cursor = BuildCursor(datetime.fromisoformat("2026-05-01T12:00:00+00:00"), ("a",))
        >>> BuildCursor.parse(cursor.dump()) == cursor
        True
        """
        match _load(text):
            case [str(at), list(seen)] if all(isinstance(each, str) for each in seen):
                with suppress(ValueError):
                    moment = datetime.fromisoformat(at)
                    if moment.tzinfo is not None:
                        return cls(moment, tuple(seen))
        raise ValueError("is not a cursor of this list")


def next_cursor(rows: Iterable[tuple[datetime, str]], before: BuildCursor | None) -> BuildCursor | None:
    """The cursor after these rows, which came after ``before``; None after none.

    >>> noon = datetime.fromisoformat("2026-05-01T12:00:00+00:00")
    >>> next_cursor([(noon, "b")], BuildCursor(noon, ("a",))).seen
    ('a', 'b')
    """
    rows = list(rows)
    if not rows:
        return None
    last = rows[-1][0]
    seen = tuple(key for at, key in rows if at == last)
    if before is not None and before.at == last:
        seen = (*before.seen, *seen)
    return BuildCursor(last, seen)


def page_after(rows: list[T], key: Callable[[T], tuple[int, str]], cursor: str, limit: int) -> tuple[list[T], str]:
    """A page of rows that are in the order of their keys, and the cursor of the next one, empty after the last.

    Raises ``ValueError`` for what is no cursor.

    >>> page_after([(1, "a"), (2, "b"), (3, "c")], lambda row: row, "", 2)[0]
    [(1, 'a'), (2, 'b')]
    """
    if cursor:
        match _load(cursor):
            case [int(number), str(text)]:
                rows = [row for row in rows if key(row) > (number, text)]
            case _:
                raise ValueError("is not a cursor of this list")
    page = rows[:limit]
    return page, _dump(list(key(page[-1]))) if len(rows) > limit else ""


def _dump(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value, separators=(",", ":")).encode()).decode().rstrip("=")


def _load(text: str) -> object:
    try:
        padded = text[:_LONGEST] + "=" * (-len(text) % 4)
        return json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
    except (ValueError, binascii.Error, RecursionError):
        raise ValueError("is not a cursor of this list") from None
