"""The control group that holds one build: ``/caisson/KEY-N``, made, limited, locked and removed by Caisson.

BuildKit takes ``--cgroup-parent`` into the cache key of a RUN step, so the group's name has to be the same from one
build of a repository to the next: KEY comes from the repository, N is the lowest that is free.

- A group belongs to one build: its holder has a lock (``flock``) on the directory itself, which ends with the process.
  Thus two Caissons on one host, with a state directory each, respect each other too.
- A group in which a process is left is not free: a builder may outlive its flow until its deadline.
- What is left in a group that nobody holds and that no container is in, the engine has lost: it was killed while
  BuildKit ran a step, which nobody else would ever end.
- A group is always made anew, so that no counter and no charge of another build is in it.
- Only who has the lock removes; of version 1's directories, the one with the lock goes last.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from caisson.cgroups import CGROUP_ROOT, CONTROLLERS, Cgroup, child_groups, find_cgroup, hierarchy
from caisson.engine import EngineInfo
from caisson.spec import Limits

PARENT = "caisson"
# More builds at once than a host has room for.
_MOST_GROUPS = 256
_ATTEMPTS = 20
_PERIOD_MICROSECONDS = 100_000
_LEAST_QUOTA_MICROSECONDS = 1_000
_TICK_SECONDS = 0.01
_EMPTY_SECONDS = 3.0
_CONTAINER = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class BuildGroup:
    """The group of one build; ``cgroup`` is None where there can be none, and ``reason`` says why."""

    cgroup: Cgroup | None
    reason: str = ""

    @property
    def path(self) -> str:
        """What the builder's container and its RUN steps get as their parent, empty for the engine's own choice."""
        return self.cgroup.path if self.cgroup else ""


def group_key(repository: str) -> str:
    """The part of a group's name that tells repositories apart, from a repository's canonical URL.

    >>> group_key("https://example.com/team/app")
    '80268c1f5ed9'
    """
    return hashlib.sha256(repository.encode()).hexdigest()[:12]


def why_no_group(engine: EngineInfo, *, root: Path = CGROUP_ROOT) -> str:
    """Why this process can't make groups that the engine would use; empty when it seems that it can."""
    if engine.cgroup_driver != "cgroupfs":
        return f"the engine's cgroup driver is {engine.cgroup_driver or 'none'}, not cgroupfs"
    tree = _Tree(root)
    if tree.version != engine.cgroup_version:
        return f"{root} has not the control groups that the engine uses (version {engine.cgroup_version})"
    unwritable = [str(base) for base in tree.limiting if not os.access(base, os.W_OK)]
    return f"{unwritable[0]} can't be written by this process" if unwritable else ""


