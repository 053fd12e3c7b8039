"""Prunes on real engines in bad moments: killed, the engine gone, the disk full to the last byte or inode, many files,
and builds going on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from caisson import image_removal
from caisson.docker_engine import DockerEngine
from caisson.prune import apply_plan
from caisson.prune_report import ItemResult
from tests.engine.own_disks import (
    HOST_WIDE,
    LONG_AGO,
    MIB,
    UNDER_PRESSURE,
    Disk,
    family,
    low_at,
)
from tests.flows.caisson_host import wait_for
from tests.full_disks import fill, fill_inodes
from tests.image_archive import ArchiveImage, Layer

BUILDS = 4


def test_builds_with_both_builders_go_on_while_it_prunes(disk: Disk, buildx: tuple[Path, ...], tmp_path: Path) -> None:
    """Each build stands on a base that has had its time, and makes what shares layers with what goes."""
    disk.load(*family(30), ArchiveImage(("base:1",), [Layer("app-base-0", 4 * MIB)]))
    removed = threading.Event()

    def build(command: list[str], name: str) -> list[str]:
        outcomes = []
        env = {"DOCKER_HOST": disk.engine.host.docker_host, "HOME": str(tmp_path), "PATH": os.environ["PATH"]}
        env["DOCKER_BUILDKIT"] = "0"
        for number in range(BUILDS):
            context = tmp_path / f"{name}-{number}"
            context.mkdir()
            for step in range(4):
                (context / f"file{step}").write_bytes(os.urandom(100_000))
            steps = "".join(f"COPY file{step} /{name}{step}\n" for step in range(4))
            (context / "Dockerfile").write_text(f"FROM base:1\n{steps}")
            built = subprocess.run(
                [*command, "--tag", f"built-{name}:{number}", str(context)], env=env, capture_output=True, text=True
            )
            outcomes.append(built.stderr if built.returncode else "")
            # Some before the first removal, some while they go on.
            removed.wait(60)
        return outcomes

    builders = {"classic": ["docker", "build"], "buildkit": [str(buildx[0]), "build", "--provenance=false"]}
    with (
        disk.leases.hold("builds", ["base:1", "built-classic", "built-buildkit"], taken=disk.now),
        ThreadPoolExecutor() as pool,
    ):
        builds = [pool.submit(build, command, name) for name, command in builders.items()]
        view, plan = disk.plan(HOST_WIDE)
        report = apply_plan(view, plan, trigger="a test", on_result=lambda _: removed.set())
        removed.set()
        assert [build.result() for build in builds] == [[""] * BUILDS] * 2
    assert report.problem == ""
    assert report.counts == {"removed": 30}
    assert disk.tags == {"base:1", *(f"built-{name}:{number}" for name in builders for number in range(BUILDS))}


def test_it_is_finished_by_the_next_when_it_is_killed(disk: Disk) -> None:
    disk.load(*family(30))
    program = f"""
from pathlib import Path
from tests.engine.own_disks import *
engine = OwnEngine(Path({str(disk.engine.directory)!r}), "", None, (), {disk.engine.containerd_store})
connections = tuple(DockerEngine(engine.host.docker_host) for _ in range({len(disk.engines)}))
view, plan = (disk := Disk(engine, Path({str(disk.state)!r}), connections)).plan(HOST_WIDE)
tell = lambda result: print(result.outcome, result.rule, result.reason, flush=True)
apply_plan(view, plan, trigger="a test", on_result=tell)
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for _ in range(5):
            line = process.stdout.readline()
            assert line.startswith("removed "), line
        process.kill()
    left = len(disk.tags)
    assert 0 < left <= 25
    (unfinished,) = disk.ledger.prunes.list()
    assert unfinished.ended is None
    assert disk.prune(HOST_WIDE).counts == {"removed": left}
    assert disk.tags == set()


