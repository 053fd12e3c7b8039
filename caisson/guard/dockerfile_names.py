"""What the addresses of a name are, asked of this host's own resolver: ``Names``, for ``check_dockerfile``."""

from __future__ import annotations

import queue
import socket
import threading
import time
from collections.abc import Callable, Iterable
from typing import TypeVar

_KEPT_SECONDS = 60.0

T = TypeVar("T")
Ask = Callable[[str], tuple[str, ...]]


class Names:
    """A ``Resolver`` that remembers for a minute, and in each minute waits for ``seconds`` at most, all names together.

    Whoever wrote the Dockerfile chooses names and can own their DNS servers. A name that has not answered by then has
    no addresses. Threads may share it.
    """

    def __init__(
        self, seconds: float = 5.0, *, ask: Ask | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._seconds, self._ask, self._clock = seconds, ask or ask_host, clock
        self._lock = threading.Lock()
        self._answers: dict[str, tuple[str, ...]] = {}
        self._forgets = float("-inf")
        self._left = 0.0

    def __call__(self, name: str) -> tuple[str, ...]:
        """The addresses of a name; none if it has none, or has not told them in time."""
        with self._lock:
            now = self._clock()
            if now >= self._forgets:
                self._answers, self._left, self._forgets = {}, self._seconds, now + _KEPT_SECONDS
            if name not in self._answers:
                self._answers[name] = self._in_time(name)
                self._left -= self._clock() - now
            return self._answers[name]

    def known(self, name: str) -> tuple[str, ...] | None:
        """The same without waiting for anything; None: it has to be asked for."""
        # Without the lock, which is held while another name is waited for. In this order: both are replaced at once.
        forgets, answers = self._forgets, self._answers
        return answers.get(name) if self._clock() < forgets else None

    def _in_time(self, name: str) -> tuple[str, ...]:
        if self._left <= 0:
            return ()
        answers: queue.SimpleQueue[tuple[str, ...]] = queue.SimpleQueue()
        # The C library's own time-outs are far longer, and nothing ends its call.
        threading.Thread(target=lambda: answers.put(self._ask(name)), name=f"dns {name[:40]}", daemon=True).start()
        try:
            return answers.get(timeout=self._left)
        except queue.Empty:
            return ()


class Unasked(Exception):
    """A file can't be judged before ``names`` have been asked for. ``ask`` does that: it may wait, so that it is for a
    thread of its own; then the file is judged anew."""

    def __init__(self, names: Names, unknown: Iterable[str]) -> None:
        super().__init__("names have to be asked for first")
        self._names, self.unknown = names, tuple(dict.fromkeys(unknown))

    def ask(self) -> None:
        for name in self.unknown:
            self._names(name)


def unasked_in(check: Callable[[T], None], items: Iterable[T]) -> list[Unasked]:
    """What has to be asked for before all of the items can be judged; ``check`` raises it, or what ends it at once."""
    unasked = []
    for item in items:
        try:
            check(item)
        except Unasked as found:
            unasked.append(found)
    return unasked


def ask_host(name: str) -> tuple[str, ...]:
    """What the C library says, as an engine would ask it: hosts file, DNS, search domains."""
    try:
        found = socket.getaddrinfo(name.encode("ascii"), None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return ()
    return tuple(str(address[0]) for *_, address in found)
