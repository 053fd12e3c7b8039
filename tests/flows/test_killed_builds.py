"""A build whose process is killed, or that is cancelled, in each step: nothing of it is left, nobody is told a lie.

Servers that answer late hold a build in its step. The first two steps look at what is there already, in microseconds:
there the moment just before the first and the one just after the second are held.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from prefect import Task

import flows.build_image
from caisson.cgroups import CGROUP_ROOT
from caisson.docker_engine import DockerEngine
from caisson.engine import ImageInfo
from caisson.errors import BuildCancelled
from caisson.plan import reference_under_construction
from caisson.tokens import make_grant
from deployments.state import StateDir, recorded_run
from deployments.token_store import TokenStore
from deployments.trigger import FlowRunId, cancel
from tests.conftest import find_engines
from tests.engine.repositories import Repository, git
from tests.flows.build_host import BASE, EARLIER, HELD, SLOW_SECONDS, BuildHost, build_host
from tests.flows.caisson_host import ROOT, CaissonHost, free_port, wait_for

TAGGED = ("remove_builder", "push_image")
"""The steps in which the image has its tags already."""
WITHOUT_BUILDER = ("check_mounts", "check_disk")
"""The steps in which Caisson does not know of a builder yet."""


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory, caisson: CaissonHost) -> Iterator[BuildHost]:
    directory = tmp_path_factory.mktemp("killed")
    gateway = {"CAISSON_GATEWAY_PORT": str(free_port())}
    with build_host(directory, f"killed-{os.getpid()}", find_engines()[0], like=caisson, variables=gateway) as host:
        yield host
        host.remove_images(*(f"{place}caisson-flow/killed" for place in ("", f"{host.registry_address}/")), EARLIER)


@pytest.fixture(scope="module")
def following(host: BuildHost) -> Repository:
    """What is built after each."""
    return host.repository("following", BASE + "LABEL following=build\n")


@dataclass
class Held:
    """A build that stands still in a step."""

    host: BuildHost
    step: str
    repository: Repository
    image: str
    run: FlowRunId
    build_id: str

    @property
    def process(self) -> int:
        process = recorded_run(StateDir(self.host.caisson.state_dir), self.run)
        assert process is not None
        return process.pid

    def tags(self) -> dict[str, ImageInfo]:
        return self.host.images(self.image)


@pytest.fixture(params=HELD)
def held(request: pytest.FixtureRequest, host: BuildHost) -> Iterator[Held]:
    step = str(request.param)
    host.remove_images("caisson-flow/killed", f"{host.registry_address}/caisson-flow/killed")
    place, pattern = HELD[step]
    last = "RUN echo it-sleeps && sleep 600\n" if step == "build" else ""
    repository = host.repository("killed", BASE + "COPY stamp /\n" + last, stamp=f"{time.time_ns()}")
    image = f"{host.registry_address}/caisson-flow/killed" if step == "push_image" else "caisson-flow/killed"
    host.prepare(step, repository)
    reached = host.gates[place].hold(pattern) if place else None
    run = host.build(repository, image, push=step == "push_image")
    if reached:
        assert reached.wait(SLOW_SECONDS), host.caisson.logs() + host.log(run)
    else:
        host.wait_for_line(run, "it-sleeps")
    build_id = "".join(host.builders()).removeprefix("caisson-build-")
    yield Held(host, step, repository, image, run, build_id)
    for gate in host.gates.values():
        gate.release()
    # What was on its way when its sender died arrives late: that is to be found and removed, too.
    wait_for("no builder is left", lambda: not host.builders(), seconds=20)
    assert reference_under_construction(build_id) not in host.images("caisson.local/build")


def test_each_step_of_the_flow_is_one_in_which_a_build_is_held() -> None:
    steps = {value.name for value in vars(flows.build_image).values() if isinstance(value, Task)}
    assert steps == set(HELD)


DEAF = "trap '' TERM INT HUP; echo it-sleeps; while :; do sleep {mark}; done"
"""A RUN step that hears no signal but SIGKILL; its processes are known by their mark."""
GONE_SECONDS = 10.0


class DeafBuild:
    """A build in a RUN step that ignores what asks it to end; and all that it has on this host."""

    def __init__(self, host: BuildHost, run: FlowRunId, mark: str) -> None:
        self.host, self.run = host, run
        self._mark = mark.encode()
        self._flow = recorded_run(StateDir(host.caisson.state_dir), run)
        wait_for("the step runs", self._step_groups)
        with DockerEngine(host.engine_host.docker_host) as engine:
            (builder,) = engine.list_containers({"caisson.flow-run": run})
            mounts = (engine.inspect_container(builder.id) or builder).raw["Mounts"]
        groups = self._step_groups()
        # The classic builder runs a step in a container of its own, whose ID is the name of its group.
        self._containers = {builder.id, *re.findall(r"\b[0-9a-f]{64}\b", " ".join(groups))}
        self._groups = [Path(f"{base}{group}") for base in (CGROUP_ROOT, *CGROUP_ROOT.iterdir()) for group in groups]
        self._sockets = [Path(mount["Source"]) for mount in mounts]
        # Each of the eyes sees something before it is to see nothing.
        eyes = (self.flows(), self.steps(), self.containers(), self.sockets(), self.groups())
        assert all(eyes), eyes

    def _step_groups(self) -> set[str]:
        groups: set[str] = set()
        for process in map(Path, self.steps()):
            with contextlib.suppress(OSError):
                lines = (process / "cgroup").read_text().splitlines()
                groups |= {line.split(":", 2)[2] for line in lines}
        return groups - {"/"}

    def flows(self) -> list[str]:
        """The process of the flow run, with the guard in it."""
        return [f"/proc/{self._flow.pid}"] if self._flow is not None and self._flow.alive else []

    def steps(self) -> list[str]:
        """The processes of the RUN step, by their command line."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if self._mark in (process / "cmdline").read_bytes():
                    found.append(str(process))
        return found

    def containers(self) -> list[str]:
        with DockerEngine(self.host.engine_host.docker_host) as engine:
            return [name for name in self._containers if engine.inspect_container(name) is not None]

    def sockets(self) -> list[str]:
        return [str(path) for path in self._sockets if path.exists()]

    def groups(self) -> list[str]:
        """Its control groups with a process in them, or below them."""
        files = [file for group in self._groups for file in group.glob("**/cgroup.procs")]
        return [str(file) for file in files if file.read_text().strip()]

    def left(self) -> list[str]:
        return [*self.flows(), *self.steps(), *self.containers(), *self.sockets(), *self.groups()]


