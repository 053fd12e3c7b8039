"""Each process of the system is killed while a build is in each of its steps: nothing is left, and all goes on.

One build stands in each step at once, held by a gate before a real server, with two more in the queue. Then one part
dies by SIGKILL. The first two steps look at what is there already, in microseconds: there the moments just before the
first and just after the second are held. Engine, Caisson and registry are these tests' own.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest

from caisson.builder import is_builder
from caisson.docker_engine import DockerEngine
from caisson.leases import Leases
from caisson.ledger import Ledger
from caisson.reaping import ENDED
from deployments.server import is_healthy
from deployments.state import StateDir, recorded_run
from deployments.trigger import FlowRunId, RunChanged, cancel
from tests.conftest import find_engines
from tests.engine.network import EngineNetwork
from tests.engine.repositories import Repository, git
from tests.flows.build_host import BASE, HELD, SLOW_SECONDS, BuildHost, build_host
from tests.flows.caisson_host import CaissonHost, wait_for
from tests.own_engine import OwnEngine, copy_image, own_engine

ADDRESS = "10.231.80.1"
CLASSIC = "build_classic"
STEPS = {**HELD, CLASSIC: HELD["build"]}
"""The builds that stand still. This engine's own choice is BuildKit: a RUN step of the classic builder is one more."""
TAGGED = ("tag_image", "remove_builder", "push_image")
"""The steps in which the image is whole, and may have tags."""
FOLLOWING = "caisson-flow/following"
FINAL = ("Completed", "Failed", "Crashed", "Cancelled")
MOST_RUNNING_SECONDS = 120.0
WAITS = "RUN echo it-waits-{mark}; until bash -c '</dev/tcp/{address}/{port}'; do sleep 1; done\n"
"""A RUN step that ends when somebody listens there; its processes are known by the mark."""
MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


