"""What those see who watch the builds of a real host: why they wait, their logs, traces, metrics and log records."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import httpx
import pytest

from caisson.docker_engine import DockerEngine
from caisson.settings import Settings
from caisson.tokens import make_grant
from deployments.gateway import answers, gateway_command, gateway_environment, gateway_url
from deployments.token_store import TokenStore
from deployments.trigger import FlowRunId
from tests.conftest import find_engines
from tests.engine.repositories import GitDaemon, git_daemon
from tests.flows.caisson_host import ROOT, CaissonHost, free_port, wait_for
from tests.flows.log_events import events, lines, never
from tests.otlp_collector import Collector

IMAGES = "caisson-flow/watched"
BASE = "FROM debian:trixie-slim\n"
SLOTS = 2
SECONDS = 120.0


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    made = Collector()
    yield made
    made.close()


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory, caisson: CaissonHost, collector: Collector) -> Iterator[CaissonHost]:
    """Two slots, and one build of a repository at once."""
    engine = find_engines()[0]
    made = CaissonHost(
        tmp_path_factory.mktemp("watched"),
        f"watched-builds-{os.getpid()}",
        {
            "CAISSON_DOCKER_HOST": engine.docker_host,
            "CAISSON_MIN_FREE_BYTES": "64m",
            "CAISSON_CONCURRENCY": str(SLOTS),
            "CAISSON_REPOSITORY_CONCURRENCY": "1",
            "CAISSON_POLL_SECONDS": "2",
            "CAISSON_GATEWAY_PORT": str(free_port()),
            "CAISSON_LOG_FORMAT": "json",
            "CAISSON_OTLP_ENDPOINT": collector.url,
        },
    )
    made.copy_database(caisson)
    made.up()
    try:
        yield made
    finally:
        made.stop()
        with DockerEngine(engine.docker_host) as docker:
            for tag in [tag for image in docker.list_images() for tag in image.tags if tag.startswith(IMAGES)]:
                docker.untag_image(tag)


@contextmanager
def client_of(settings: Settings) -> Iterator[httpx.Client]:
    """A client of the API on these settings, as soon as that answers, with a token of its own."""
    wait_for("the API answers", lambda: answers(gateway_url(settings)))
    token, _ = TokenStore.of(settings).create("watcher", make_grant(["build", "read"]), lifetime=None)
    headers = {"Authorization": f"Bearer {token}"}
    with httpx.Client(base_url=gateway_url(settings), headers=headers, timeout=SECONDS) as client:
        yield client


@pytest.fixture(scope="module")
def client(host: CaissonHost) -> Iterator[httpx.Client]:
    with client_of(host.settings) as client:
        yield client


@pytest.fixture(scope="module")
def elsewhere(host: CaissonHost, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A client of the API of another host, which has joined the same Prefect and nothing of this one's files."""
    settings = Settings(
        _env_file=None,
        state_dir=tmp_path_factory.mktemp("elsewhere"),
        host_name="elsewhere",
        api_url=host.api.api_url,
        gateway_port=free_port(),
    )
    inherited = {name: text for name, text in host.env.items() if not name.startswith("CAISSON_")}
    with subprocess.Popen(gateway_command(), env=gateway_environment(settings, inherited), cwd=ROOT) as process:
        try:
            with client_of(settings) as client:
                yield client
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def git(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GitDaemon]:
    with git_daemon(tmp_path_factory.mktemp("git"), find_engines()[0].gateway) as daemon:
        yield daemon


def ask(client: httpx.Client, url: str, image: str, **params: str) -> FlowRunId:
    body = {"repository_url": url, "image": f"{IMAGES}-{image}", "no_cache": True, "limits": {"memory": "256m"}}
    answer = client.post("/api/builds", json=body, params=params)
    assert answer.status_code == 202, answer.text
    return FlowRunId(answer.json()["id"])


def completed(host: CaissonHost, run: FlowRunId) -> FlowRunId:
    """The run, once it has ended well."""
    state = host.wait_for_state(run, "Completed", "Failed", "Crashed", seconds=SECONDS)
    assert state.state_name == "Completed", state.message
    return run


def taken(host: CaissonHost, run: FlowRunId) -> tuple[datetime, datetime]:
    """When a build was taken, and when it had ended."""
    return host.when(run, "Pending"), host.when(run, "Completed")


def at_once(spans: list[tuple[datetime, datetime]]) -> int:
    """How many of them there were at the busiest moment."""
    return max(sum(began <= moment < ended for began, ended in spans) for moment, _ in spans)


