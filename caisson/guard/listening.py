"""The guard's socket file: in a private directory, for its owner and one group, and gone when the guard is.

The name is made before the right to use it is given: the file is 0600 from its first moment on, then gets its group and
0660. A name whose process is dead refuses connections; it is removed by the next start.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

from caisson.errors import SettingsInvalid

SUFFIX = ".sock"
# sun_path, unix(7), without its NUL.
_LONGEST_PATH = 107
_BACKLOG = 64


@contextlib.contextmanager
def listening(path: Path, *, gid: int | None, private: bool = True) -> Iterator[socket.socket]:
    """A socket that listens at ``path``, 0660 with the group ``gid``; 0600 where that is None. At the end it is gone.

    With ``private`` its directory is made if need be, for its owner only, and refused when others may write to it; and
    sockets of dead processes are removed from it. Raises ``SettingsInvalid``.
    """
    if len(os.fsencode(path)) > _LONGEST_PATH:
        raise SettingsInvalid(f"guard: the path {path} is longer than the {_LONGEST_PATH} bytes of a socket's.")
    try:
        with _locked(path.parent, private=private):
            for file in path.parent.glob(f"*{SUFFIX}") if private else [path]:
                _remove_dead(file)
            listener, inode = _listen(path, gid)
    except OSError as error:
        raise SettingsInvalid(
            f"guard: the socket {path} can't be made ({error.strerror}).",
            hint="Give a path in a directory that belongs to Caisson's user, and the group of a builder.",
        ) from None
    try:
        yield listener
    finally:
        listener.close()
        # Only what is our own: another may have taken the name.
        with contextlib.suppress(OSError):
            if path.lstat().st_ino == inode:
                path.unlink()


def remove_dead_sockets(directory: Path) -> None:
    """Remove the sockets of guards that died without a chance to; living ones stay. Raises ``OSError``."""
    if directory.is_dir():
        with _locked(directory, private=True):
            for file in directory.glob(f"*{SUFFIX}"):
                _remove_dead(file)


@contextlib.contextmanager
def _locked(directory: Path, *, private: bool) -> Iterator[None]:
    """Hold the directory, so that nobody takes a socket that does not listen yet for a dead one."""
    if private:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        found = os.fstat(descriptor)
        if private and (found.st_uid != os.geteuid() or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)):
            raise SettingsInvalid(
                f"guard: the directory {directory} can be written to by others.",
                hint=f"Give one that belongs to Caisson's user alone: `chmod 700 {directory}`.",
            )
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _remove_dead(file: Path) -> None:
    try:
        if not stat.S_ISSOCK(file.lstat().st_mode):
            return
    except FileNotFoundError:
        return
    probe = socket.socket(socket.AF_UNIX)
    try:
        probe.setblocking(False)
        probe.connect(os.fspath(file))
    except ConnectionRefusedError:
        with contextlib.suppress(FileNotFoundError):
            file.unlink()
    except OSError as error:
        # A full backlog is a living one's; anything else is not ours to judge.
        if error.errno not in (errno.EAGAIN, errno.EACCES, errno.ENOENT, errno.EPROTOTYPE):
            raise
    finally:
        probe.close()


def _listen(path: Path, gid: int | None) -> tuple[socket.socket, int]:
    listener = socket.socket(socket.AF_UNIX)
    try:
        # The file gets the mode of the socket, as far as the umask lets it: no need to change that for all threads.
        os.fchmod(listener.fileno(), 0o600)
        listener.bind(os.fspath(path))
        inode = path.lstat().st_ino
        try:
            if gid is not None:
                os.chown(path, -1, gid, follow_symlinks=False)
            path.chmod(0o600 if gid is None else 0o660)
            listener.listen(_BACKLOG)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
    except BaseException:
        listener.close()
        raise
    listener.setblocking(False)
    return listener, inode
