"""Locks between processes, on files (``flock``): the kernel gives them up when their holder ends, however it ends."""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_TICK_SECONDS = 0.1


@contextmanager
def locked(path: Path, *, shared: bool = False, waiting: Callable[[], None] | None = None) -> Iterator[int]:
    """Wait for the lock on a file, which is made if need be (mode 0600), and hold it; gives the file's descriptor.

    ``waiting`` is called ten times a second meanwhile, and gives up by raising. Raises ``OSError``.
    """
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    with _open(path) as descriptor:
        if waiting is None:
            fcntl.flock(descriptor, kind)
        else:
            _await(descriptor, kind, waiting)
        yield descriptor


@contextmanager
def locked_if_free(path: Path) -> Iterator[bool]:
    """Hold the lock on such a file if nobody has it, and tell whether that is so; never waits. Raises ``OSError``."""
    with _open(path) as descriptor:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def unlock(descriptor: int) -> None:
    """Give a lock up and close its file. Closing alone would leave it with a child that was forked meanwhile."""
    fcntl.flock(descriptor, fcntl.LOCK_UN)
    os.close(descriptor)


def _await(descriptor: int, kind: int, waiting: Callable[[], None]) -> None:
    failures: list[OSError] = []

    def wait() -> None:
        try:
            fcntl.flock(descriptor, kind)
        except OSError as error:
            failures.append(error)

    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        # Who asks again and again is overtaken by those who stand in the kernel's queue, and nothing but a signal ends
        # a wait in it. A thread that is given up gets the lock of a file that is closed, which frees it.
        thread = threading.Thread(target=wait, name="file-lock", daemon=True)
        thread.start()
        while thread.is_alive():
            waiting()
            thread.join(_TICK_SECONDS)
    if failures:
        raise failures[0]


@contextmanager
def _open(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        yield descriptor
    finally:
        unlock(descriptor)
