"""Where a build's log is read from: its file on this host, else what Prefect has of it; each can be gone on with.

A position is a word that goes out as the ID of an event and comes back as ``Last-Event-ID``: ``f:BYTES`` in a file,
``p:MICROSECONDS:LOG-ID`` in Prefect's log.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

from caisson.ledger.stamps import from_stamp, to_stamp
from deployments.cli_remote import is_worth_showing
from deployments.prefect_pool import PrefectPool
from deployments.trigger import FINISHED, LogLine

MOST_BYTES = 64 << 10
"""Of a file in one event."""
_PAGE = 200
# Two processes log to one run, in batches of their own: a line may come in after a later one.
_HELD = timedelta(seconds=1.5)
_FILE = re.compile(r"f:(?P<bytes>[0-9]{1,15})")
_PREFECT = re.compile(r"p:(?P<stamp>[0-9]{1,17}):(?P<id>[0-9a-f-]{36})")


@dataclass(frozen=True)
class Piece:
    """Some whole lines of a log, without the last newline, and the position after them."""

    text: str
    position: str


class LogSource(Protocol):
    """A log that is read on from where the last piece ended. ``over``: nothing more can come."""

    def read(self, *, over: bool) -> Sequence[Piece]: ...

    @property
    def complete(self) -> bool:
        """Whether the log's own last word has been read; meaningful once the build is over."""
        ...


def file_offset(position: str) -> int:
    """The byte that a position in a file is; 0 for any other word.

    >>> file_offset("f:120"), file_offset("p:1"), file_offset("")
    (120, 0, 0)
    """
    match = _FILE.fullmatch(position)
    return int(match["bytes"]) if match else 0


def prefect_position(position: str) -> tuple[datetime, str] | None:
    """Time and ID of the log that a position in Prefect's log is; None for any other word."""
    match = _PREFECT.fullmatch(position)
    return (from_stamp(int(match["stamp"])), match["id"]) if match else None


class FileLog:
    """The file that the build writes on this host."""

    def __init__(self, path: Path, position: str = "") -> None:
        self._path = path
        self._offset = file_offset(position)
        self.complete = False

    def read(self, *, over: bool) -> list[Piece]:
        """What is there by now, up to the last whole line; raises ``OSError``."""
        pieces = []
        with self._path.open("rb") as log:
            log.seek(self._offset)
            while chunk := log.read(MOST_BYTES):
                whole = whole_lines(chunk, last=over and len(chunk) < MOST_BYTES)
                if not whole:
                    break
                self._offset += len(whole)
                log.seek(self._offset)
                text = whole.decode(errors="replace").removesuffix("\n")
                pieces.append(Piece(text, f"f:{self._offset}"))
        self.complete = over
        return pieces


def whole_lines(chunk: bytes, *, last: bool) -> bytes:
    """The part of it that is whole lines; all of it where it is the last, or one line that is longer than a chunk.

    >>> whole_lines(b"one\\ntw", last=False), whole_lines(b"one\\ntw", last=True), whole_lines(b"on", last=False)
    (b'one\\n', b'one\\ntw', b'')
    """
    if last:
        return chunk
    end = chunk.rfind(b"\n") + 1
    return chunk[:end] if end or len(chunk) < MOST_BYTES else chunk


class PrefectLog:
    """What Prefect has of a build's log: that of another host, or of a build that never began."""

    def __init__(
        self,
        prefect: PrefectPool,
        build_id: str,
        position: str = "",
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._prefect = prefect
        self._build_id = build_id
        self._after = prefect_position(position)
        self._clock = clock
        self.complete = False

    def read(self, *, over: bool) -> list[Piece]:
        """What has come in and is old enough to be in order, all of it once the build is over.

        Raises ``ServiceUnreachable``.
        """
        logs = self._fetch()
        self.complete = over and any(_is_last_word(log) for log in logs)
        until = datetime.max.replace(tzinfo=UTC) if over else self._clock() - _HELD
        found = []
        for moment, log_id, log in in_order(logs, self._after, until):
            self._after = (moment, log_id)
            line = LogLine(moment, log["level"], log["message"], by_step=bool(log.get("task_run_id")))
            if is_worth_showing(line):
                found.append(Piece(log["message"], f"p:{to_stamp(moment)}:{log_id}"))
        return found

    def _fetch(self) -> list[dict[str, Any]]:
        wanted: dict[str, Any] = {"flow_run_id": {"any_": [self._build_id]}}
        if self._after is not None:
            wanted["timestamp"] = {"after_": self._after[0].isoformat()}
        logs: list[dict[str, Any]] = []
        with self._prefect.api() as api:
            while True:
                page = api.post(
                    "/logs/filter", {"logs": wanted, "sort": "TIMESTAMP_ASC", "limit": _PAGE, "offset": len(logs)}
                )
                logs += page
                if len(page) < _PAGE:
                    return logs


def in_order(
    logs: Sequence[dict[str, Any]], after: tuple[datetime, str] | None, until: datetime
) -> list[tuple[datetime, str, dict[str, Any]]]:
    """Logs by time, then ID, those after a position and up to a time. One order for all readers, so that each can go
    on where it was."""
    keyed = [(datetime.fromisoformat(log["timestamp"]), str(log["id"]), log) for log in logs]
    wanted = [item for item in keyed if (after is None or item[:2] > after) and item[0] <= until]
    return sorted(wanted, key=lambda item: item[:2])


def _is_last_word(log: dict[str, Any]) -> bool:
    return log["name"] == "prefect.flow_runs" and str(log["message"]).startswith(FINISHED)
