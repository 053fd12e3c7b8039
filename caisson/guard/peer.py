"""Who is at the other end of a unix socket: the container of the process that connected.

``SO_PEERCRED`` (unix(7)) gives the process as it was when it connected, by its ID in this process's own namespace; the
kernel tells its control group, and that names the container: ``<parent>/<id>`` (cgroupfs) or ``docker-<id>.scope``
(systemd), on both hierarchies (admin-guide/cgroup-v1, cgroup-v2.rst).
"""

from __future__ import annotations

import os
import re
import socket
import struct
from pathlib import Path

from caisson.cgroups import group_paths

_CREDENTIALS = struct.Struct("=iII")
# The last part of the path alone: a group below a container's is that of a RUN step, which has no business here.
_CONTAINER = re.compile(r"(?:.*/)?(?:docker-(?P<scope>[0-9a-f]{64})\.scope|(?P<group>[0-9a-f]{64}))")
# Twelve controllers of version 1 with paths of PATH_MAX; what is cut off matches no container.
_MOST_BYTES = 64 << 10
_ID = re.compile(r"[0-9a-f]{64}")


def container_in(cgroup: str) -> str:
    """The container's ID from the text of ``/proc/<pid>/cgroup``; empty where it is of none, or of two.

    >>> container_in("0::/system.slice/docker-" + "a" * 64 + ".scope") == "a" * 64
    True
    >>> container_in("0::/user.slice/session-1.scope")
    ''
    """
    paths = group_paths(cgroup)
    # The memory controller's on version 1, the only one on version 2.
    match = _CONTAINER.fullmatch(paths.get("memory", paths.get("", "")))
    return (match["scope"] or match["group"]) if match else ""


def peer_process(connection: socket.socket) -> int:
    """The process that connected; 0 where it is in no namespace that this process sees."""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, _, _ = _CREDENTIALS.unpack(raw)
    return int(pid)


def peer_container(connection: socket.socket, proc: Path = Path("/proc")) -> str:
    """The container of the process that connected; empty where it is in none, or can't be told."""
    try:
        pid = peer_process(connection)
        if pid <= 0:
            return ""
        # Not Path.read_text: this is asked for each connection, and that takes three times as long.
        descriptor = os.open(f"{proc}/{pid}/cgroup", os.O_RDONLY | os.O_CLOEXEC)
        try:
            return container_in(os.read(descriptor, _MOST_BYTES).decode())
        finally:
            os.close(descriptor)
    except OSError:
        return ""


def is_container_id(text: str) -> bool:
    """Whether it is a whole container ID, as the engine gives it."""
    return _ID.fullmatch(text) is not None
