"""What a path on this host really is: the thin, impure side of the mount policy."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

PathKind = Literal["directory", "file", "socket", "device", "other", "missing", "unreadable"]


@dataclass(frozen=True)
class Resolved:
    """A path without a symlink in it, and what is there. ``unreadable``: it can't be known."""

    path: str
    kind: PathKind


Resolver = Callable[[str], Resolved]
"""Takes an absolute path without NUL; never raises."""


def resolve_on_host(path: str) -> Resolved:
    """Follow every symlink of an absolute path on this host, ``/proc/self/root`` too.

    Right only where the engine sees the same files: at a unix socket, in the same mount namespace as this process.
    """
    real = os.path.realpath(path)
    try:
        mode = os.lstat(real).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return Resolved(real, "missing")
    except OSError:
        return Resolved(real, "unreadable")
    return Resolved(real, _kind(mode))


def resolve_for_engine(docker_socket: str, engine_socket: str) -> Resolver:
    """The resolver for an engine that sees its socket ``docker_socket`` at another path, ``engine_socket``.

    The operator has said that the two are one, so what is at the first is what is at the second. Every other path is
    resolved on this host.
    """

    def resolve(path: str) -> Resolved:
        if path == engine_socket != docker_socket:
            return Resolved(path, resolve_on_host(docker_socket).kind)
        return resolve_on_host(path)

    return resolve


def _kind(mode: int) -> PathKind:
    if stat.S_ISSOCK(mode):
        return "socket"
    if stat.S_ISDIR(mode):
        return "directory"
    if stat.S_ISREG(mode):
        return "file"
    if stat.S_ISBLK(mode) or stat.S_ISCHR(mode):
        return "device"
    return "other"
