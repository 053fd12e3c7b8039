"""A build whose process is killed, or that is cancelled, in each step: nothing of it is left, nobody is told a lie.

Servers that answer late hold a build in its step. The first two steps look at what is there already, in microseconds:
there the moment just before the first and the one just after the second are held.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from caisson.engine import ImageInfo
from caisson.plan import reference_under_construction
from deployments.state import StateDir, recorded_run
from deployments.trigger import FlowRunId, cancel
from tests.conftest import find_engines
from tests.engine.repositories import Repository, git
from tests.flows.build_host import BASE, BuildHost, build_host
from tests.flows.caisson_host import CaissonHost, wait_for

ENGINE, GIT, REGISTRY = "engine", "git", "registry"
# Which request is held, by step; a build that nobody holds is in its RUN step.
HELD = {
    "check_mounts": (ENGINE, rb"GET /v[0-9.]+/version "),
    "check_disk": (ENGINE, rb"POST /v[0-9.]+/containers/create"),
    "start_builder": (ENGINE, rb"POST /v[0-9.]+/containers/\w+/start "),
    "resolve_commit": (GIT, rb"command=ls-refs"),
    "clone": (GIT, rb"command=fetch"),
    "build": ("", b""),
    "tag_image": (ENGINE, rb"POST /v[0-9.]+/images/[^ ]+/tag"),
    "remove_builder": (ENGINE, rb"DELETE /v[0-9.]+/containers/"),
    "push_image": (REGISTRY, rb"PUT /v2/[^ ]+/manifests/"),
}
TAGGED = ("remove_builder", "push_image")
"""The steps in which the image has its tags already."""
WITHOUT_BUILDER = ("check_mounts", "check_disk")
"""The steps in which Caisson does not know of a builder yet."""


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory, caisson: CaissonHost) -> Iterator[BuildHost]:
    directory = tmp_path_factory.mktemp("killed")
    with build_host(directory, f"killed-{os.getpid()}", find_engines()[0], like=caisson, variables={}) as host:
        yield host
        host.remove_images(*(f"{place}caisson-test/killed" for place in ("", f"{host.registry_address}/")))


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
    host.remove_images("caisson-test/killed", f"{host.registry_address}/caisson-test/killed")
    place, pattern = HELD[step]
    last = "RUN echo it-sleeps && sleep 600\n" if step == "build" else ""
    repository = host.repository("killed", BASE + "COPY stamp /\n" + last, stamp=f"{time.time_ns()}")
    image = f"{host.registry_address}/caisson-test/killed" if step == "push_image" else "caisson-test/killed"
    gates = {ENGINE: host.engine_gate, GIT: host.git_gate, REGISTRY: host.registry_gate}
    if place:
        gates[place].hold(pattern)
    run = host.build(repository, image, push=step == "push_image")
    if place:
        assert gates[place].reached.wait(60), host.caisson.logs() + host.log(run)
    else:
        host.wait_for_line(run, "it-sleeps")
    build_id = "".join(host.builders()).removeprefix("caisson-build-")
    yield Held(host, step, repository, image, run, build_id)
    for gate in gates.values():
        gate.release()
    # What was on its way when its sender died arrives late: that is to be found and removed, too.
    wait_for("no builder is left", lambda: not host.builders(), seconds=20)
    assert reference_under_construction(build_id) not in host.images("caisson.local/build")


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
    report = json.loads((held.host.caisson.state_dir / "builds" / f"{held.run}.json").read_text())
    assert report["outcome"] == "cancelled"
    # By its own clean-up, also where that is what was cancelled.
    assert report["builder_removed"] is (None if held.step in WITHOUT_BUILDER else True)
    held.host.engine_gate.release()
    _the_next_build_works(held, following)
