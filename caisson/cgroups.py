"""The builder's control groups, as the kernel tells them: where they are, what they limit, what they saw.

Docker's own answers say what was asked for; only these files say what holds. Both hierarchies are read: version 1
(one directory per controller) and version 2 (one for all), kernel documentation ``admin-guide/cgroup-v1`` and
``cgroup-v2.rst``.
"""

from __future__ import annotations

import contextlib
import os
import threading
from dataclasses import dataclass
from pathlib import Path

_TICK_SECONDS = 0.02
_UNLIMITED_V1 = 1 << 60


@dataclass(frozen=True)
class BuilderCgroup:
    """The builder's group: ``path`` is what ``--cgroup-parent`` takes; the rest are directories."""

    version: int
    path: str
    memory: Path
    pids: Path
    cpu: Path


@dataclass(frozen=True)
class KernelLimits:
    """Limits read from the kernel; None where there is none. Bytes, bytes, processes, cores."""

    memory: int | None
    memory_and_swap: int | None
    pids: int | None
    cpus: float | None


@dataclass(frozen=True)
class CgroupEvidence:
    """What the kernel saw in the builder's group and the groups below it while the build ran."""

    nested: tuple[str, ...] = ()
    oom_kills: int = 0
    pids_refused: int = 0


def find_cgroup(pid: int, *, proc: Path = Path("/proc"), root: Path = Path("/sys/fs/cgroup")) -> BuilderCgroup | None:
    """The group of a process on this host; None when it can't be read (another host, a dead process)."""
    try:
        lines = (proc / str(pid) / "cgroup").read_text().splitlines()
    except OSError:
        return None
    paths: dict[str, str] = {}
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        for controller in controllers.split(","):
            paths[controller] = path
    if "memory" in paths:
        found = BuilderCgroup(
            1,
            paths["memory"],
            *(_v1_directory(root, name, paths.get(name, "")) for name in ("memory", "pids", "cpu")),
        )
    elif paths.get(""):
        directory = root / paths[""].lstrip("/")
        found = BuilderCgroup(2, paths[""], directory, directory, directory)
    else:
        return None
    # The root group limits nothing, and would take every process of the host for the builder's.
    return found if found.path.strip("/") and found.memory.is_dir() else None


def _v1_directory(root: Path, controller: str, path: str) -> Path:
    mounted = (
        [root / controller, root / "cpu,cpuacct", root / "cpuacct,cpu"] if controller == "cpu" else [root / controller]
    )
    base = next((directory for directory in mounted if directory.is_dir()), mounted[0])
    return base / path.lstrip("/")


def read_limits(cgroup: BuilderCgroup) -> KernelLimits:
    """The limits that hold for the group now; a file that can't be read counts as no limit."""
    if cgroup.version == 1:
        quota, period = _number(cgroup.cpu / "cpu.cfs_quota_us"), _number(cgroup.cpu / "cpu.cfs_period_us")
        return KernelLimits(
            memory=_limited(_number(cgroup.memory / "memory.limit_in_bytes")),
            memory_and_swap=_limited(_number(cgroup.memory / "memory.memsw.limit_in_bytes")),
            pids=_number(cgroup.pids / "pids.max"),
            cpus=quota / period if quota and period and quota > 0 else None,
        )
    memory, swap = _number(cgroup.memory / "memory.max"), _number(cgroup.memory / "memory.swap.max")
    quota_text, _, period_text = _text(cgroup.cpu / "cpu.max").partition(" ")
    return KernelLimits(
        memory=memory,
        memory_and_swap=memory + swap if memory is not None and swap is not None else None,
        pids=_number(cgroup.pids / "pids.max"),
        cpus=int(quota_text) / int(period_text) if quota_text.isdigit() and period_text.isdigit() else None,
    )


def _limited(value: int | None) -> int | None:
    return None if value is None or value >= _UNLIMITED_V1 else value


def _text(file: Path) -> str:
    try:
        return file.read_text().strip()
    except OSError:
        return ""


def _number(file: Path) -> int | None:
    text = _text(file)
    return int(text) if text.lstrip("-").isdigit() else None


def _key(file: Path, key: str) -> int:
    for line in _text(file).splitlines():
        name, _, value = line.partition(" ")
        if name == key and value.isdigit():
            return int(value)
    return 0


class CgroupWatch:
    """Watches a builder's group while a build runs; a context manager.

    Groups below the builder's are those of RUN steps: seeing one is the proof that steps are held. Out of memory is
    counted by the kernel (an eventfd on ``memory.oom_control`` in version 1, ``memory.events`` in version 2).
    """

    def __init__(self, cgroup: BuilderCgroup) -> None:
        self._cgroup = cgroup
        self._nested: dict[str, None] = {}
        self._pids_refused: dict[str, int] = {}
        self._oom_before = self._oom_counter()
        self._pids_before = _key(cgroup.pids / "pids.events", "max")
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="cgroup-watch", daemon=True)
        self._eventfd = -1
        self._oom_seen = 0

    def __enter__(self) -> CgroupWatch:
        if self._cgroup.version == 1:
            self._eventfd = self._subscribe_oom()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(timeout=5)
        if self._eventfd >= 0:
            os.close(self._eventfd)
            self._eventfd = -1

    def evidence(self) -> CgroupEvidence:
        """What was seen until now; to be asked before the builder is removed."""
        self._sample()
        own = _key(self._cgroup.pids / "pids.events", "max") - self._pids_before
        return CgroupEvidence(
            nested=tuple(name for name in self._nested if not self._is_parent(name)),
            oom_kills=self._oom_events(),
            pids_refused=max(0, own) if self._cgroup.version == 2 else max(0, own) + sum(self._pids_refused.values()),
        )

    def _is_parent(self, name: str) -> bool:
        # BuildKit puts the groups of its steps into one of its own, which stays when they are gone.
        return any(other.startswith(f"{name}/") for other in self._nested)

    def _run(self) -> None:
        while not self._stop.wait(_TICK_SECONDS):
            self._sample()

    def _sample(self) -> None:
        for _, below in _below(self._cgroup.memory, depth=2):
            self._nested.setdefault(below)
        if self._cgroup.version == 1:
            # Version 1 counts a refused fork in the group that forked, which is gone with its step.
            for directory, below in _below(self._cgroup.pids, depth=2):
                refused = _key(directory / "pids.events", "max")
                if refused:
                    self._pids_refused[below] = refused

    def _subscribe_oom(self) -> int:
        descriptor = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        try:
            with (self._cgroup.memory / "memory.oom_control").open("rb") as control:
                (self._cgroup.memory / "cgroup.event_control").write_text(f"{descriptor} {control.fileno()}")
        except OSError:
            os.close(descriptor)
            return -1
        return descriptor

    def _oom_counter(self) -> int:
        file = "memory.events" if self._cgroup.version == 2 else "memory.oom_control"
        return _key(self._cgroup.memory / file, "oom_kill")

    def _oom_events(self) -> int:
        events = max(0, self._oom_counter() - self._oom_before)
        if self._eventfd >= 0:
            with contextlib.suppress(BlockingIOError):
                self._oom_seen += os.eventfd_read(self._eventfd)
            events = max(events, self._oom_seen)
        return events


def _below(directory: Path, depth: int) -> list[tuple[Path, str]]:
    found: list[tuple[Path, str]] = []
    try:
        with os.scandir(directory) as entries:
            children = [Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return found
    for child in children:
        found.append((child, child.name))
        if depth > 1:
            found.extend((path, f"{child.name}/{name}") for path, name in _below(child, depth - 1))
    return found
