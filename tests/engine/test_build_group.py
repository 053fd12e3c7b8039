"""A build's own control group on real engines and the real kernel: stable from build to build, for one at a time."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from caisson import build_group
from caisson.build_group import group_key, hold_group, is_held, remove_leftover_groups
from caisson.cgroups import CGROUP_ROOT, KernelLimits, read_limits
from caisson.engine import Engine, EngineInfo
from caisson.errors import OutOfMemory
from caisson.git import parse_repository_url
from caisson.report import BuildReport
from caisson.spec import Limits
from tests.engine.conftest import Builds
from tests.engine.repositories import Repository

BASE = "FROM debian:trixie-slim\n"
LIMITS = Limits(cpus=0.29, memory=64 << 20, pids=64, workspace=1 << 20, timeout_seconds=60)
_SLEEPER = """
import sys, time
from caisson.build_group import hold_group
from tests.engine.test_build_group import LIMITS, this_kernel
with hold_group(sys.argv[1], LIMITS, this_kernel(), parent=sys.argv[2]) as group:
    print(group.path, flush=True)
    time.sleep(60)
"""


def this_kernel() -> EngineInfo:
    """An engine that uses the control groups of this host as they are."""
    version = 2 if (CGROUP_ROOT / "cgroup.controllers").exists() else 1
    return EngineInfo("26.1", "1.45", "overlay2", "cgroupfs", version, "/var/lib/docker", (), 2, 1 << 30, False)


@pytest.fixture
def parent() -> Iterator[str]:
    """The name of a group of this test's own in the place of ``/caisson``."""
    name = f"caisson-test-{uuid.uuid4().hex[:8]}"
    yield name
    for directory in _everywhere(name):
        directory.rmdir()


def _everywhere(path: str) -> list[Path]:
    """A group's directories in every hierarchy of this kernel."""
    return [
        directory for base in (CGROUP_ROOT, *CGROUP_ROOT.iterdir()) if (directory := base / path.strip("/")).is_dir()
    ]


