"""A small file on the disk that images fill, given up when that is full: an engine has to write before it can remove.

With overlay2 it writes the names that are left to a new file for each image that goes, so on a disk without a byte or
an inode it removes none at all. The reserve is one inode too.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

NAME = ".caisson-reserve"
_BYTES = 1 << 20
_TIMES_FREE = 16


@dataclass(frozen=True)
class DiskReserve:
    """The file in a directory of that disk. Where this user may not write there, there is none."""

    directory: Path

    @property
    def path(self) -> Path:
        return self.directory / NAME

    def keep(self) -> None:
        """Have it there where the disk has room."""
        with suppress(OSError):
            disk = os.statvfs(self.directory)
            if self.path.exists() or disk.f_bavail * disk.f_frsize < _TIMES_FREE * _BYTES:
                return
            descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                os.posix_fallocate(descriptor, 0, _BYTES)
            finally:
                os.close(descriptor)

    def give_up(self) -> bool:
        """Whether it was there, and has made room now."""
        try:
            self.path.unlink()
        except OSError:
            return False
        return True
