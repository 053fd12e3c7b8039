"""Builds over the API on the newer engine, by the builder that Caisson takes there by itself; and how they end."""

from __future__ import annotations

import os
import signal
import time
import uuid
from collections.abc import Iterator

import pytest

from deployments.state import StateDir, recorded_run
from deployments.trigger import FlowRunId, cancel
from tests.conftest import find_engines
from tests.flows.build_host import BASE, BuildHost, build_host, newer_engine
from tests.flows.caisson_host import CaissonHost, wait_for

IMAGE = "caisson-flow/newer"
SLEEPS = "RUN echo it-sleeps && sleep 600\n"


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory, caisson: CaissonHost) -> Iterator[BuildHost]:
    directory, name = tmp_path_factory.mktemp("newer"), f"newer-{os.getpid()}"
    engine = find_engines()[1]
    with build_host(directory, name, engine, like=caisson, variables=newer_engine(engine, name)) as host:
        yield host
        host.remove_images(IMAGE)


def _begin(host: BuildHost, steps: str) -> FlowRunId:
    repository = host.repository("newer", f"{BASE}LABEL run={uuid.uuid4().hex}\n{steps}")
    return host.build(repository, IMAGE)


def test_a_build_is_held_to_its_limits_and_has_its_report(host: BuildHost) -> None:
    run = _begin(host, "RUN sleep 0.5 && echo built\n")
    state = host.caisson.wait_for_state(run, "Completed", "Failed", "Crashed")
    assert state.state_name == "Completed", host.log(run)
    report = host.report(run)
    assert (report["outcome"], report["builder"], report["limits"]["status"]) == ("built", "buildkit", "verified")
    assert {reference.rpartition(":")[2] for reference in host.images(IMAGE)} >= {"main"}
    assert host.builders() == []


def test_a_build_that_is_cancelled_leaves_nothing(host: BuildHost) -> None:
    run = _begin(host, SLEEPS)
    host.wait_for_line(run, "it-sleeps")
    began = time.monotonic()
    with host.caisson.api as api:
        assert cancel(api, run).state_name == "Cancelled"
    assert host.builders() == []
    assert time.monotonic() - began < 15
    assert host.report(run)["builder_removed"] is True


def test_a_build_that_is_killed_leaves_nothing(host: BuildHost) -> None:
    run = _begin(host, SLEEPS)
    host.wait_for_line(run, "it-sleeps")
    process = recorded_run(StateDir(host.caisson.state_dir), run)
    assert process is not None
    os.kill(process.pid, signal.SIGKILL)
    host.caisson.wait_for_state(run, "Crashed")
    wait_for("no builder is left", lambda: not host.builders(), seconds=20)
