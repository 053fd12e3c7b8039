"""A build's log: redacted, whole lines, in order, to a file at once and to a sink in batches.

Prefect's own logging costs 0.5 ms a message and loses its queue on SIGKILL; so lines go to it a hundred at a time, and
each is in the file before anything else sees it.

What programs say is held to a number of bytes for the whole build. What is beyond is left out, but for the last lines
of each step; the step itself goes on.

The file is locked as long as it is written: the kernel lets go of it when the writer dies, however that happens.
"""

from __future__ import annotations

import fcntl
import threading
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import TextIO

from caisson.redact import Redactor
from caisson.sizes import format_size
from caisson.untrusted import shorten

_BATCH_LINES = 100
# Prefect cuts a message after 1,000,000 bytes of JSON, in which a character has up to six (\u0000).
_BATCH_BYTES, _MOST_OF_A_CHARACTER = 400_000, 6
_BATCH_SECONDS = 0.5
_TAIL_LINES = 50
# The tail is part of each report, and with it of Prefect's database; a line can be megabytes of minified code.
_TAIL_CHARACTERS = 2_000
# What a line costs whatever is in it: its place in a message, and the time to mask it.
_LEAST_OF_A_LINE = 64
DEFAULT_MOST_BYTES = 64 << 20

Sink = Callable[[str], None]


class BuildLog:
    """Takes lines, writes them redacted to ``file`` and hands them in batches to the sink of the running step."""

    def __init__(self, file: Path, secrets: Iterable[str], *, most_bytes: int = DEFAULT_MOST_BYTES) -> None:
        """``most_bytes`` of what programs say are kept; a line counts for 64 of them at least."""
        file.parent.mkdir(parents=True, exist_ok=True)
        self.path = file
        self.redactor = Redactor(secrets)
        self._file: TextIO = file.open("a", encoding="utf-8", errors="replace")
        fcntl.flock(self._file, fcntl.LOCK_SH)
        self._lock = threading.Lock()
        self._pending: list[str] = []
        self._pending_bytes = 0
        self._tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self._most_bytes, self._said_bytes = most_bytes, 0
        self._left_out: deque[str] = deque(maxlen=_TAIL_LINES)
        self._unsaid = 0
        self.left_out = 0
        self._sink: Sink | None = None
        self._stop = threading.Event()
        self._flusher = threading.Thread(target=self._flush_regularly, name="build-log", daemon=True)
        self._flusher.start()

    def __enter__(self) -> BuildLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._flusher.join(timeout=5)
        self.attach(self._sink)
        self._file.close()

    def attach(self, sink: Sink | None) -> Sink | None:
        """Send what follows to another sink, after what is pending has gone to the old one; returns the old one."""
        self._end_of_program()
        self.flush()
        with self._lock:
            old, self._sink = self._sink, sink
        return old

    def line(self, text: str) -> None:
        """Add one line of Caisson's own; never raises for what is in it."""
        self._end_of_program()
        self._add(text)

    def said(self, text: str) -> None:
        """Add one line of what a program said; left out when programs have said too much."""
        cost = max(len(text.encode(errors="replace")), _LEAST_OF_A_LINE)
        if not self.left_out and self._said_bytes + cost <= self._most_bytes:
            self._said_bytes += cost
            self._add(text)
            return
        if not self.left_out:
            most = format_size(self._most_bytes)
            self._add(
                f"The log is full ({most}, CAISSON_LOG_BYTES): from here on it has only the last lines of each step. "
                "The build goes on."
            )
        with self._lock:
            self.left_out += 1
            self._unsaid += 1
            self._left_out.append(text)

    def lines(self, texts: Iterable[str]) -> None:
        """Add lines of what a program said."""
        for text in texts:
            self.said(text)

    def redact(self, text: str) -> str:
        """The text without secrets; for errors and reports."""
        return self.redactor.redact(text)

    def tail(self, lines: int = _TAIL_LINES) -> list[str]:
        """The last lines, each cut after 2,000 characters; the file has them whole."""
        with self._lock:
            return [*self._tail, *map(self._shown, self._left_out)][-lines:]

    def flush(self) -> None:
        with self._lock:
            batch, self._pending, self._pending_bytes = self._pending, [], 0
            self._file.flush()
            # Called under the lock, so that two flushes can't change the order.
            if batch and self._sink is not None:
                self._sink("\n".join(batch))

    def _add(self, text: str) -> None:
        clean = self.redactor.redact(text)
        with self._lock:
            self._file.write(f"{clean}\n")
            self._tail.append(shorten(clean, _TAIL_CHARACTERS))
            self._pending.append(clean)
            self._pending_bytes += len(clean) * (1 if clean.isascii() and clean.isprintable() else _MOST_OF_A_CHARACTER)
            full = len(self._pending) >= _BATCH_LINES or self._pending_bytes >= _BATCH_BYTES
        if full:
            self.flush()

    def _end_of_program(self) -> None:
        """Add the last of the lines that were left out, and how many there were before them."""
        with self._lock:
            if not self._unsaid:
                return
            last = [self._shown(text) for text in self._left_out]
            missing, self._unsaid = self._unsaid - len(last), 0
            self._left_out.clear()
        for text in (*((f"{missing:,} lines are left out here.",) if missing else ()), *last):
            self._add(text)

    def _shown(self, text: str) -> str:
        return shorten(self.redactor.redact(text), _TAIL_CHARACTERS)

    def _flush_regularly(self) -> None:
        while not self._stop.wait(_BATCH_SECONDS):
            self.flush()


def is_being_written(file: Path) -> bool:
    """Whether a ``BuildLog`` of any process has this file open; raises ``OSError`` where it can't be read."""
    with file.open("rb") as log:
        try:
            fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
