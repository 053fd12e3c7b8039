"""A build is ended before it has filled Docker's disk, and told for what."""

from __future__ import annotations

import time
from typing import cast

from caisson.build_disk import BuildDisk
from caisson.disk import DiskUsage
from caisson.engine import ContainerID, Engine
from caisson.errors import BuildStepFailed, BuildTimedOut, CaissonError, DiskTooFull, EngineLost, EngineRefused

FULL = DiskUsage("/docker", 1 << 30, 1 << 20, 1000, 900)


class OneBuilder:
    def __init__(self, fails: CaissonError | None = None) -> None:
        self.removed: list[str] = []
        self.fails = fails

    def remove_container(self, container: str) -> bool:
        self.removed.append(container)
        if self.fails:
            raise self.fails
        return True


def _watched(engine: OneBuilder, *readings: DiskUsage | None) -> BuildDisk:
    left = iter(readings)
    with BuildDisk(cast(Engine, engine), ContainerID("builder"), lambda: next(left, None), poll_seconds=0.001) as disk:
        deadline = time.monotonic() + 5
        while not engine.removed and FULL in readings and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(0.02)
    return disk


def test_a_disk_with_room_ends_nothing_and_explains_nothing() -> None:
    engine, error = OneBuilder(), BuildStepFailed("It failed: no space left on device.")
    assert _watched(engine, None, None).explain(error) is error
    assert engine.removed == []


def test_a_critical_disk_ends_the_build_once_and_is_what_its_failure_means() -> None:
    engine = OneBuilder()
    disk = _watched(engine, None, FULL, FULL, FULL)
    assert engine.removed == ["builder"]
    meant = disk.explain(EngineLost("The builder is gone.", details={"builder_gone": True, "step": "RUN dd"}))
    assert type(meant) is DiskTooFull
    assert meant.message == (
        "Docker's disk at /docker became critically full while the build ran (1 MiB and 900 inodes free), so it was "
        "ended."
    )
    assert meant.details["step"] == "RUN dd"
    assert isinstance(disk.explain(BuildStepFailed("Exit code 1.")), DiskTooFull)


def test_a_timeout_stays_a_timeout() -> None:
    timed_out = BuildTimedOut("It took too long.")
    assert _watched(OneBuilder(), FULL).explain(timed_out) is timed_out


def test_a_builder_that_can_not_be_removed_is_left_to_the_clean_up() -> None:
    disk = _watched(OneBuilder(EngineRefused("It stays.")), FULL)
    assert isinstance(disk.explain(EngineLost("Gone.")), DiskTooFull)
