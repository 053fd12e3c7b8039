"""Locks between processes, on files (``flock``): the kernel gives them up when their holder ends, however it ends."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def locked(path: Path, *, shared: bool = False) -> Iterator[int]:
    """Wait for the lock on a file, which is made if need be (mode 0600), and hold it; gives the file's descriptor.

    Raises ``OSError``.
    """
    with _open(path) as descriptor:
        fcntl.flock(descriptor, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
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


@contextmanager
def _open(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        yield descriptor
    finally:
        unlock(descriptor)
