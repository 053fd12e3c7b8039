"""Control groups, as the kernel tells them: where a process is, and what its group limits.

Docker's own answers say what was asked for; only these files say what holds. Both hierarchies are read: version 1
(one directory per controller) and version 2 (one for all), kernel documentation ``admin-guide/cgroup-v1`` and
``cgroup-v2.rst``.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

CGROUP_ROOT = Path("/sys/fs/cgroup")
CONTROLLERS = ("memory", "pids", "cpu")
"""Those that limit a build."""
_UNLIMITED_V1 = 1 << 60


@dataclass(frozen=True)
class Cgroup:
    """One group: ``path`` is what the kernel and ``--cgroup-parent`` call it; the rest are directories."""

    version: int
    path: str
    memory: Path
    pids: Path
    cpu: Path

    def holds(self, other: Cgroup) -> bool:
        """Whether the other group is below this one, so that its processes are held to this one's limits."""
        return other.version == self.version and other.path.startswith(f"{self.path}/")


@dataclass(frozen=True)
class KernelLimits:
    """Limits read from the kernel; None where there is none. Bytes, bytes, processes, cores."""

    memory: int | None
    memory_and_swap: int | None
    pids: int | None
    cpus: float | None


def find_cgroup(pid: int, *, proc: Path = Path("/proc"), root: Path = CGROUP_ROOT) -> Cgroup | None:
    """The group of a process on this host; None when it can't be read (another host, a dead process)."""
    try:
        paths = group_paths((proc / str(pid) / "cgroup").read_text())
    except OSError:
        return None
    if "memory" in paths:
        directories = (hierarchy(root, name) / paths.get(name, "").lstrip("/") for name in CONTROLLERS)
        found = Cgroup(1, paths["memory"], *directories)
    elif paths.get(""):
        directory = root / paths[""].lstrip("/")
        found = Cgroup(2, paths[""], directory, directory, directory)
    else:
        return None
    # The root group limits nothing, and would take every process of the host for the builder's.
    return found if found.path.strip("/") and found.memory.is_dir() else None


def group_paths(text: str) -> dict[str, str]:
    """Controller → path, of the text of ``/proc/<pid>/cgroup``; version 2's one path has the controller ``""``.

    >>> group_paths("0::/user.slice"), group_paths("4:cpu,cpuacct:/a")
    ({'': '/user.slice'}, {'cpu': '/a', 'cpuacct': '/a'})
    """
    paths: dict[str, str] = {}
    for line in text.splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        for controller in controllers.split(","):
            paths[controller] = path
    return paths


def child_groups(directory: Path) -> list[Path]:
    """The groups right below a group; raises ``OSError``."""
    with os.scandir(directory) as entries:
        return [Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False)]


def hierarchy(root: Path, controller: str) -> Path:
    """Where a controller of version 1 is mounted: alone, or together with others as ``cpu`` is."""
    mounted = (
        [root / controller, root / "cpu,cpuacct", root / "cpuacct,cpu"] if controller == "cpu" else [root / controller]
    )
    return next((directory for directory in mounted if directory.is_dir()), mounted[0])


def read_limits(cgroup: Cgroup) -> KernelLimits:
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


def read_counter(file: Path, key: str) -> int:
    """The number after ``key`` in a file of such lines; 0 where there is none."""
    for line in _text(file).splitlines():
        name, _, value = line.partition(" ")
        if name == key and value.isdigit():
            return int(value)
    return 0
