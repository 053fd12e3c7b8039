"""A build's log: redacted, whole lines, in order, to a file at once and to a sink in batches.

Prefect's own logging costs 0.5 ms a message and loses its queue on SIGKILL; so lines go to it a hundred at a time, and
each is in the file before anything else sees it.

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
from caisson.untrusted import shorten

_BATCH_LINES = 100
_BATCH_SECONDS = 0.5
_TAIL_LINES = 50
# The tail is part of each report, and with it of Prefect's database; a line can be megabytes of minified code.
_TAIL_CHARACTERS = 2_000

Sink = Callable[[str], None]


class BuildLog:
    """Takes lines, writes them redacted to ``file`` and hands them in batches to the sink of the running step."""

    def __init__(self, file: Path, secrets: Iterable[str]) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        self.path = file
        self._redactor = Redactor(secrets)
        self._file: TextIO = file.open("a", encoding="utf-8", errors="replace")
        fcntl.flock(self._file, fcntl.LOCK_SH)
        self._lock = threading.Lock()
        self._pending: list[str] = []
        self._tail: deque[str] = deque(maxlen=_TAIL_LINES)
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
        self.flush()
        self._file.close()

    def attach(self, sink: Sink | None) -> Sink | None:
        """Send what follows to another sink, after what is pending has gone to the old one; returns the old one."""
        self.flush()
        with self._lock:
            old, self._sink = self._sink, sink
        return old

    def line(self, text: str) -> None:
        """Add one line; never raises for what is in it."""
        clean = self._redactor.redact(text)
        with self._lock:
            self._file.write(f"{clean}\n")
            self._tail.append(shorten(clean, _TAIL_CHARACTERS))
            self._pending.append(clean)
            full = len(self._pending) >= _BATCH_LINES
        if full:
            self.flush()

    def lines(self, texts: Iterable[str]) -> None:
        for text in texts:
            self.line(text)

    def redact(self, text: str) -> str:
        """The text without secrets; for errors and reports."""
        return self._redactor.redact(text)

    def tail(self, lines: int = _TAIL_LINES) -> list[str]:
        """The last lines, each cut after 2,000 characters; the file has them whole."""
        with self._lock:
            return list(self._tail)[-lines:]

    def flush(self) -> None:
        with self._lock:
            batch, self._pending = self._pending, []
            self._file.flush()
            # Called under the lock, so that two flushes can't change the order.
            if batch and self._sink is not None:
                self._sink("\n".join(batch))

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
