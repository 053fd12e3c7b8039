"""Steps that write without end: to their output, and to Docker's disk. The build's host outlives them."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from caisson.builder import find_builders
from caisson.disk import read_file_system
from caisson.docker_engine import DockerEngine
from caisson.errors import DiskTooFull
from caisson.report import BuildReport
from caisson.settings import load_settings
from tests.conftest import find_engines
from tests.engine.conftest import Builds
from tests.engine.network import EngineNetwork
from tests.engine.repositories import git_daemon
from tests.flows.caisson_host import wait_for
from tests.own_engine import OwnEngine, copy_image, own_engine

ADDRESS = "10.231.85.1"
MIB = 1 << 20
DISK_BYTES = 1024 * MIB


@pytest.fixture(params=["classic", "buildkit"])
def builder(request: pytest.FixtureRequest) -> str:
    return str(request.param)


# Far beyond every bound, and not without end: how much a busy engine passes on in a second is another thing.
@pytest.mark.parametrize("program", ["head -c 32M /dev/zero", "yes | head -c 32M"], ids=["a line", "lines"])
def test_a_step_that_prints_without_end_is_cut_in_the_log_and_the_build_goes_on(
    builds: Builds, builder: str, program: str
) -> None:
    bounded = builds.with_settings(log_bytes=MIB)
    repository = builds.repository(
        f"FROM debian:trixie-slim\nRUN {program}; echo; echo it-ended\nRUN echo the-next\n", name="endless"
    )
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    report = bounded(repository, builder=builder, no_cache=True)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 100 * 1024
    assert report.outcome == "built"
    _assert_cut(report, "the-next" if builder == "buildkit" else "it-ended")


def _assert_cut(report: BuildReport, last: str) -> None:
    log = Path(report.log_file).read_bytes()
    assert len(log) < 1.5 * MIB
    if b"[output clipped, log limit" in log and len(log) < MIB:
        # BuildKit's own limit came first: what has no end is one piece for it.
        assert any("clipped the log of a step" in note for note in report.notes)
    else:
        assert b"The log is full (1 MiB, CAISSON_LOG_BYTES)" in log
        assert any(note.startswith("The log is not whole: ") for note in report.notes)
    assert last.encode() in log
    assert b"removed" in log.splitlines()[-1]
    assert len(report.model_dump_json()) < MIB


@pytest.fixture(scope="module")
def small() -> Iterator[OwnEngine]:
    """An engine on a disk of its own."""
    with own_engine(ADDRESS, disk_bytes=DISK_BYTES) as own:
        copy_image("caisson-builder", find_engines()[0], own.host)
        yield own


@pytest.fixture
def on_small(small: OwnEngine, tmp_path: Path) -> Iterator[Builds]:
    settings = load_settings(
        _env_file=None,
        state_dir=tmp_path / "state",
        docker_host=small.host.docker_host,
        guard_dir=small.directory / "guard",
        min_free_bytes=64 * MIB,
        min_free_inodes=1000,
        timeout_minutes=3,
    )
    with (
        DockerEngine(small.host.docker_host) as engine,
        git_daemon(tmp_path / "git", ADDRESS, EngineNetwork(small.holder.pid)) as git,
    ):
        yield Builds(settings, engine, git)


@pytest.mark.parametrize(
    "fill",
    ["cat /dev/zero > /filled", "mkdir /filled && cd /filled && seq 1 10000000 | xargs touch"],
    ids=["bytes", "inodes"],
)
def test_a_step_that_fills_dockers_disk_is_ended_and_what_it_wrote_is_gone(
    on_small: Builds, small: OwnEngine, builder: str, fill: str
) -> None:
    before = read_file_system(small.data_root)
    repository = on_small.repository(f"FROM caisson-builder:latest\nUSER 0\nRUN {fill}\n", name="fills")
    with pytest.raises(DiskTooFull) as caught:
        on_small(repository, builder=builder, no_cache=True)
    assert "became critically full while the build ran" in caught.value.message
    assert caught.value.details["path"] == str(small.data_root)
    assert find_builders(on_small.engine) == []

    def is_freed() -> bool:
        now = read_file_system(small.data_root)
        return now.free_bytes > before.free_bytes - 64 * MIB and now.free_inodes > before.free_inodes - 5_000

    wait_for("what the step wrote is gone", is_freed, seconds=60)
