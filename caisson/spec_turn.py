"""Who builds which commit and spec on this host: a second build of the same waits for the image of the first.

Only a build that runs knows its commit, where the request named a branch. As with leases (``caisson.leases``) whoever
builds holds the lock of a file, which the kernel gives up with its process: a dead one keeps nobody waiting.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from caisson.file_lock import unlock

_POLL_SECONDS = 0.2


class SpecTurn:
    """The turn of one build at its spec, from ``take`` until this is left; a context manager."""

    def __init__(self, directory: Path, holder: str) -> None:
        self._directory, self._holder = directory, holder
        self._descriptor: int | None = None
        self._path = directory

    def __enter__(self) -> SpecTurn:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._descriptor is not None:
            descriptor, self._descriptor = self._descriptor, None
            with suppress(OSError):
                self._path.unlink()
            unlock(descriptor)

    def take(self, spec_hash: str, *, patient: Callable[[float], bool], say: Callable[[str], None]) -> bool:
        """Wait until no other build of the spec is at work, as long as ``patient`` of the seconds waited; say for whom.

        False: another one still is, or this host has no place to know from. Either way the build may go on.
        """
        self._path = self._directory / f"{spec_hash}.lock"
        began, told = time.monotonic(), False
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            while not self._try():
                if not patient(time.monotonic() - began):
                    return False
                if not told:
                    say(f"waits: {self._who()} builds this commit and spec already; its image will do")
                    told = True
                time.sleep(_POLL_SECONDS)
        except OSError as error:
            say(f"builds of the same commit can't be told apart in {self._directory} ({error.strerror})")
            return False
        if told:
            say(f"waited {time.monotonic() - began:.1f} s for another build of this commit and spec")
        return True

    def _try(self) -> bool:
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Whoever had it before has removed the file: what is locked then is nobody's any more.
            is_current = self._path.stat().st_ino == os.fstat(descriptor).st_ino
        except (BlockingIOError, FileNotFoundError):
            is_current = False
        if not is_current:
            os.close(descriptor)
            return False
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, self._holder.encode(), 0)
        self._descriptor = descriptor
        return True

    def _who(self) -> str:
        try:
            return self._path.read_text(errors="replace")[:80] or "another build"
        except FileNotFoundError:
            return "another build"
