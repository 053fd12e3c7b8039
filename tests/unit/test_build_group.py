"""A build's group, decided and written in a tree like the kernel's; the kernel itself is asked in the engine tests."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from caisson import build_group, builder
from caisson.build_group import hold_group, limit_files, remove_leftover_groups, why_no_group
from caisson.cgroups import Cgroup, KernelLimits, read_limits
from caisson.engine import ContainerID, ContainerInfo, Engine, EngineInfo
from caisson.plan import BuildIdentity, Socket, container_body
from caisson.settings import load_settings
from caisson.spec import Limits, make_spec, parse_request

LIMITS = Limits(cpus=1.5, memory=1 << 30, pids=64, workspace=1 << 20, timeout_seconds=60)
ENGINE = EngineInfo("26.1", "1.45", "overlay2", "cgroupfs", 2, "/var/lib/docker", (), 2, 1 << 30, False)
_GROUP_FILES = ("memory.max", "memory.swap.max", "pids.max", "cpu.max", "cgroup.procs", "cgroup.subtree_control")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tree of version 2 whose directories have their files from the start and take them along, as the kernel's do."""
    make = Path.mkdir

    def mkdir(self: Path, *arguments: Any, **options: Any) -> None:
        existed = self.exists()
        make(self, *arguments, **options)
        if not existed:
            for name in _GROUP_FILES:
                (self / name).write_text("")

    def rmdir(self: Path) -> None:
        if any(child.is_dir() for child in self.iterdir()):
            raise OSError("busy")
        shutil.rmtree(self)

    monkeypatch.setattr(Path, "mkdir", mkdir)
    monkeypatch.setattr(Path, "rmdir", rmdir)
    monkeypatch.setattr(build_group, "_EMPTY_SECONDS", 0.05)
    (tmp_path / "cgroup.controllers").write_text("cpuset cpu io memory pids\n")
    (tmp_path / "cgroup.subtree_control").write_text("memory\n")
    return tmp_path


def test_version_2_gives_the_controllers_on_and_gets_the_limits(root: Path) -> None:
    with hold_group("key", LIMITS, ENGINE, root=root) as group:
        assert group.cgroup is not None
        assert group.path == "/caisson/key-0"
        assert read_limits(group.cgroup) == KernelLimits(1 << 30, 1 << 30, 64, 1.5)
        # Only what is missing is asked for; the kernel keeps the rest.
        assert (root / "cgroup.subtree_control").read_text().startswith("+pids +cpu")
        assert (root / "caisson/cgroup.subtree_control").read_text() == "+memory +pids +cpu"
        assert (root / "caisson").stat().st_mode & 0o777 == 0o700
    assert not (root / "caisson/key-0").exists()


def test_a_group_with_a_process_in_it_is_neither_taken_nor_removed(root: Path) -> None:
    with hold_group("key", LIMITS, ENGINE, root=root):
        (root / "caisson/key-0/buildkit/step").mkdir(parents=True)
        (root / "caisson/key-0/buildkit/step/cgroup.procs").write_text("42\n")
    assert remove_leftover_groups(root=root) == []
    with hold_group("key", LIMITS, ENGINE, root=root) as group:
        assert group.path == "/caisson/key-1"
    (root / "caisson/key-0/buildkit/step/cgroup.procs").write_text("")
    assert remove_leftover_groups(root=root) == ["/caisson/key-0"]
    assert [child for child in (root / "caisson").iterdir() if child.is_dir()] == []


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"cgroup_driver": "systemd"}, "the engine's cgroup driver is systemd, not cgroupfs"),
        ({"cgroup_driver": ""}, "driver is none"),
        ({"cgroup_version": 1}, "has not the control groups that the engine uses (version 1)"),
    ],
)
def test_where_there_can_be_no_group_the_reason_is_told(root: Path, changes: dict[str, Any], says: str) -> None:
    engine = replace(ENGINE, **changes)
    assert says in why_no_group(engine, root=root)
    with hold_group("key", LIMITS, engine, root=root) as group:
        assert (group.cgroup, group.path) == (None, "")
        assert says in group.reason
    assert not (root / "caisson").exists()