@dataclass
class Matrix:
    """The host, its engine, and the builds that stand still."""

    host: BuildHost
    engine: OwnEngine
    reused: Repository
    port: int
    mark: str = field(default_factory=lambda: f"{time.time_ns()}")
    stamps: dict[str, str] = field(default_factory=dict)
    runs: dict[str, FlowRunId] = field(default_factory=dict)
    reached: dict[str, threading.Event] = field(default_factory=dict)
    queued: list[FlowRunId] = field(default_factory=list)
    listener: socket.socket | None = None

    @property
    def caisson(self) -> CaissonHost:
        return self.host.caisson

    def stand_still(self) -> None:
        """A build in each step, and two that wait."""
        # The last step first: a request that is held is one that the builds before it have behind them. Those that no
        # other build can send or pass are awaited together.
        together = ("build", CLASSIC, "push_image")
        for step in together:
            self._begin(step)
        for step in together:
            self._await(step)
        for step in [step for step in reversed(STEPS) if step not in together]:
            self._begin(step)
            self._await(step)
        for number in range(2):
            repository = self.host.repository(f"queued-{number}", BASE, stamp=self.mark)
            self.queued.append(self.host.build(repository, f"caisson-flow/{self.mark}/queued-{number}"))

    def _begin(self, step: str) -> None:
        place, pattern = STEPS[step]
        repository = self._repository(step, waits=not place)
        if place:
            self.reached[step] = self.host.gates[place].hold(pattern)
        builder = "classic" if step == CLASSIC else "buildkit"
        self.runs[step] = self.host.build(repository, self.image(step), push=step == "push_image", builder=builder)

    def _await(self, step: str) -> None:
        if step in self.reached:
            is_held = self.reached[step].wait(SLOW_SECONDS)
            assert is_held, f"{step}\n{self.caisson.logs()}\n{self.host.log(self.runs[step])}"
        else:
            wait_for(f"{step} runs", partial(self.processes, step), seconds=SLOW_SECONDS)

    def _repository(self, step: str, *, waits: bool) -> Repository:
        if step == "reuse_image":
            self.stamps[step] = (self.reused.directory / "stamp").read_text()
            return self.reused
        self.stamps[step] = f"{self.mark} {step}"
        last = WAITS.format(mark=f"{self.mark}-{step}", address=ADDRESS, port=self.port) if waits else ""
        return self.host.repository(step, f"{BASE}COPY stamp /\n{last}", stamp=self.stamps[step])

    def image(self, step: str) -> str:
        place = f"{self.host.registry_address}/" if step == "push_image" else ""
        return f"{place}caisson-flow/{self.mark}/{step}"

    def tags(self, step: str) -> dict[str, str]:
        """The IDs of the images that tags of that build point to, by reference."""
        return {reference: str(image.id) for reference, image in self.host.images(self.image(step)).items()}

    def processes(self, step: str = "") -> list[str]:
        """The processes of a RUN step, of any of them by default, wherever they run."""
        mark, found = f"it-waits-{self.mark}-{step and f'{step};'}".encode(), []
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if mark in (process / "cmdline").read_bytes():
                    found.append(f"process {process.name} of a RUN step")
        return found

    def containers(self) -> list[str]:
        """Those of this engine, builders or not; RUN steps only while they have not ended."""
        with DockerEngine(self.engine.host.docker_host) as engine:
            found = [item for item in engine.list_containers({}) if is_builder(item) or item.state not in ENDED]
        return [f"{container.name} ({container.state})" for container in found]

    def sockets(self) -> list[str]:
        return [str(path) for path in (self.engine.directory / "guard").glob("*.sock")]

    def left(self) -> list[str]:
        """What may not outlive its build: containers of this engine, sockets, processes of RUN steps; and the records
        of which process executes a run."""
        records = [str(path) for path in StateDir(self.caisson.state_dir).runs.glob("*.json")]
        return [*self.containers(), *self.sockets(), *self.processes(), *records]

    def release(self, *, steps: bool) -> None:
        """Let what is held go on; with ``steps`` the RUN steps end as well."""
        if steps:
            network = EngineNetwork(self.engine.holder.pid)
            self.listener = network.call(lambda: socket.create_server((ADDRESS, self.port)))
        for gate in self.host.gates.values():
            gate.release()

    def clear(self) -> None:
        """Leave nothing of a test that failed in the way of the next one, or of the same one tried again."""
        self.release(steps=False)
        if self.engine.process is None or self.engine.process.poll() is not None:
            self.engine.start()
        if not self.caisson.is_up:
            self.caisson.up()
        self.await_server()
        with self.caisson.api as api:
            for run in (*self.queued, *self.runs.values()):
                cancel(api, run)
        if self.listener is not None:
            self.listener.close()

    def await_server(self) -> None:
        wait_for("the server", lambda: is_healthy(self.caisson.api.api_url), seconds=SLOW_SECONDS)

    def ends(self, deadline: float) -> dict[str, RunChanged]:
        """How the builds that stood still end, each before that time."""
        return {
            step: self.caisson.wait_for_state(run, *FINAL, seconds=max(1.0, deadline - time.monotonic()))
            for step, run in self.runs.items()
        }


def kill_flows(matrix: Matrix) -> None:
    for run in matrix.runs.values():
        process = recorded_run(StateDir(matrix.caisson.state_dir), run)
        assert process is not None
        os.kill(process.pid, signal.SIGKILL)


def kill_worker(matrix: Matrix) -> None:
    os.kill(matrix.caisson.pid_of("deployments.worker_main"), signal.SIGKILL)


def kill_server(matrix: Matrix) -> None:
    killed = matrix.caisson.pid_of("deployments.server_app")
    os.kill(killed, signal.SIGKILL)
    # Not to be asked in the moment before its port is closed.
    wait_for("another server", lambda: matrix.caisson.pid_of("deployments.server_app") != killed)


def kill_caisson(matrix: Matrix) -> None:
    matrix.caisson.stop(signal.SIGKILL)
    wait_for("nothing of it runs", lambda: not matrix.caisson.processes())
    matrix.caisson.up()


def kill_engine(matrix: Matrix) -> None:
    matrix.engine.kill()
    matrix.engine.start()