@pytest.fixture(params=["classic", "buildkit"])
def deaf(request: pytest.FixtureRequest, host: BuildHost) -> Iterator[Callable[..., DeafBuild]]:
    def start(by: Callable[[Repository, str], FlowRunId] | None = None, **limits: float) -> DeafBuild:
        mark = f"{random.randrange(10**7, 10**8)}"
        repository = host.repository("deaf", f"{BASE}RUN {DEAF.format(mark=mark)}\n")
        body = {"memory": "512m", **limits}
        if by is not None:
            run = by(repository, request.param)
        else:
            run = host.build(repository, "caisson-flow/deaf", builder=request.param, limits=body)
        host.wait_for_line(run, "it-sleeps")
        return DeafBuild(host, run, mark)

    yield start
    host.remove_images("caisson-flow/deaf")


def _all_is_gone(build: DeafBuild, since: float) -> None:
    wait_for("all of the build is gone", lambda: not build.left(), seconds=GONE_SECONDS - (time.monotonic() - since))
    print(f"gone after {time.monotonic() - since:.1f} s")


def test_a_cancel_ends_also_what_hears_no_signal(deaf: Callable[..., DeafBuild]) -> None:
    build = deaf()
    began = time.monotonic()
    # As the button in Prefect's UI does.
    with build.host.caisson.api as api:
        api.post(f"/flow_runs/{build.run}/set_state", {"state": {"type": "CANCELLING", "name": "Cancelling"}})
    _all_is_gone(build, began)
    assert build.host.caisson.wait_for_state(build.run, "Cancelled", seconds=5)


def test_a_delete_by_the_api_ends_also_what_hears_no_signal(deaf: Callable[..., DeafBuild]) -> None:
    build = deaf()
    caisson = build.host.caisson
    token, _ = TokenStore.of(caisson.settings).create(build.run, make_grant(["build"]), lifetime=None)
    url = f"http://127.0.0.1:{caisson.settings.gateway_port}/api/builds/{build.run}"
    began = time.monotonic()
    assert httpx.delete(url, headers={"Authorization": f"Bearer {token}"}).status_code == 202
    _all_is_gone(build, began)
    assert caisson.wait_for_state(build.run, "Cancelled", seconds=5)


