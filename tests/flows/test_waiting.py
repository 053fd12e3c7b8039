"""Builds that wait on a real host: for a slot, for their repository's turn; and what the API says of it meanwhile."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from datetime import datetime
from itertools import pairwise
from typing import Any

import httpx
import pytest

from caisson.docker_engine import DockerEngine
from caisson.tokens import make_grant
from deployments.gateway import answers, gateway_url
from deployments.token_store import TokenStore
from deployments.trigger import FlowRunId
from tests.conftest import find_engines
from tests.engine.repositories import GitDaemon, git_daemon
from tests.flows.caisson_host import CaissonHost, free_port, wait_for

IMAGES = "caisson-flow/waiting"
SLOTS = 2
SECONDS = 120.0


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory, caisson: CaissonHost) -> Iterator[CaissonHost]:
    """Two slots, and one build of a repository at once."""
    engine = find_engines()[0]
    made = CaissonHost(
        tmp_path_factory.mktemp("waiting"),
        f"waiting-{os.getpid()}",
        {
            "CAISSON_DOCKER_HOST": engine.docker_host,
            "CAISSON_MIN_FREE_BYTES": "64m",
            "CAISSON_CONCURRENCY": str(SLOTS),
            "CAISSON_REPOSITORY_CONCURRENCY": "1",
            "CAISSON_POLL_SECONDS": "2",
            "CAISSON_GATEWAY_PORT": str(free_port()),
        },
    )
    made.copy_database(caisson)
    made.up()
    try:
        wait_for("the API answers", lambda: answers(gateway_url(made.settings)))
        yield made
    finally:
        made.stop()
        with DockerEngine(engine.docker_host) as docker:
            for tag in [tag for image in docker.list_images() for tag in image.tags if tag.startswith(IMAGES)]:
                docker.untag_image(tag)


@pytest.fixture(scope="module")
def client(host: CaissonHost) -> Iterator[httpx.Client]:
    token, _ = TokenStore.of(host.settings).create("waiting", make_grant(["build", "read"]), lifetime=None)
    headers = {"Authorization": f"Bearer {token}"}
    with httpx.Client(base_url=gateway_url(host.settings), headers=headers, timeout=SECONDS) as client:
        yield client


@pytest.fixture(scope="module")
def git(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GitDaemon]:
    with git_daemon(tmp_path_factory.mktemp("git"), find_engines()[0].gateway) as daemon:
        yield daemon


def taken(host: CaissonHost, run: FlowRunId) -> tuple[datetime, datetime]:
    """When a build was taken, and when it had ended."""
    return host.when(run, "Pending"), host.when(run, "Completed")


def at_once(spans: list[tuple[datetime, datetime]]) -> int:
    """How many of them there were at the busiest moment."""
    return max(sum(began <= moment < ended for began, ended in spans) for moment, _ in spans)


def test_a_host_takes_as_many_as_it_may_and_one_of_each_repository_and_tells_why_others_wait(
    host: CaissonHost, client: httpx.Client, git: GitDaemon
) -> None:
    repositories = {
        name: git.repository(name, {"Dockerfile": "FROM debian:trixie-slim\nRUN sleep 12\n"}) for name in ("one", "two")
    }

    def ask(repository: str, image: str) -> FlowRunId:
        url = repositories[repository].url
        body = {"repository_url": url, "image": f"{IMAGES}-{image}", "no_cache": True, "limits": {"memory": "256m"}}
        answer = client.post("/api/builds", json=body)
        assert answer.status_code == 202, answer.text
        return FlowRunId(answer.json()["id"])

    def told(run: FlowRunId) -> dict[str, Any]:
        found: dict[str, Any] = client.get(f"/api/builds/{run}").json()
        return found

    def waits(run: FlowRunId, reason: str, *, ahead: int) -> None:
        place = {"ahead": ahead, "reason": f"waits: {reason}"}
        wait_for(f"{run} waits: {reason}", lambda: told(run)["queue"] == place, seconds=10)

    first = ask("one", "first")
    wait_for("the first runs", lambda: told(first)["state"] == "running", seconds=SECONDS)
    second = ask("one", "second")
    # There is a slot left, and no build of that repository may have it.
    waits(second, "repository limit", ahead=0)
    other = ask("two", "other")
    wait_for("the other one runs beside it", lambda: told(other)["state"] in ("starting", "running"), seconds=10)
    third = ask("two", "third")
    waits(third, "repository limit", ahead=1)
    listed = {
        build["id"]: build["queue"] for build in client.get("/api/builds", params={"state": "queued"}).json()["builds"]
    }
    assert {run: listed[run]["ahead"] for run in (second, third)} == {second: 0, third: 1}

    with client.stream("GET", f"/api/builds/{third}/log", headers={"Accept": "text/event-stream"}) as stream:
        lines = list(stream.iter_lines())
    states = [json.loads(data.removeprefix("data: ")) for name, data in pairwise(lines) if name == "event: state"]
    places = [state["queue"]["ahead"] for state in states if state["queue"]]
    assert places[0] == 1
    assert places == sorted(places, reverse=True)
    for run in (first, second, other, third):
        assert host.wait_for_state(run, "Completed", "Failed", "Crashed", seconds=SECONDS).state_name == "Completed"
    spans = {run: taken(host, run) for run in (first, second, other, third)}
    assert at_once(list(spans.values())) == SLOTS
    assert at_once([spans[first], spans[second]]) == at_once([spans[other], spans[third]]) == 1
