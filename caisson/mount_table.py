"""The mounts of this host as the kernel lists them: ``/proc/self/mountinfo``, proc_pid_mountinfo(5)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

_TABLE = Path("/proc/self/mountinfo")
_ESCAPE = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True)
class Mount:
    """One mount: where it is, and the type of its file system."""

    path: str
    fs_type: str


def read_mounts(below: Iterable[str]) -> tuple[Mount, ...]:
    """The mounts strictly below these directories; none where the kernel tells none."""
    try:
        table = _TABLE.read_bytes().decode("utf-8", "surrogateescape")
    except OSError:
        return ()
    return tuple(parse_mounts(table, below))


def parse_mounts(table: str, below: Iterable[str]) -> Iterator[Mount]:
    """Those of a ``mountinfo`` that are strictly below one of the directories; what is no mount is passed over.

    >>> list(parse_mounts("36 35 98:0 / /d/a\\\\040b rw - ext4 /dev/x rw", ["/d"]))
    [Mount(path='/d/a b', fs_type='ext4')]
    """
    prefixes = tuple(f"{directory.rstrip('/')}/" for directory in below)
    for line in table.splitlines():
        fields, separator, source = line.partition(" - ")
        parts = fields.split(" ")
        if not separator or len(parts) < 5:
            continue
        path = _ESCAPE.sub(lambda match: chr(int(match[1], 8)), parts[4])
        if path.startswith(prefixes):
            yield Mount(path, source.partition(" ")[0])