def test_a_host_without_control_groups_has_no_group_and_nothing_left(tmp_path: Path) -> None:
    assert "has not the control groups" in why_no_group(ENGINE, root=tmp_path / "none")
    assert remove_leftover_groups(root=tmp_path / "none") == []


def test_who_may_not_write_has_no_group(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert why_no_group(ENGINE, root=root) == f"{root} can't be written by this process"


def test_a_kernel_that_does_not_take_the_limits_gets_no_build_in_the_group(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build_group, "limit_files", lambda *_: [("pids", "pids.none", "1")])
    with hold_group("key", LIMITS, ENGINE, root=root) as group:
        assert group.cgroup is None
        assert "can't be written" in group.reason
    assert not (root / "caisson/key-0").exists()


def test_an_error_of_the_build_is_never_taken_for_one_of_the_group(root: Path) -> None:
    with pytest.raises(OSError, match="of the build"), hold_group("key", LIMITS, ENGINE, root=root):
        raise OSError("of the build")
    assert not (root / "caisson/key-0").exists()


@pytest.mark.parametrize("cpus", [0.01, 0.29, 0.57, 1, 1.15, 2.3, 64])
def test_the_group_never_has_less_of_the_processors_than_its_builder_asks_for(cpus: float) -> None:
    # Version 1 would refuse the container.
    settings = load_settings(_env_file=None)
    request = {"repository_url": "https://h.example/a.git", "image": "a", "limits": {"cpus": cpus}}
    spec = make_spec(parse_request(request), settings)
    now = datetime(2030, 1, 1, tzinfo=UTC)
    identity = BuildIdentity("b", "", "", "", now)
    socket = Socket("/s", 1, on_this_host="/s")
    body = container_body(spec, identity, socket, settings, now=now, cgroup_parent="/caisson/a-0")
    assert body["HostConfig"]["CgroupParent"] == "/caisson/a-0"
    written = {file: text for _, file, text in limit_files(1, spec.limits)}
    assert int(written["cpu.cfs_quota_us"]) >= body["HostConfig"]["NanoCpus"] // 10_000
    assert limit_files(2, spec.limits)[-1][2] == f"{written['cpu.cfs_quota_us']} 100000"


def test_version_1_limits_memory_before_memory_and_swap() -> None:
    files = [file for _, file, _ in limit_files(1, LIMITS)]
    assert files.index("memory.limit_in_bytes") < files.index("memory.memsw.limit_in_bytes")


class _OneContainer(Engine):
    """An engine that says of its one container what a test wants to be said."""

    def start_container(self, container: ContainerID) -> None:
        pass

    def inspect_container(self, container: ContainerID | str) -> ContainerInfo | None:
        return ContainerInfo(ContainerID(container), "b", "running", {}, pid=42)


@pytest.mark.parametrize(
    ("path", "holds"),
    [
        ("/caisson/key-0/c0ffee", "/caisson/key-0"),
        ("/docker/c0ffee", "/docker/c0ffee"),
        ("/user.slice/another", None),
        (None, None),
    ],
)
def test_what_holds_a_builder_is_what_the_kernel_says(
    path: str | None, holds: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def group(path: str) -> Cgroup:
        return Cgroup(2, path, Path("/nowhere"), Path("/nowhere"), Path("/nowhere"))

    monkeypatch.setattr(builder, "find_cgroup", lambda _: group(path) if path else None)
    started = builder.start_builder(_OneContainer(), ContainerID("c0ffee"), group("/caisson/key-0"))
    assert (started.cgroup.path if started.cgroup else None) == holds
    assert (started.limits is None) == (holds is None)