def kill_everything(matrix: Matrix) -> None:
    matrix.caisson.stop(signal.SIGKILL)
    kill_engine(matrix)
    wait_for("nothing of it runs", lambda: not matrix.caisson.processes())
    matrix.caisson.up()


FAULTS: dict[str, tuple[Callable[[Matrix], None], frozenset[str]]] = {
    "flows": (kill_flows, frozenset({"Crashed"})),
    "worker": (kill_worker, frozenset({"Crashed"})),
    "server": (kill_server, frozenset({"Completed"})),
    "caisson": (kill_caisson, frozenset({"Crashed"})),
    # What the engine's end has broken is tried again once, by the flow itself; ten at once may outlast that.
    "engine": (kill_engine, frozenset({"Completed", "Failed"})),
    # A run that is dying may still say that it lost its engine.
    "everything": (kill_everything, frozenset({"Crashed", "Failed"})),
}
"""Who is killed, and how a build ends then, in whatever step it is."""


@pytest.fixture(scope="module")
def engine() -> Iterator[OwnEngine]:
    with own_engine(ADDRESS, root=find_engines()[1].root) as own:
        for image in ("caisson-builder", "debian:trixie-slim"):
            copy_image(image, find_engines()[0], own.host)
        yield own


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory, engine: OwnEngine) -> Iterator[BuildHost]:
    variables = {
        "CAISSON_GUARD_DIR": f"{engine.directory}/guard",
        "CAISSON_CONCURRENCY": str(len(STEPS)),
    }
    network = EngineNetwork(engine.holder.pid)
    directory = tmp_path_factory.mktemp("faults")
    name = f"faults-{os.getpid()}"
    with build_host(directory, name, engine.host, like=None, variables=variables, network=network) as host:
        yield host


@pytest.fixture(scope="module")
def reused(host: BuildHost) -> Repository:
    """What the build in ``reuse_image`` finds built."""
    repository = host.repository("reused", f"{BASE}COPY stamp /\n", stamp="reused")
    host.prepare("reuse_image", repository)
    return repository


@pytest.fixture
def matrix(host: BuildHost, engine: OwnEngine, reused: Repository) -> Iterator[Matrix]:
    matrix = Matrix(host, engine, reused, EngineNetwork(engine.holder.pid).free_port(ADDRESS))
    yield matrix
    matrix.clear()


@pytest.mark.timeout(900)
@pytest.mark.parametrize("fault", FAULTS)
def test_whatever_is_killed_nothing_is_left_and_all_goes_on(
    fault: str, matrix: Matrix, capsys: pytest.CaptureFixture[str]
) -> None:
    kill, outcome = FAULTS[fault]
    host, began = matrix.host, time.monotonic()
    matrix.stand_still()
    # The eyes see something before they are to see nothing.
    assert all((matrix.containers(), matrix.sockets(), matrix.processes())), matrix.left()
    killed = time.monotonic()
    kill(matrix)
    # What was on its way arrives late: that is to be found and removed, too.
    matrix.release(steps="Completed" in outcome)
    matrix.await_server()
    back = time.monotonic()
    following = host.build(host.repository("following", BASE, stamp=fault), FOLLOWING)
    ends = matrix.ends(killed + MOST_RUNNING_SECONDS)
    ended = time.monotonic()
    assert {step: state.state_name for step, state in ends.items() if state.state_name not in outcome} == {}
    for run in (*matrix.queued, following):
        assert host.caisson.wait_for_state(run, *FINAL, seconds=SLOW_SECONDS).state_name == "Completed", host.log(run)
    _check_nothing_is_left(matrix)
    clean = time.monotonic()
    _check_names_under_construction(matrix)
    _check_tags(matrix, ends)
    _check_registry(matrix, ends["push_image"])
    _check_ledger(matrix, ends)
    with capsys.disabled():
        print(
            f"\n  {fault}: stood after {killed - began:.0f} s; back {back - killed:.0f} s after the kill, "
            f"all ended {ended - killed:.0f} s, all clean {clean - killed:.0f} s",
            end="",
        )


