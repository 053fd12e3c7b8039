"""Ctrl-C and its kin while a command works: they cancel it or let it stop, and can't disturb its clean-up."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextlib.contextmanager
def signals_cancel(*, times: int = 1) -> Iterator[None]:
    """For the time of the block the first ``times`` signals raise ``KeyboardInterrupt``, and later ones nothing.

    What the caller had ignored (nohup, a shell's background job) stays ignored. For the main thread only.
    """
    left = times

    def handle() -> None:
        nonlocal left
        left -= 1
        if left >= 0:
            raise KeyboardInterrupt

    with _handled(handle):
        yield


@contextlib.contextmanager
def signals_stop(notice: str) -> Iterator[threading.Event]:
    """For the time of the block a signal sets the event, whatever runs goes on, and the first has ``notice`` said.

    Ignored signals and threads as in ``signals_cancel``.
    """
    stop = threading.Event()

    def handle() -> None:
        if not stop.is_set():
            stop.set()
            # Not by the stream: what was interrupted may be in the middle of a write to it.
            with contextlib.suppress(OSError, ValueError):
                os.write(sys.stderr.fileno(), f"{notice}\n".encode())

    with _handled(handle):
        yield stop


@contextlib.contextmanager
def _handled(handle: Callable[[], None]) -> Iterator[None]:
    def handler(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        handle()

    before = {number: signal.getsignal(number) for number in _SIGNALS}
    handled = [number for number, earlier in before.items() if earlier != signal.SIG_IGN]
    for number in handled:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number in handled:
            signal.signal(number, before[number])
