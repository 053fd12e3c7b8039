"""Each process of the system is killed while a build is in each of its steps: nothing is left, and all goes on.

Run by `make faults`, in some seven minutes: it wants the machine for itself.
One build stands in each step at once, held by a gate before a real server, with two more in the queue. Then one part
dies by SIGKILL. The first two steps look at what is there already, in microseconds: there the moments just before the
first and just after the second are held.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from caisson.leases import Leases
from caisson.ledger import Ledger
from deployments.server import is_healthy
from deployments.state import StateDir, recorded_run
from deployments.trigger import FlowRunId, RunChanged, cancel
from tests.conftest import find_engines
from tests.engine.network import EngineNetwork
from tests.engine.repositories import git
from tests.flows.build_host import BASE, HELD, SLOW_SECONDS, BuildHost, build_host
from tests.flows.caisson_host import CaissonHost, wait_for
from tests.own_engine import OwnEngine, copy_image, own_engine

ADDRESS = "10.231.80.1"
TAGGED = ("tag_image", "remove_builder", "push_image")
"""The steps in which the image is whole, and may have tags."""
FINAL = ("Completed", "Failed", "Crashed", "Cancelled")
MOST_RUNNING_SECONDS = 120.0


@dataclass
class Matrix:
    """The host, its engine, and the builds that stand still."""

    host: BuildHost
    engine: OwnEngine
    runs: dict[str, FlowRunId] = field(default_factory=dict)
    queued: list[FlowRunId] = field(default_factory=list)

    @property
    def caisson(self) -> CaissonHost:
        return self.host.caisson

    def stand_still(self, name: str, *, run_seconds: int) -> None:
        """A build in each step, and two that wait; ``run_seconds`` is how long the RUN step lasts."""
        # The last step first: a request that is held is one that the builds before it have behind them.
        for step, (place, pattern) in reversed(HELD.items()):
            last = f"RUN echo it-sleeps {name} && sleep {run_seconds}\n" if step == "build" else ""
            dockerfile = f"{BASE}COPY stamp /\n{last}"
            repository = self.host.repository(_name(step), dockerfile, stamp=f"{name} {step} {time.time_ns()}")
            self.host.prepare(step, repository)
            reached = self.host.gates[place].hold(pattern) if place else threading.Event()
            self.runs[step] = self.host.build(repository, self.image(step), push=step == "push_image")
            if place:
                assert reached.wait(SLOW_SECONDS), f"{step}\n{self.caisson.logs()}\n{self.host.log(self.runs[step])}"
            else:
                self.host.wait_for_line(self.runs[step], f"it-sleeps {name}")
        for number in range(2):
            repository = self.host.repository(f"queued-{number}", BASE, stamp=f"{name} {number}")
            self.queued.append(self.host.build(repository, f"caisson-flow/queued-{number}"))

    def image(self, step: str) -> str:
        place = f"{self.host.registry_address}/" if step == "push_image" else ""
        return f"{place}caisson-flow/{_name(step)}"

    def release(self) -> None:
        for gate in self.host.gates.values():
            gate.release()

    def clear(self) -> None:
        """Leave nothing of a test that failed in the way of the next one, or of the same one tried again."""
        self.release()
        if self.engine.process is None or self.engine.process.poll() is not None:
            self.engine.start()
        if not self.caisson.is_up:
            self.caisson.up()
        wait_for("the server", lambda: is_healthy(self.caisson.api.api_url), seconds=SLOW_SECONDS)
        with self.caisson.api as api:
            for run in (*self.queued, *self.runs.values()):
                cancel(api, run)

    def ends(self) -> dict[str, RunChanged]:
        deadline = time.monotonic() + MOST_RUNNING_SECONDS
        wait_for("the server", lambda: is_healthy(self.caisson.api.api_url), seconds=SLOW_SECONDS)
        return {
            step: self.caisson.wait_for_state(run, *FINAL, seconds=max(1, deadline - time.monotonic()))
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
    os.kill(matrix.caisson.pid_of("deployments.server_app"), signal.SIGKILL)


def kill_caisson(matrix: Matrix) -> None:
    matrix.caisson.stop(signal.SIGKILL)
    wait_for("nothing of it runs", lambda: not matrix.caisson.processes())
    matrix.caisson.up()


def kill_engine(matrix: Matrix) -> None:
    matrix.engine.stop(signal.SIGKILL)
    # Its containerd is told by the kernel; a dockerd that starts in that moment takes it for one that lives.
    time.sleep(3)
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
    # What the engine's end has broken is tried again once, by the flow itself; nine at once may outlast that.
    "engine": (kill_engine, frozenset({"Completed", "Failed"})),
    # A run that is dying may still say that it lost its engine.
    "everything": (kill_everything, frozenset({"Crashed", "Failed"})),
}
"""Who is killed, and how a build ends then, in whatever step it is."""


@pytest.fixture(scope="module")
def engine() -> Iterator[OwnEngine]:
    with own_engine(ADDRESS) as own:
        for image in ("caisson-builder", "debian:trixie-slim"):
            copy_image(image, find_engines()[0], own.host)
        yield own


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory, caisson: CaissonHost, engine: OwnEngine) -> Iterator[BuildHost]:
    variables = {
        "CAISSON_GUARD_DIR": f"{engine.directory}/guard",
        "CAISSON_CONCURRENCY": str(len(HELD)),
    }
    network = EngineNetwork(engine.holder.pid)
    directory = tmp_path_factory.mktemp("faults")
    name = f"faults-{os.getpid()}"
    with build_host(directory, name, engine.host, like=caisson, variables=variables, network=network) as host:
        yield host


@pytest.fixture
def matrix(host: BuildHost, engine: OwnEngine) -> Iterator[Matrix]:
    matrix = Matrix(host, engine)
    yield matrix
    matrix.clear()


@pytest.mark.timeout(900)
@pytest.mark.parametrize("fault", FAULTS)
def test_whatever_is_killed_nothing_is_left_and_all_goes_on(
    fault: str, matrix: Matrix, capsys: pytest.CaptureFixture[str]
) -> None:
    kill, outcome = FAULTS[fault]
    host = matrix.host
    # Long where it is to be ended, so that it does not end by itself just then; where the build goes on, or is tried
    # again, it has to end.
    matrix.stand_still(fault, run_seconds=40 if fault in ("server", "engine") else 600)
    began = time.monotonic()
    kill(matrix)
    # What was on its way arrives late: that is to be found and removed, too.
    matrix.release()
    ends = matrix.ends()
    ended = time.monotonic() - began
    assert {step: state.state_name for step, state in ends.items() if state.state_name not in outcome} == {}
    for run in matrix.queued:
        assert host.caisson.wait_for_state(run, *FINAL, seconds=SLOW_SECONDS).state_name == "Completed", host.log(run)
    following = host.build(host.repository("following", BASE, stamp=fault), "caisson-flow/following")
    state = host.caisson.wait_for_state(following, *FINAL, seconds=SLOW_SECONDS)
    assert state.state_name == "Completed", host.log(following)
    wait_for("no builder is left", lambda: not host.builders(), seconds=SLOW_SECONDS)
    wait_for("no guarded socket is left", lambda: not _sockets(matrix.engine), seconds=SLOW_SECONDS)
    _check_nothing_half_made(matrix)
    _check_tags(matrix, ends)
    _check_ledger(matrix)
    with capsys.disabled():
        print(f"\n  {fault}: all ended after {ended:.0f} s, all clean after {time.monotonic() - began:.0f} s", end="")


def test_names_of_images_under_construction_are_gone_a_minute_later(host: BuildHost) -> None:
    assert host.images("caisson-flow/following"), "no fault was on this engine, so no name would be left anyway"
    assert host.images("caisson-flow/following"), "no fault was on this engine, so no name would be left anyway"
    wait_for("no name is left", lambda: not host.images("caisson.local/build"), seconds=130)


def _name(step: str) -> str:
    return f"fault-{step.replace('_', '-')}"


def _sockets(engine: OwnEngine) -> list[Path]:
    return list((engine.directory / "guard").glob("*.sock"))


def _check_nothing_half_made(matrix: Matrix) -> None:
    """A name of an image under construction is left only where the builder was removed just before it, or a request
    that was on its way gave it after that."""
    left = matrix.host.images("caisson.local/build")
    sources = {image.labels["org.opencontainers.image.source"] for image in left.values()}
    assert {source.split("/")[-2] for source in sources} <= {_name("tag_image"), _name("remove_builder")}


def _check_tags(matrix: Matrix, ends: dict[str, RunChanged]) -> None:
    """Tags point to whole images of the commit that was built, and only where the build came to them."""
    for step, state in ends.items():
        tags = matrix.host.images(matrix.image(step))
        if state.state_name == "Completed":
            assert tags, step
        elif step not in TAGGED:
            assert not {reference for reference, image in tags.items() if _is_new(matrix, step, image.labels)}, step


def _is_new(matrix: Matrix, step: str, labels: dict[str, str]) -> bool:
    """Whether an image was built from what the repository holds now; those of the faults before were not."""
    sha = git(matrix.host.git.root / _name(step), "rev-parse", "HEAD")
    return labels["org.opencontainers.image.revision"] == sha


def _check_ledger(matrix: Matrix) -> None:
    state_dir = matrix.caisson.state_dir
    with sqlite3.connect(state_dir / "ledger.sqlite") as database:
        assert database.execute("PRAGMA quick_check").fetchall() == [("ok",)]
    ledger = Ledger(state_dir / "ledger.sqlite")
    assert Leases(state_dir / "leases", ledger.leases).held().leases == ()
    assert ledger.leases.list() == []
    # Whatever the ledger says was tagged, the engine has, for nothing here removes an image.
    own = set(ledger.builds.own_images())
    for step in HELD:
        assert {image.id for image in matrix.host.images(matrix.image(step)).values()} <= own, step