def test_an_engine_that_goes_away_ends_it_and_the_next_finishes_it(disk: Disk) -> None:
    disk.load(*family(15))
    view, plan = disk.plan(HOST_WIDE)
    seen: list[ItemResult] = []

    def stop_at_the_fourth(result: ItemResult) -> None:
        seen.append(result)
        if len(seen) == 4:
            disk.engine.stop(signal.SIGTERM)

    report = apply_plan(view, plan, trigger="a test", on_result=stop_at_the_fourth)
    assert report.ending == "stopped"
    assert "does not answer" in report.problem
    assert report.counts["removed"] == 4
    assert sum(report.counts.values()) == 15
    disk.engine.start()
    with ExitStack() as stack:
        docker = stack.enter_context(DockerEngine(disk.engine.host.docker_host))
        again = Disk(disk.engine, disk.state, (docker,))
        # Its events went with it, so that everything may have been used meanwhile: nothing goes.
        assert again.prune(HOST_WIDE).plan.items == ()
        # With the first event there is something by which the next look knows that it has missed none.
        left = min(again.tags)
        again.docker.tag_image(again.id(left), left)
        assert again.prune(HOST_WIDE).plan.items == ()
        again.now += LONG_AGO
        assert again.prune(HOST_WIDE).counts == {"removed": 11}


def test_a_disk_that_is_full_to_the_last_byte_is_freed(disk: Disk) -> None:
    disk.load(*family(20, size=2 * MIB))
    # With overlay2 the engine could not remove anything but for the reserve that an earlier prune has made.
    assert disk.prune(UNDER_PRESSURE).plan.items == ()
    filler = disk.engine.data_root / "filler"
    try:
        fill(filler, disk.usage.free_bytes)
        assert disk.usage.free_bytes < MIB
        report = disk.prune(UNDER_PRESSURE, low_at(40 * MIB))
        assert (report.ending, report.problem) == ("target-reached", "")
        assert set(report.counts) <= {"removed", "not-needed"}
        assert disk.usage.free_bytes >= 40 * MIB
        assert disk.tags, "it went on when there was enough"
    finally:
        filler.unlink()


def test_a_disk_without_inodes_is_freed_of_those_and_many_files_may_take_their_time(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """How many inodes an image has, only its removal tells: by bytes the small images have next to none."""
    disk.load(
        *(ArchiveImage((f"large{n}:1",), [Layer(f"large{n}", 20 * MIB)]) for n in range(2)),
        *(ArchiveImage((f"few{n}:1",), [Layer(f"few{n}", 1000 * 16, files=1000)]) for n in range(8)),
        ArchiveImage(("many:1",), [Layer("many", 60_000 * 16, files=60_000)]),
    )
    policy = UNDER_PRESSURE.model_copy(update={"keep": ("many",)})
    assert disk.prune(policy).plan.items == ()
    fillers = disk.engine.data_root / "fillers"
    fillers.mkdir()
    try:
        fill_inodes(fillers)
        assert disk.usage.free_inodes == 0
        report = disk.prune(policy, low_at(2, inodes=2500))
        assert (report.ending, report.problem) == ("target-reached", "")
        assert len(report.more_rounds) >= 1
        assert disk.usage.free_inodes >= 2500
        assert {f"few{n}:1" for n in range(8)} & disk.tags, "it went on when there were enough"
        # Shorter than it takes, so that its end is seen only by looking again.
        monkeypatch.setattr(image_removal, "REMOVAL_SECONDS", 0.05)
        inodes, began = disk.usage.free_inodes, time.monotonic()
        outcomes = {result.item.image.tags[0]: result.outcome for result in disk.prune(HOST_WIDE).results}  # type: ignore[union-attr]
        print(f"\n  an image of 60,000 files took {time.monotonic() - began:.1f} s to remove")
        if outcomes["many:1"] != "removed":
            monkeypatch.undo()
            disk.prune(HOST_WIDE)
        assert disk.tags == set()
        # The containerd store goes on with the files when its image is gone.
        wait_for("its inodes", lambda: disk.usage.free_inodes - inodes > 60_000, seconds=60)
    finally:
        for file in fillers.iterdir():
            file.unlink()
        fillers.rmdir()
