"""Ctrl-C and its kin while a build runs: they cancel the build, and can't disturb its clean-up."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextlib.contextmanager
def signals_cancel(*, times: int = 1) -> Iterator[None]:
    """For the time of the block the first ``times`` signals raise ``KeyboardInterrupt``, and later ones nothing.

    What the caller had ignored (nohup, a shell's background job) stays ignored. For the main thread only.
    """
    left = times

    def handle(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        nonlocal left
        left -= 1
        if left >= 0:
            raise KeyboardInterrupt

    before = {number: signal.getsignal(number) for number in _SIGNALS}
    handled = [number for number, handler in before.items() if handler != signal.SIG_IGN]
    for number in handled:
        signal.signal(number, handle)
    try:
        yield
    finally:
        for number in handled:
            signal.signal(number, before[number])