def limit_files(version: int, limits: Limits) -> list[tuple[str, str, str]]:
    """What is written to hold a group to the limits: controller, file, text; in this order.

    The share of the processors is rounded as the engine rounds it: version 1 refuses a child that has more than its
    parent (kernel documentation, ``scheduler/sched-bwc.rst``).
    """
    quota = max(_LEAST_QUOTA_MICROSECONDS, int(limits.cpus * 1_000_000_000) * _PERIOD_MICROSECONDS // 1_000_000_000)
    if version == 1:
        return [
            ("memory", "memory.use_hierarchy", "1"),
            ("memory", "memory.limit_in_bytes", str(limits.memory)),
            ("memory", "memory.memsw.limit_in_bytes", str(limits.memory)),
            ("pids", "pids.max", str(limits.pids)),
            ("cpu", "cpu.cfs_period_us", str(_PERIOD_MICROSECONDS)),
            ("cpu", "cpu.cfs_quota_us", str(quota)),
        ]
    return [
        ("memory", "memory.max", str(limits.memory)),
        ("memory", "memory.swap.max", "0"),
        ("pids", "pids.max", str(limits.pids)),
        ("cpu", "cpu.max", f"{quota} {_PERIOD_MICROSECONDS}"),
    ]


# Without accounting for swap in the kernel there is no such file; a kernel of today has groups nested always.
_MAY_BE_MISSING = frozenset({"memory.use_hierarchy", "memory.memsw.limit_in_bytes", "memory.swap.max"})


@contextmanager
def hold_group(
    key: str, limits: Limits, engine: EngineInfo, *, root: Path = CGROUP_ROOT, parent: str = PARENT
) -> Iterator[BuildGroup]:
    """A new group with the limits, for as long as the block runs; one without ``cgroup`` where it can't be had.

    At the end the group is removed, once its last process is gone; if that takes too long, whoever finds it later
    removes it.
    """
    reason = why_no_group(engine, root=root)
    if reason:
        yield BuildGroup(None, reason)
        return
    tree = _Tree(root, parent)
    try:
        name, lock = _take_free(tree, key)
    except OSError as error:
        yield BuildGroup(None, f"no control group can be made below {root} ({error.strerror or error})")
        return
    try:
        try:
            tree.limit(name, limits)
        except OSError as error:
            yield BuildGroup(None, f"the limits can't be written to {tree.path(name)} ({error.strerror or error})")
        else:
            yield BuildGroup(tree.cgroup(name))
    finally:
        deadline = time.monotonic() + _EMPTY_SECONDS
        while not tree.remove(name) and time.monotonic() < deadline:
            time.sleep(_TICK_SECONDS)
        os.close(lock)


def remove_leftover_groups(*, root: Path = CGROUP_ROOT, parent: str = PARENT) -> list[str]:
    """Remove the groups that nobody holds and no process is in; returns their paths. Never raises ``OSError``.

    RUN steps that their engine has lost are ended before, and their group goes with the next look.
    """
    tree = _Tree(root, parent)
    removed: list[str] = []
    for name in tree.names():
        with contextlib.suppress(OSError):
            lock = _lock(tree.lockable(name))
            if lock is not None:
                try:
                    tree.end_lost_steps(name)
                    if tree.remove(name):
                        removed.append(tree.path(name))
                finally:
                    os.close(lock)
    return removed


def is_build_group(path: str, *, parent: str = PARENT) -> bool:
    """Whether a path is one of the groups that Caisson makes, or below one.

    >>> is_build_group("/caisson/80268c1f5ed9-0"), is_build_group("/docker"), is_build_group("")
    (True, False, False)
    """
    return path.startswith(f"/{parent}/")


def is_held(path: str, *, root: Path = CGROUP_ROOT, parent: str = PARENT) -> bool | None:
    """Whether a build holds the group with that path now; None where that can't be told.

    A group that is gone is held by nobody, but where there is none at all this may be the wrong place to look.
    """
    tree = _Tree(root, parent)
    name = path.removeprefix(f"/{parent}/")
    if not is_build_group(path, parent=parent) or "/" in name or not tree.lockable(name).parent.is_dir():
        return None
    try:
        lock = _lock(tree.lockable(name))
    except OSError:
        return None
    if lock is None:
        return tree.lockable(name).exists()
    os.close(lock)
    return False


def _take_free(tree: _Tree, key: str) -> tuple[str, int]:
    tree.make_parent()
    for number in range(_MOST_GROUPS):
        name = f"{key}-{number}"
        lock = _take(tree, name)
        if lock is not None:
            return name, lock
    raise OSError(f"all {_MOST_GROUPS} groups of the repository are in use")


def _take(tree: _Tree, name: str) -> int | None:
    """Make the group and lock it; None when it is another's, or has a process in it."""
    directory = tree.lockable(name)
    for _ in range(_ATTEMPTS):
        try:
            directory.mkdir()
            made = True
        except FileExistsError:
            made = False
        lock = _lock(directory)
        if lock is not None and made:
            return lock
        if lock is not None:
            removed = tree.remove(name)
            os.close(lock)
            if not removed:
                return None
        elif not made:
            return None
        # Made by us and locked by another: one who removes leftovers was quicker, and is done in a moment.
        elif directory.exists():
            time.sleep(_TICK_SECONDS)
    return None


def _lock(directory: Path) -> int | None:
    """A descriptor with the lock on a directory that is still there; None when another has it, or it is gone."""
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(descriptor), directory.stat()):
            return descriptor
    except (BlockingIOError, FileNotFoundError):
        pass
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None


