"""An engine that is stopped, or killed, while a build runs; and that is back again. What waits, and is tried anew."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from caisson.docker_engine import DockerEngine
from deployments.trigger import FlowRunId
from tests.conftest import find_engines
from tests.engine.network import EngineNetwork
from tests.engine.repositories import Repository, git_daemon
from tests.flows.caisson_host import CaissonHost, wait_for
from tests.own_engine import OwnEngine, copy_image, own_engine

ADDRESS = "10.231.79.1"
IMAGE = "caisson-flow/lost"
# It is on the engine anyway, and brings a shell.
BASE = "FROM caisson-builder:latest\n"
Hosts = Callable[[int], CaissonHost]
FINAL = ("Completed", "Failed", "Crashed", "Cancelled")


@pytest.fixture(scope="module")
def engine() -> Iterator[OwnEngine]:
    with own_engine(ADDRESS) as own:
        copy_image("caisson-builder", find_engines()[0], own.host)
        yield own


@pytest.fixture(scope="module")
def repository(engine: OwnEngine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Repository]:
    """Served where this engine's containers reach it."""
    with git_daemon(tmp_path_factory.mktemp("git"), ADDRESS, EngineNetwork(engine.holder.pid)) as git:
        yield git.repository("app")


@pytest.fixture(scope="module")
def hosts(engine: OwnEngine, caisson: CaissonHost, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    """A host whose builds are tried so many times."""
    with ExitStack() as stack:

        def host(attempts: int) -> CaissonHost:
            variables = {
                "CAISSON_DOCKER_HOST": engine.host.docker_host,
                "CAISSON_GUARD_DIR": f"{engine.directory}/guard",
                "CAISSON_MIN_FREE_BYTES": "64m",
                "CAISSON_POLL_SECONDS": "2",
                "CAISSON_BUILD_ATTEMPTS": str(attempts),
            }
            found = CaissonHost(tmp_path_factory.mktemp("lost"), f"lost-{attempts}-{os.getpid()}", variables)
            found.copy_database(caisson)
            found.up()
            stack.callback(found.stop)
            return found

        yield host


def _build(host: CaissonHost, repository: Repository, step: str) -> FlowRunId:
    repository.commit({"Dockerfile": BASE + step})
    return host.trigger("build-image", request={"repository_url": repository.url, "image": IMAGE})


def _build_that_sleeps(host: CaissonHost, repository: Repository, seconds: int) -> FlowRunId:
    """One whose RUN step has begun."""
    words = f"it-sleeps {host.name}"
    run = _build(host, repository, f"RUN echo {words} && sleep {seconds}\n")
    log = host.state_dir / "builds" / f"{run}.log"
    wait_for(words, lambda: log.exists() and words in log.read_text())
    return run


def _builders(engine: OwnEngine, run: FlowRunId) -> list[str]:
    with DockerEngine(engine.host.docker_host) as docker:
        return [container.name for container in docker.list_containers({"caisson.flow-run": str(run)})]


def test_a_build_that_loses_its_engine_says_so_and_what_comes_meanwhile_waits_until_that_is_back(
    hosts: Hosts, engine: OwnEngine, repository: Repository, capsys: pytest.CaptureFixture[str]
) -> None:
    host = hosts(1)
    run = _build_that_sleeps(host, repository, 600)
    began = time.monotonic()
    engine.stop(signal.SIGTERM)
    state = host.wait_for_state(run, *FINAL)
    lost = time.monotonic() - began
    assert state.state_name == "Failed"
    assert "EngineLost: The Docker engine went away while the build ran." in state.message
    following = _build(host, repository, "LABEL after=stop\n")
    reason = f"the Docker engine of host {host.name} does not answer"
    wait_for("it is held", lambda: f"Builds wait: {reason}" in host.logs())
    assert host.state(following).state_name in ("Scheduled", "Late")
    began = time.monotonic()
    engine.start()
    wait_for("no builder of the first is left", lambda: not _builders(engine, run), seconds=30)
    cleaned = time.monotonic() - began
    assert host.wait_for_state(following, *FINAL).state_name == "Completed"
    with capsys.disabled():
        print(f"\n  stopped: failed after {lost:.1f} s, back and clean {cleaned:.1f} s later")


def test_a_build_that_loses_its_engine_begins_anew_when_that_is_back(
    hosts: Hosts, engine: OwnEngine, repository: Repository, capsys: pytest.CaptureFixture[str]
) -> None:
    host = hosts(2)
    run = _build_that_sleeps(host, repository, 15)
    began = time.monotonic()
    engine.kill()
    engine.start()
    state = host.wait_for_state(run, *FINAL, seconds=150)
    assert state.state_name == "Completed", host.logs()
    report = json.loads((host.state_dir / "builds" / f"{run}.json").read_text())
    (note,) = [note for note in report["notes"] if note.startswith("Try 1 failed")]
    assert "The Docker engine went away while the build ran." in note
    wait_for("no builder is left", lambda: not _builders(engine, run), seconds=30)
    with capsys.disabled():
        print(f"\n  killed: built {time.monotonic() - began:.1f} s after the engine's end")
