"""What a file or directory of this host is, as ``stat`` and ``access`` tell; what can't be told is a fact as well."""

from __future__ import annotations

import grp
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class FileFacts:
    """A file or directory; ``error`` where it can't be looked at."""

    path: str
    exists: bool = False
    kind: Literal["socket", "directory", "file", "other"] = "other"
    mode: int = 0
    uid: int = 0
    gid: int = 0
    group: str = ""
    readable: bool = False
    writable: bool = False
    size: int = 0
    error: str = ""


def read_file_facts(path: Path) -> FileFacts:
    """Look at it, through symlinks. Never raises."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return FileFacts(str(path), error="it does not exist")
    except OSError as error:
        return FileFacts(str(path), error=(error.strerror or str(error)).lower())
    mode = found.st_mode
    return FileFacts(
        path=str(path),
        exists=True,
        kind="socket"
        if stat.S_ISSOCK(mode)
        else "directory"
        if stat.S_ISDIR(mode)
        else "file"
        if stat.S_ISREG(mode)
        else "other",
        mode=stat.S_IMODE(mode),
        uid=found.st_uid,
        gid=found.st_gid,
        group=_group_name(found.st_gid),
        readable=os.access(path, os.R_OK),
        writable=os.access(path, os.R_OK | os.W_OK),
        size=found.st_size,
    )


def _group_name(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return ""