def _until(condition: Callable[[], object], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_group_is_made_with_its_limits_and_is_gone_at_the_end(parent: str) -> None:
    with hold_group("key", LIMITS, this_kernel(), parent=parent) as group:
        assert group.cgroup is not None
        assert group.path == f"/{parent}/key-0"
        assert read_limits(group.cgroup) == KernelLimits(64 << 20, 64 << 20, 64, 0.29)
        assert _everywhere(group.path)
    assert _everywhere(group.path) == []


def test_builds_at_once_get_the_lowest_groups_that_are_free(parent: str) -> None:
    with hold_group("key", LIMITS, this_kernel(), parent=parent) as first:
        with (
            hold_group("key", LIMITS, this_kernel(), parent=parent) as second,
            hold_group("other", LIMITS, this_kernel(), parent=parent) as other,
        ):
            assert [group.path.rpartition("/")[2] for group in (first, second, other)] == ["key-0", "key-1", "other-0"]
            assert remove_leftover_groups(parent=parent) == []
        with hold_group("key", LIMITS, this_kernel(), parent=parent) as third:
            assert third.path == second.path


def test_however_many_ask_at_once_no_group_has_two_holders(parent: str) -> None:
    held: set[str] = set()
    twice: list[str] = []
    stop = threading.Event()

    def take() -> None:
        for _ in range(30):
            with hold_group("key", LIMITS, this_kernel(), parent=parent) as group:
                if group.path in held:
                    twice.append(group.path)
                held.add(group.path)
                assert group.cgroup is not None
                assert read_limits(group.cgroup).memory == LIMITS.memory
                held.remove(group.path)

    def clean() -> None:
        while not stop.is_set():
            remove_leftover_groups(parent=parent)

    threads = [threading.Thread(target=take) for _ in range(6)]
    cleaner = threading.Thread(target=clean)
    for thread in (cleaner, *threads):
        thread.start()
    for thread in threads:
        thread.join()
    stop.set()
    cleaner.join()
    assert twice == []
    assert held == set()


def _killed_holder(parent: str, below: str) -> tuple[str, subprocess.Popen[bytes]]:
    """The group that a killed holder left, and a process that lives on in it, in a group below."""
    holder = subprocess.Popen([sys.executable, "-c", _SLEEPER, "key", parent], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    path = holder.stdout.readline().strip()
    assert path == f"/{parent}/key-0"
    survivor = subprocess.Popen(["sleep", "60"])
    for directory in _everywhere(path):
        group = directory / below
        group.mkdir(parents=True)
        (group / "cgroup.procs").write_text(str(survivor.pid))
    assert remove_leftover_groups(parent=parent) == []
    assert survivor.poll() is None, "a group that is held is nobody else's"
    holder.kill()
    holder.wait()
    return path, survivor


def test_the_group_of_a_killed_holder_is_free_when_its_containers_last_process_is_gone(parent: str) -> None:
    path, survivor = _killed_holder(parent, "c0ffee42" * 8)
    try:
        assert remove_leftover_groups(parent=parent) == []
        with hold_group("key", LIMITS, this_kernel(), parent=parent) as next_group:
            assert next_group.path == f"/{parent}/key-1"
        assert survivor.poll() is None
    finally:
        survivor.kill()
        survivor.wait()
    _until(lambda: remove_leftover_groups(parent=parent) == [path])
    assert _everywhere(path) == []


def test_a_step_that_its_engine_has_lost_is_ended_when_nobody_holds_its_group(parent: str) -> None:
    path, survivor = _killed_holder(parent, "buildkit/step")
    try:
        assert is_held(path, parent=parent) is False
        _until(lambda: remove_leftover_groups(parent=parent) == [path])
        assert survivor.wait(5) == -signal.SIGKILL
    finally:
        survivor.kill()
        survivor.wait()
    assert _everywhere(path) == []


def test_whether_a_build_holds_a_group_can_be_asked_and_never_guessed(parent: str) -> None:
    assert is_held(f"/{parent}/key-0", parent=parent) is None
    with hold_group("key", LIMITS, this_kernel(), parent=parent) as group:
        assert is_held(group.path, parent=parent) is True
        assert [is_held(path, parent=parent) for path in ("", "/docker/key-0", f"{group.path}/step")] == [None] * 3
    assert is_held(group.path, parent=parent) is False


def test_a_group_that_was_left_is_made_anew_by_who_needs_it(parent: str) -> None:
    with hold_group("key", LIMITS, this_kernel(), parent=parent) as group:
        assert group.cgroup is not None
        lock = os.open(group.cgroup.memory, os.O_RDONLY)  # keeps the number of the directory from being used again
    group.cgroup.memory.mkdir()
    left = group.cgroup.memory.stat().st_ino
    with hold_group("key", LIMITS, this_kernel(), parent=parent) as again:
        assert again.cgroup is not None
        assert again.path == group.path
        assert again.cgroup.memory.stat().st_ino != left
    os.close(lock)


# --- builds


def _groups(repository: Repository) -> list[str]:
    key = group_key(parse_repository_url(repository.url, ["git"]).canonical())
    return sorted({group.name for parent in _everywhere("caisson") for group in parent.glob(f"{key}-*")})


@pytest.fixture(params=["classic", "buildkit"])
def builder(request: pytest.FixtureRequest, engine: Engine) -> str:
    """A builder of the engine that holds its steps; the same one where there is one only."""
    return str(request.param) if engine.info().api >= (1, 42) else "classic"


def test_an_unchanged_step_is_cached_in_the_next_builder_at_another_commit(builds: Builds, builder: str) -> None:
    unique = uuid.uuid4().hex
    repository = builds.repository(BASE + "COPY kept /kept\nRUN cat /kept\nCOPY new /new\n", kept=unique, new="1")
    first = builds(repository, builder=builder)
    repository.commit({"new": "2"})
    second = builds(repository, builder=builder)
    assert (first.outcome, second.outcome) == ("built", "built")
    assert (first.sha, first.build_id) != (second.sha, second.build_id)
    assert [_is_cached(report, "RUN cat /kept") for report in (first, second)] == [False, True]
    assert first.limits is not None
    assert first.limits.status == "verified"
    assert not [note for report in (first, second) for note in report.notes if "cached" in note]
    assert _groups(repository) == []


def _is_cached(report: BuildReport, instruction: str) -> bool:
    return next(step.cached for step in report.dockerfile_steps if step.name.endswith(instruction))


def test_two_builds_of_a_repository_at_once_have_a_limited_group_each(builds: Builds, builder: str) -> None:
    repository = builds.repository(BASE + "RUN sleep 4\n")
    reports: list[BuildReport] = []

    def build(number: int) -> None:
        limits = {"memory": f"{256 + number}m"}
        reports.append(
            builds(repository, builder=builder, no_cache=True, image=f"caisson-test/app{number}", limits=limits)
        )

    threads = [threading.Thread(target=build, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    _until(lambda: len(_groups(repository)) == 2)
    for thread in threads:
        thread.join()
    assert [report.limits.status for report in reports if report.limits] == ["verified", "verified"]
    assert {report.limits.memory for report in reports if report.limits} == {256 << 20, 257 << 20}
    assert _groups(repository) == []


def test_one_limit_holds_builder_and_steps_together(builds: Builds, builder: str) -> None:
    dockerfile = BASE + "RUN perl -e '$x .= qq(a) x 1_000_000 for 1..200'\n"
    small = builds.git.repository("small", {"Dockerfile": dockerfile})
    large = builds.git.repository("large", {"Dockerfile": dockerfile, "file": os.urandom(32 << 20)})
    assert builds(small, builder=builder, limits={"memory": "256m"}, no_cache=True).outcome == "built"
    with pytest.raises(OutOfMemory):
        builds(large, builder=builder, limits={"memory": "256m"}, no_cache=True)


def test_without_a_group_of_its_own_the_builders_holds_the_steps_and_the_report_says_what_that_costs(
    builds: Builds, builder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build_group, "why_no_group", lambda *_, **__: "this host is another")
    report = builds(builds.repository(BASE + "RUN sleep 0.2\n"), builder=builder, no_cache=True)
    assert report.limits is not None
    assert report.limits.status == "verified"
    told = "RUN steps are not cached between builds: this host is another." in report.notes
    assert told == (report.builder == "buildkit")


_KILLED = """
import sys
from tests.engine.test_build_group import run_one
run_one(*sys.argv[1:])
"""


def run_one(settings: str, repository: str, builder: str) -> None:
    """Build once, in a process that can be killed."""
    from caisson.settings import Settings
    from caisson.spec import parse_request
    from flows.build_image import as_function, run_build

    request = {"repository_url": repository, "image": "caisson-test/app", "builder": builder}
    run_build(parse_request(request), Settings.model_validate_json(settings), call=as_function)


def test_what_a_killed_build_leaves_is_no_ones_group_until_its_builder_is_gone(
    builds: Builds, engine: Engine, builder: str
) -> None:
    seconds = str(random.randrange(10**6, 10**7))
    repository = builds.repository(BASE + f"RUN echo {uuid.uuid4().hex}; sleep {seconds}\n")
    settings = builds.settings.model_dump_json()
    process = subprocess.Popen([sys.executable, "-c", _KILLED, settings, repository.url, builder])
    try:
        _until(lambda: _sleeps(seconds))
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    (group,) = _groups(repository)
    assert f"/caisson/{group}" not in remove_leftover_groups()
    assert _groups(repository) == [group]
    for container in engine.list_containers({"caisson.host": builds.settings.host_name}):
        found = engine.inspect_container(container.id)
        if found is not None and found.raw["HostConfig"]["CgroupParent"] == f"/caisson/{group}":
            engine.remove_container(container.id)
    _until(lambda: not _sleeps(seconds))
    _until(lambda: remove_leftover_groups() is not None and _groups(repository) == [])


def _sleeps(seconds: str) -> bool:
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                if (process / "cmdline").read_bytes() == f"sleep\x00{seconds}\x00".encode():
                    return True
            except OSError:
                continue
    return False