def test_a_host_takes_as_many_as_it_may_and_one_of_each_repository_and_tells_why_others_wait(
    host: CaissonHost, client: httpx.Client, git: GitDaemon
) -> None:
    one, two = (git.repository(name, {"Dockerfile": BASE + "RUN sleep 12\n"}).url for name in ("one", "two"))

    def told(run: FlowRunId) -> dict[str, Any]:
        found: dict[str, Any] = client.get(f"/api/builds/{run}").json()
        return found

    def waits(run: FlowRunId, reason: str, *, ahead: int) -> None:
        place = {"ahead": ahead, "reason": f"waits: {reason}"}
        wait_for(f"{run} waits: {reason}", lambda: told(run)["queue"] == place, seconds=10)

    first = ask(client, one, "first")
    wait_for("the first runs", lambda: told(first)["state"] == "running", seconds=SECONDS)
    second = ask(client, one, "second")
    # There is a slot left, and no build of that repository may have it.
    waits(second, "repository limit", ahead=0)
    other = ask(client, two, "other")
    wait_for("the other one runs beside it", lambda: told(other)["state"] in ("starting", "running"), seconds=10)
    third = ask(client, two, "third")
    waits(third, "repository limit", ahead=1)
    listed = {
        build["id"]: build["queue"] for build in client.get("/api/builds", params={"state": "queued"}).json()["builds"]
    }
    assert {run: listed[run]["ahead"] for run in (second, third)} == {second: 0, third: 1}

    seen = events(client, third, until=never)
    states = [json.loads(event["data"]) for event in seen if event["event"] == "state"]
    places = [state["queue"]["ahead"] for state in states if state["queue"]]
    assert places[0] == 1
    assert places == sorted(places, reverse=True)
    for run in (first, second, other, third):
        completed(host, run)
    spans = {run: taken(host, run) for run in (first, second, other, third)}
    assert at_once(list(spans.values())) == SLOTS
    assert at_once([spans[first], spans[second]]) == at_once([spans[other], spans[third]]) == 1


def test_a_log_is_followed_on_the_api_of_another_host_through_a_broken_connection(
    host: CaissonHost, elsewhere: httpx.Client, git: GitDaemon
) -> None:
    numbers = [f"number-{n}" for n in range(1, 13)]
    steps = f"RUN sleep 3; for i in $(seq {len(numbers)}); do echo number-$i; sleep 0.5; done\n"
    run = ask(elsewhere, git.repository("far", {"Dockerfile": BASE + steps}).url, "far", host=host.name)
    first = events(elsewhere, run, until=lambda seen: numbers[1] in lines(seen).splitlines())
    assert numbers[-1] not in lines(first).splitlines(), "the log is seen only when all is over"
    position = [event["id"] for event in first if event["id"]][-1]
    rest = events(elsewhere, run, position, until=never)
    told = [line for line in lines([*first, *rest]).splitlines() if line in numbers]
    assert told == numbers
    text = elsewhere.get(f"/api/builds/{run}/log", headers={"Accept": "text/plain"}).text
    assert [line for line in text.splitlines() if line in numbers] == numbers
    end = json.loads(rest[-1]["data"])
    assert (end["state"], end["report"]["host"], end["report"]["flow_run_id"]) == ("succeeded", host.name, run)


def test_a_build_is_seen_in_traces_metrics_and_records_of_the_log(
    host: CaissonHost, client: httpx.Client, git: GitDaemon, collector: Collector
) -> None:
    run = completed(host, ask(client, git.repository("seen", {"Dockerfile": BASE + "RUN true\n"}).url, "seen"))
    report = client.get(f"/api/builds/{run}").json()["report"]

    def trace() -> dict[str, str]:
        """The spans of this build, each with its parent's name."""
        for spans in collector.traces():
            names = {span.span_id: span.name for span in spans}
            if run in {each.value.string_value for span in spans for each in span.attributes}:
                return {span.name: names.get(span.parent_span_id, "") for span in spans}
        return {}

    spans = wait_for("its trace", trace)
    assert spans["build-image"] == ""
    assert {name for name, parent in spans.items() if parent == "build-image"} >= {"clone", "build", "tag_image"}
    assert [name for name, parent in spans.items() if parent == "build" and "RUN true" in name]

    completed(host, host.trigger("monitor-disk"))
    metrics = client.get("/metrics").text
    for sample in (
        f'caisson_builds_total{{builder="{report["builder"]}",outcome="built"}}',
        'caisson_build_step_duration_seconds_count{step="clone"}',
        'caisson_guard_decisions_total{rule="build",verdict="allow"}',
    ):
        assert re.search(rf"^{re.escape(sample)} [1-9]", metrics, re.MULTILINE), f"{sample}\n{metrics}"
    assert 'caisson_build_failures_total{kind="engine-lost"} 0.0' in metrics

    records = [
        (file.stem, json.loads(line))
        for file in (host.state_dir / "logs").glob("*.log")
        for line in file.read_text().splitlines()
    ]
    assert all({"time", "level", "logger", "message", "host"} <= record.keys() for _, record in records)
    mine = [(log, record) for log, record in records if record.get("build_id") == report["build_id"]]
    assert {(record["flow_run_id"], record["host"]) for _, record in mine} == {(run, host.name)}
    assert any("RUN true" in record["message"] for log, record in mine if log == "runs")
    (end,) = [record for log, record in mine if log == "worker"]
    assert re.search(rf"the build of {IMAGES}-seen is built after [0-9.]+ s$", end["message"])