def test_ctrl_c_ends_also_what_hears_no_signal(deaf: Callable[..., DeafBuild], host: BuildHost) -> None:
    started: list[subprocess.Popen[str]] = []

    def by_command_line(repository: Repository, builder: str) -> FlowRunId:
        program = str(Path(sys.executable).with_name("caisson"))
        what = (host.url(repository), "--image", "caisson-flow/deaf", "--builder", builder, "--memory", "512m")
        process = subprocess.Popen(
            [program, "build", *what], env=host.caisson.env, cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        started.append(process)
        assert process.stdout is not None
        return FlowRunId(process.stdout.readline().split()[1].rstrip(":"))

    build = deaf(by_command_line)
    began = time.monotonic()
    started[0].send_signal(signal.SIGINT)
    _all_is_gone(build, began)
    assert started[0].wait(5) == BuildCancelled.exit_code
    assert build.host.caisson.wait_for_state(build.run, "Cancelled", seconds=5)


def test_a_builder_that_somebody_removes_is_a_cancelled_run(host: BuildHost) -> None:
    run = host.build(host.repository("removed", BASE + "RUN echo it-sleeps && sleep 600\n"), "caisson-flow/removed")
    host.wait_for_line(run, "it-sleeps")
    with DockerEngine(host.engine_host.docker_host) as engine:
        (builder,) = engine.list_containers({"caisson.flow-run": run})
        engine.remove_container(builder.id)
    state = host.caisson.wait_for_state(run, "Cancelled", "Failed", "Crashed", "Completed")
    assert (state.state_type, state.state_name) == ("CANCELLED", "Cancelled")
    assert "removed from outside" in state.message
    report = host.report(run)
    assert (report["outcome"], report["failure"]["kind"]) == ("cancelled", "cancelled")
    assert host.builders() == []


def test_a_timeout_ends_also_what_hears_no_signal(deaf: Callable[..., DeafBuild]) -> None:
    asked = time.monotonic()
    build = deaf(timeout_minutes=0.4)
    state = build.host.caisson.wait_for_state(build.run, "Failed")
    ended = time.monotonic()
    assert "timeout" in state.message
    assert ended - asked < 0.4 * 60 + GONE_SECONDS
    _all_is_gone(build, ended)


def test_a_shutdown_ends_also_what_hears_no_signal(deaf: Callable[..., DeafBuild]) -> None:
    build = deaf()
    drain = build.host.caisson.settings.drain_seconds
    began = time.monotonic()
    build.host.caisson.stop()
    _all_is_gone(build, began + drain)
    assert build.host.caisson.state_on_disk(build.run) == ("CANCELLED", "Cancelled")
    build.host.caisson.up()


def _the_next_build_works(held: Held, repository: Repository) -> None:
    run = held.host.build(repository, held.image, push=held.step == "push_image")
    assert held.host.caisson.wait_for_state(run, "Completed", "Failed", "Crashed").state_name == "Completed"


def _tags_are_whole(held: Held) -> None:
    tags = held.tags()
    assert bool(tags) == (held.step in TAGGED)
    sha = git(held.repository.directory, "rev-parse", "HEAD")
    assert {image.labels["org.opencontainers.image.revision"] for image in tags.values()} <= {sha}


def test_a_build_that_is_killed_leaves_nothing_and_has_crashed(held: Held, following: Repository) -> None:
    began = time.monotonic()
    os.kill(held.process, signal.SIGKILL)
    state = held.host.caisson.wait_for_state(held.run, "Crashed")
    assert "killed by SIGKILL" in state.message
    # A request that was on its way, such as for the builder itself, may still have to come.
    assert held.host.builders() == []
    assert time.monotonic() - began < 15
    _tags_are_whole(held)
    held.host.engine_gate.release()
    _the_next_build_works(held, following)


def test_a_build_that_is_cancelled_leaves_nothing_and_is_cancelled(held: Held, following: Repository) -> None:
    began = time.monotonic()
    with held.host.caisson.api as api:
        state = cancel(api, held.run)
    assert state.state_name == "Cancelled"
    assert held.host.builders() == []
    assert time.monotonic() - began < 15
    _tags_are_whole(held)
    report = held.host.report(held.run)
    assert report["outcome"] == "cancelled"
    # By its own clean-up, also where that is what was cancelled.
    assert report["builder_removed"] is (None if held.step in WITHOUT_BUILDER else True)
    held.host.engine_gate.release()
    _the_next_build_works(held, following)
