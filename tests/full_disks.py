"""File systems that are full to the last byte or inode."""

from __future__ import annotations

import errno
import itertools
import os
from pathlib import Path

_AT_THE_END = 1 << 20


def fill(filler: Path, free: int) -> None:
    """Write a file until its file system refuses; ``free`` bytes are free now, and most are taken in one go."""
    with filler.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, free - _AT_THE_END)
        os.lseek(file.fileno(), 0, os.SEEK_END)
        try:
            while True:
                os.write(file.fileno(), b"x" * 4096)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise


def fill_inodes(directory: Path) -> None:
    """Make empty files until the file system refuses."""
    try:
        for number in itertools.count():
            os.mknod(directory / str(number))
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