class _Tree:
    """The directories of ``/caisson`` in the kernel's hierarchies: one for each controller, or one for all."""

    def __init__(self, root: Path, parent: str = PARENT) -> None:
        self._parent = parent
        self.version = 2 if (root / "cgroup.controllers").exists() else 1 if (root / "memory").is_dir() else 0
        if self.version == 1:
            # Docker makes its own directories in all of them, beside our three.
            self._bases = [base for base in sorted(root.iterdir()) if base.is_dir() and not base.is_symlink()]
            self._base = {controller: hierarchy(root, controller) for controller in CONTROLLERS}
        else:
            self._bases = [root]
            self._base = dict.fromkeys(CONTROLLERS, root)

    @property
    def limiting(self) -> list[Path]:
        """Where Caisson itself has to make directories."""
        return list(dict.fromkeys(self._base.values()))

    def path(self, name: str) -> str:
        return f"/{self._parent}/{name}"

    def lockable(self, name: str) -> Path:
        """The directory of a group that stands for the group."""
        return self._base["memory"] / self._parent / name

    def cgroup(self, name: str) -> Cgroup:
        directories = (self._base[controller] / self._parent / name for controller in CONTROLLERS)
        return Cgroup(self.version, self.path(name), *directories)

    def names(self) -> list[str]:
        try:
            return sorted(group.name for group in child_groups(self._base["memory"] / self._parent))
        except OSError:
            return []

    def make_parent(self) -> None:
        for base in self.limiting:
            directory = base / self._parent
            directory.mkdir(exist_ok=True)
            # Who can't open a directory can't hold the lock on it.
            directory.chmod(0o700)
            if self.version == 2:
                for above in (base, directory):
                    _enable_controllers(above)

    def limit(self, name: str, limits: Limits) -> None:
        for base in self.limiting:
            (base / self._parent / name).mkdir(exist_ok=True)
        for controller, file, text in limit_files(self.version, limits):
            path = self._base[controller] / self._parent / name / file
            if path.exists() or file not in _MAY_BE_MISSING:
                _write(path, text)

    def end_lost_steps(self, name: str) -> None:
        """End what is in a group that nobody holds, unless a container is in it: that has a deadline of its own."""
        groups = [group for group in _with_all_below(self.lockable(name)) if _has_process(group)]
        if any(_CONTAINER.fullmatch(part) for group in groups for part in group.parts):
            return
        for process in {int(pid) for group in groups for pid in (group / "cgroup.procs").read_text().split()}:
            self._end(process, self.cgroup(name))

    def _end(self, process: int, group: Cgroup) -> None:
        # One of another namespace of processes is called 0.
        if process <= 0:
            return
        with contextlib.suppress(ProcessLookupError):
            handle = os.pidfd_open(process)
            try:
                # Asked for once more by what can't be another's by now.
                own = find_cgroup(process)
                if own is not None and group.holds(own):
                    signal.pidfd_send_signal(handle, signal.SIGKILL)
            finally:
                os.close(handle)

    def remove(self, name: str) -> bool:
        """Remove the group with what is below it; False when a process is in it, or it can't be removed."""
        first = self.lockable(name)
        directories = [base / self._parent / name for base in self._bases]
        directories = [directory for directory in directories if directory != first] + [first]
        try:
            if any(_has_process(directory) for directory in _with_all_below(first)):
                return False
            for directory in directories:
                for group in _with_all_below(directory):
                    with contextlib.suppress(FileNotFoundError):
                        group.rmdir()
        except OSError:
            return False
        return True


def _enable_controllers(directory: Path) -> None:
    file = directory / "cgroup.subtree_control"
    missing = [controller for controller in CONTROLLERS if controller not in file.read_text().split()]
    if missing:
        _write(file, " ".join(f"+{controller}" for controller in missing))


def _write(file: Path, text: str) -> None:
    # Without O_CREAT: a file that the kernel doesn't have is an error, and never a new file.
    descriptor = os.open(file, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def _has_process(directory: Path) -> bool:
    return bool((directory / "cgroup.procs").read_text().strip())


def _with_all_below(directory: Path) -> list[Path]:
    """The group and all below it, children first; none when it is not there."""
    try:
        children = child_groups(directory)
    except FileNotFoundError:
        return []
    return [*(group for child in children for group in _with_all_below(child)), directory]
