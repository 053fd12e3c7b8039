"""An engine that is stopped, or killed, while a build runs; and that is back again."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from caisson.docker_engine import DockerEngine
from deployments.tether import tethered
from tests.conftest import EngineHost, ask_engine, find_engines
from tests.engine.repositories import Repository, git
from tests.flows.caisson_host import CaissonHost, free_port, wait_for

ADDRESS = "10.231.79.1"
IMAGE = "caisson-test/lost"
# It is on the engine anyway, and brings a shell.
BASE = "FROM caisson-builder:latest\n"
FINAL = ("Completed", "Failed", "Crashed", "Cancelled")


@dataclass
class OwnEngine:
    """A dockerd that may be stopped: in network and mount namespaces of its own, which outlive it.

    Without them it would take the first engine's containerd from /run, and its bridge.
    """

    directory: Path
    holder: subprocess.Popen[bytes]
    process: subprocess.Popen[bytes] | None = None
    host: EngineHost = field(init=False)

    def __post_init__(self) -> None:
        self.host = EngineHost("own", f"unix://{self.directory}/docker.sock", ADDRESS)

    def inside(self, *argv: str) -> list[str]:
        return ["nsenter", f"--target={self.holder.pid}", "--net", "--mount", *argv]

    def start(self) -> None:
        options = [f"--{name}={self.directory / name}" for name in ("data-root", "exec-root", "pidfile")]
        options += [f"--host={self.host.docker_host}", f"--bip={ADDRESS}/24"]
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(self.inside("dockerd", *options), stdout=log, stderr=log)
        wait_for("the engine", self._answers, seconds=30)

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, (self.directory / "log").read_text()[-2000:]
        try:
            return bool(ask_engine(self.host, "/_ping"))
        except OSError:
            return False

    def stop(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)
        self.process.wait(60)


@pytest.fixture(scope="module")
def engine() -> Iterator[OwnEngine]:
    directory = Path(tempfile.mkdtemp(prefix="caisson-engine-"))
    ready = "mount -t tmpfs tmpfs /run && ip link set lo up && touch $0 && exec sleep infinity"
    command = ["unshare", "--net", "--mount", "--propagation=private", "sh", "-c", ready, str(directory / "ready")]
    with subprocess.Popen(tethered(command)) as holder:
        own = OwnEngine(directory, holder)
        try:
            wait_for("its namespaces", (directory / "ready").exists)
            own.start()
            first = find_engines()[0].docker_host
            with subprocess.Popen(["docker", "-H", first, "save", "caisson-builder"], stdout=subprocess.PIPE) as saved:
                load = ["docker", "-H", own.host.docker_host, "load", "--quiet"]
                subprocess.run(load, stdin=saved.stdout, check=True, capture_output=True)
            yield own
        finally:
            if own.process is not None and own.process.poll() is None:
                own.stop(signal.SIGTERM)
            holder.kill()
    # Its mounts went with their namespace.
    shutil.rmtree(directory, ignore_errors=True)


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
