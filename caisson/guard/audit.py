"""The guard's audit: one line of JSON for each decision, before it is acted upon, and a bounded summary for the report.

Whatever a client sends, an entry keeps ``_MOST_TEXT`` letters of each text, and the summary ``MOST_DENIALS`` entries.
A log that an attacker can fill is bounded too: after ``most_lines`` lines nothing is decided any more but to deny.
"""

from __future__ import annotations

import json
import os
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from caisson.guard.verdict import Denied, Verdict

MOST_DENIALS = 200
"""So many denials are kept for the report; the file has all of them."""

_MOST_TEXT = 500

Event = Literal["decision", "end"]


@dataclass(frozen=True)
class Entry:
    """One decision, or the end of what was decided (then ``bytes_in`` and ``bytes_out`` are known)."""

    event: Event
    verdict: Verdict
    method: str = ""
    path: str = ""
    bytes_in: int = 0
    bytes_out: int = 0
    build: str = ""
    container: str = ""
    time: str = ""
    would_deny: bool = False
    """It was allowed only because denials are reported and not enforced."""

    def cut(self, time: str, build: str) -> Entry:
        """The entry of that time and build, with no more of each text than is kept."""
        verdict = replace(self.verdict, reason=self.verdict.reason[:_MOST_TEXT])
        method, path = self.method[:_MOST_TEXT], self.path[:_MOST_TEXT]
        return replace(self, verdict=verdict, method=method, path=path, time=time, build=build)

    def line(self) -> str:
        """The entry as JSON, without a line end."""
        document = {
            "time": self.time,
            "event": self.event,
            "build": self.build,
            "container": self.container,
            "method": self.method,
            "path": self.path,
            "rule": self.verdict.rule,
            "verdict": self.verdict.decision,
            "reason": self.verdict.reason,
            "bytes_in": self.bytes_in,
            "bytes_out": self.bytes_out,
        }
        return json.dumps({**document, "would_deny": True} if self.would_deny else document)


@dataclass(frozen=True)
class AuditSummary:
    """All decisions by verdict and rule, and the first denials, of which ``denied`` says how many there were."""

    counts: tuple[tuple[str, str, int], ...]
    denials: tuple[Entry, ...]
    denied: int


class Audit:
    """Writes entries to a file (mode 0600; None: to none) and counts them. Any thread; a context manager.

    Raises ``OSError`` where the file can't be opened.
    """

    def __init__(
        self,
        path: Path | None = None,
        *,
        build: str = "",
        most_lines: int = 20_000,
        echo: Callable[[Entry], None] | None = None,
    ) -> None:
        self._build, self._most_lines, self._echo = build, most_lines, echo
        self._lock = threading.Lock()
        self._lines = 0
        self._counts: Counter[tuple[str, str]] = Counter()
        self._denials: list[Entry] = []
        self._denied = 0
        self._fd = -1
        if path is not None:
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
            self._fd = os.open(path, flags, 0o600)
            os.fchmod(self._fd, 0o600)

    def __enter__(self) -> Audit:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; what is recorded later is only counted."""
        with self._lock:
            if self._fd >= 0:
                os.close(self._fd)
            self._fd = -1

    def record(self, entry: Entry) -> None:
        """Write one entry; raises ``Denied`` or ``OSError`` when it can't be: then what it allows must not happen."""
        entry = entry.cut(datetime.now(UTC).isoformat(timespec="milliseconds"), self._build)
        with self._lock:
            if entry.event == "decision":
                self._count(entry)
            self._lines += 1
            if self._lines > self._most_lines:
                raise Denied("audit-full", f"More than {self._most_lines} decisions were asked for in one build.")
            if self._fd >= 0:
                _write_whole(self._fd, f"{entry.line()}\n".encode())
        if self._echo is not None:
            self._echo(entry)

    def _count(self, entry: Entry) -> None:
        is_denial = not entry.verdict.allowed or entry.would_deny
        self._counts["deny" if is_denial else "allow", entry.verdict.rule] += 1
        if is_denial:
            self._denied += 1
            if len(self._denials) < MOST_DENIALS:
                self._denials.append(entry)

    def summary(self) -> AuditSummary:
        """What was decided until now."""
        with self._lock:
            counts = tuple((verdict, rule, count) for (verdict, rule), count in sorted(self._counts.items()))
            return AuditSummary(counts, tuple(self._denials), self._denied)


def _write_whole(fd: int, data: bytes) -> None:
    # One write, so that two processes that append to one file don't mix their lines.
    if os.write(fd, data) != len(data):
        raise OSError("the audit could not be written whole")