def test_names_of_images_under_construction_and_ended_steps_are_gone_a_minute_later(
    host: BuildHost, engine: OwnEngine
) -> None:
    assert host.images(FOLLOWING), "no fault was on this engine, so nothing would be left anyway"
    wait_for("no name is left", lambda: not host.images("caisson.local/build"), seconds=130)
    with DockerEngine(engine.host.docker_host) as docker:
        wait_for("no container is left", lambda: not docker.list_containers({}), seconds=130)


def _check_nothing_is_left(matrix: Matrix) -> None:
    deadline = time.monotonic() + SLOW_SECONDS
    while left := matrix.left():
        assert time.monotonic() < deadline, f"{left}\n{matrix.caisson.logs()}"
        time.sleep(0.2)


def _check_names_under_construction(matrix: Matrix) -> None:
    """A name of an image under construction is left only where the builder was removed just before it, or a request
    that was on its way gave it after that."""
    left = matrix.host.images("caisson.local/build")
    sources = {image.labels["org.opencontainers.image.source"] for image in left.values()}
    assert {source.split("/")[-2] for source in sources} <= {"tag_image", "remove_builder"}


def _check_tags(matrix: Matrix, ends: dict[str, RunChanged]) -> None:
    """Tags point to whole images of the commit that was built, and only where the build came to them."""
    for step, state in ends.items():
        tags = matrix.host.images(matrix.image(step))
        if state.state_name == "Completed":
            assert tags, step
        elif step not in TAGGED:
            assert tags == {}, step
        name = "reused" if step == "reuse_image" else step
        sha = git(matrix.host.git.root / name, "rev-parse", "HEAD")
        assert {image.labels["org.opencontainers.image.revision"] for image in tags.values()} <= {sha}, step
        for reference in list(tags)[: step in TAGGED]:
            # It starts with all its layers, and has what was copied last.
            command = ["docker", "-H", matrix.engine.host.docker_host, "run", "--rm", "--network=none", reference]
            run = subprocess.run([*command, "cat", "/stamp"], capture_output=True, text=True, check=True)
            assert run.stdout == matrix.stamps[step], reference


def _check_registry(matrix: Matrix, pushed: RunChanged) -> None:
    """What a tag in the registry names is there, all of it."""
    registry, repository = matrix.host.registry, matrix.image("push_image").partition("/")[2]
    tags = registry.tags(repository)
    assert tags or pushed.state_name != "Completed"
    for tag in tags:
        manifest = json.loads(registry.ask("GET", f"/v2/{repository}/manifests/{tag}", {"Accept": MANIFEST})[2])
        for part in (manifest["config"], *manifest["layers"]):
            assert registry.ask("HEAD", f"/v2/{repository}/blobs/{part['digest']}")[0] == 200, tag


def _check_ledger(matrix: Matrix, ends: dict[str, RunChanged]) -> None:
    state_dir = matrix.caisson.state_dir
    with sqlite3.connect(state_dir / "ledger.sqlite") as database:
        assert database.execute("PRAGMA quick_check").fetchall() == [("ok",)]
    ledger = Ledger(state_dir / "ledger.sqlite")
    assert Leases(state_dir / "leases", ledger.leases).held().leases == ()
    assert ledger.leases.list() == []
    own, pushed = ledger.builds.own_images(), ledger.builds.pushed_repositories()
    histories = ledger.builds.tag_histories()
    for step, state in ends.items():
        tags = matrix.tags(step)
        # Nothing here removes an image or moves a tag: what has one was built, by the ledger ...
        assert set(tags.values()) <= {str(image) for image in own}, step
        # ... and what the ledger says was tagged is; of a build that has ended well it says all.
        told = {
            reference: str(newest)
            for reference, (newest, *_) in histories.items()
            if reference.startswith(f"{matrix.image(step)}:")
        }
        assert told.items() <= tags.items(), step
        assert state.state_name != "Completed" or told == tags, step
    is_pushed = bool(set(matrix.tags("push_image").values()) & {str(image) for image in pushed})
    assert is_pushed == (ends["push_image"].state_name == "Completed")
