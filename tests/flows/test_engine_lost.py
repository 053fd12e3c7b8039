"""An engine that is stopped, or killed, while a build runs; and that is back again."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator

import pytest

from caisson.docker_engine import DockerEngine
from deployments.tether import tethered
from tests.conftest import find_engines
from tests.engine.repositories import Repository, git
from tests.flows.caisson_host import CaissonHost, free_port, wait_for
from tests.own_engine import OwnEngine, copy_image, own_engine

ADDRESS = "10.231.79.1"
IMAGE = "caisson-test/lost"
# It is on the engine anyway, and brings a shell.
BASE = "FROM caisson-builder:latest\n"
FINAL = ("Completed", "Failed", "Crashed", "Cancelled")


@pytest.fixture(scope="module")
def engine() -> Iterator[OwnEngine]:
    with own_engine(ADDRESS) as own:
        copy_image("caisson-builder", find_engines()[0], own.host)
        yield own


@pytest.fixture(scope="module")
def repository(engine: OwnEngine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Repository]:
    """Served where this engine's containers reach it."""
    root, port = tmp_path_factory.mktemp("git"), free_port()
    directory = root / "app"
    directory.mkdir()
    git(directory, "init", "--quiet", "--initial-branch=main")
    options = ["--reuseaddr", "--export-all", f"--base-path={root}", f"--listen={ADDRESS}", f"--port={port}"]
    with subprocess.Popen(tethered(engine.inside("git", "daemon", *options)), stderr=subprocess.DEVNULL) as daemon:
        yield Repository(directory, f"git://{ADDRESS}:{port}/app/.git")
        daemon.kill()


@pytest.fixture(scope="module")
def host(engine: OwnEngine, caisson: CaissonHost, tmp_path_factory: pytest.TempPathFactory) -> Iterator[CaissonHost]:
    variables = {
        "CAISSON_DOCKER_HOST": engine.host.docker_host,
        "CAISSON_GUARD_DIR": f"{engine.directory}/guard",
        "CAISSON_MIN_FREE_BYTES": "64m",
        "CAISSON_POLL_SECONDS": "2",
        # What a build says that is not tried again.
        "CAISSON_BUILD_ATTEMPTS": "1",
    }
    host = CaissonHost(tmp_path_factory.mktemp("lost"), f"lost-{os.getpid()}", variables)
    host.copy_database(caisson)
    host.up()
    yield host
    host.stop()


def _builders(engine: OwnEngine) -> list[str]:
    with DockerEngine(engine.host.docker_host) as docker:
        return [container.name for container in docker.list_containers({"caisson.build": None})]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name)
def test_a_build_that_loses_its_engine_says_so_and_is_cleaned_up_when_that_is_back(
    number: signal.Signals,
    host: CaissonHost,
    engine: OwnEngine,
    repository: Repository,
    capsys: pytest.CaptureFixture[str],
) -> None:
    repository.commit({"Dockerfile": f"{BASE}RUN echo it-sleeps {number} && sleep 600\n"})
    request = {"repository_url": repository.url, "image": IMAGE}
    run = host.trigger("build-image", request=request)
    log = host.state_dir / "builds" / f"{run}.log"
    wait_for("its RUN step", lambda: log.exists() and f"it-sleeps {number}" in log.read_text())
    began = time.monotonic()
    engine.stop(number)
    state = host.wait_for_state(run, *FINAL)
    lost = time.monotonic() - began
    assert state.state_name == "Failed"
    assert "EngineLost: The Docker engine went away while the build ran." in state.message
    began = time.monotonic()
    engine.start()
    wait_for("no builder is left", lambda: not _builders(engine), seconds=30)
    with capsys.disabled():
        print(f"\n  {number.name}: failed after {lost:.1f} s, back and clean {time.monotonic() - began:.1f} s later")
    repository.commit({"Dockerfile": f"{BASE}LABEL after={number}\n"})
    following = host.trigger("build-image", request=request)
    assert host.wait_for_state(following, *FINAL).state_name == "Completed"
