"""Control groups, read from a tree like the kernel's: both versions."""

from __future__ import annotations

from pathlib import Path

import pytest

from caisson.cgroups import Cgroup, find_cgroup, read_limits


def _write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


@pytest.fixture
def v2(tmp_path: Path) -> Path:
    group = "sys/system.slice/docker-abc.scope"
    _write(
        tmp_path,
        {
            "proc/42/cgroup": "0::/system.slice/docker-abc.scope\n",
            f"{group}/memory.max": "1048576\n",
            f"{group}/memory.swap.max": "0\n",
            f"{group}/memory.events": "low 0\noom 1\noom_kill 2\n",
            f"{group}/pids.max": "64\n",
            f"{group}/pids.events": "max 1\n",
            f"{group}/cpu.max": "150000 100000\n",
        },
    )
    return tmp_path


@pytest.fixture
def v1(tmp_path: Path) -> Path:
    _write(
        tmp_path,
        {
            "proc/42/cgroup": "8:pids:/docker/abc\n4:memory:/docker/abc\n2:cpu,cpuacct:/docker/abc\n0::/\n",
            "sys/memory/docker/abc/memory.limit_in_bytes": "1048576\n",
            "sys/memory/docker/abc/memory.memsw.limit_in_bytes": "1048576\n",
            "sys/pids/docker/abc/pids.max": "64\n",
            "sys/pids/docker/abc/pids.events": "max 0\n",
            "sys/cpu,cpuacct/docker/abc/cpu.cfs_quota_us": "50000\n",
            "sys/cpu,cpuacct/docker/abc/cpu.cfs_period_us": "100000\n",
        },
    )
    return tmp_path


def test_version_2_limits_are_read_from_the_kernels_files(v2: Path) -> None:
    group = find_cgroup(42, proc=v2 / "proc", root=v2 / "sys")
    assert group is not None
    assert (group.version, group.path) == (2, "/system.slice/docker-abc.scope")
    limits = read_limits(group)
    assert (limits.memory, limits.memory_and_swap, limits.pids, limits.cpus) == (1 << 20, 1 << 20, 64, 1.5)


def test_version_1_limits_are_read_from_the_kernels_files(v1: Path) -> None:
    group = find_cgroup(42, proc=v1 / "proc", root=v1 / "sys")
    assert group is not None
    assert (group.version, group.path) == (1, "/docker/abc")
    limits = read_limits(group)
    assert (limits.memory, limits.memory_and_swap, limits.pids, limits.cpus) == (1 << 20, 1 << 20, 64, 0.5)


def test_no_limit_is_none_and_not_a_large_number(v1: Path, v2: Path) -> None:
    _write(v1, {"sys/memory/docker/abc/memory.limit_in_bytes": "9223372036854771712\n"})
    _write(v1, {"sys/cpu,cpuacct/docker/abc/cpu.cfs_quota_us": "-1\n", "sys/pids/docker/abc/pids.max": "max\n"})
    _write(v1, {"proc/42/cgroup": "8:pids:/docker/abc\n4:memory:/docker/abc\n2:cpu,cpuacct:/docker/abc\n0::/\n"})
    group = find_cgroup(42, proc=v1 / "proc", root=v1 / "sys")
    assert group is not None
    limits = read_limits(group)
    assert (limits.memory, limits.pids, limits.cpus) == (None, None, None)


@pytest.mark.parametrize("line", ["0::/\n", "4:memory:/\n", "", "rubbish\n"])
def test_the_root_group_is_never_taken_for_the_builders(v2: Path, line: str) -> None:
    _write(v2, {"proc/42/cgroup": line})
    assert find_cgroup(42, proc=v2 / "proc", root=v2 / "sys") is None


def test_a_process_that_is_gone_has_no_group(v2: Path) -> None:
    assert find_cgroup(43, proc=v2 / "proc", root=v2 / "sys") is None


@pytest.mark.parametrize(
    ("path", "held"),
    [("/caisson/a-0/b", True), ("/caisson/a-0", False), ("/caisson/a-01/b", False), ("/docker/b", False)],
)
def test_a_group_holds_what_is_below_it_and_nothing_else(path: str, held: bool) -> None:
    def group(path: str, version: int = 1) -> Cgroup:
        return Cgroup(version, path, Path(), Path(), Path())

    assert group("/caisson/a-0").holds(group(path)) == held
    assert not group("/caisson/a-0").holds(group(path, version=2))
