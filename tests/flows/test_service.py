"""Caisson as it runs: one launcher, a real Prefect server, builds over its API on a real engine."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from caisson.docker_engine import DockerEngine
from caisson.settings import Settings, load_settings
from deployments.names import build_deployment
from deployments.prefect_api import PrefectApi
from deployments.state import StateDir, recorded_run
from deployments.trigger import FlowRunId, LogLine, RunChanged, StepChanged, cancel, follow, run_state, trigger_build
from tests.conftest import find_engines
from tests.engine.repositories import GitDaemon, git_daemon
from tests.flows.caisson_host import free_port

BASE = "FROM debian:trixie-slim\n"
UP = [sys.executable, "-c", "from deployments.cli import main; main()", "up"]


@dataclass
class Service:
    settings: Settings
    environment: dict[str, str]
    process: subprocess.Popen[str]
    git: GitDaemon

    def trigger(self, api: PrefectApi, dockerfile: str, name: str, **request: Any) -> FlowRunId:
        repository = self.git.repository(name, {"Dockerfile": dockerfile})
        body = {"repository_url": repository.url, "image": "caisson-flow/service", **request}
        return trigger_build(api, {"request": body}, deployment=build_deployment(self.settings))

    def builders(self) -> list[str]:
        with DockerEngine(self.settings.docker_host) as engine:
            return [container.name for container in engine.list_containers({"caisson.host": self.settings.host_name})]


def _await(condition: Any, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.1)
    return False


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    host = find_engines()[0]
    state = tmp_path_factory.mktemp("service")
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith(("PREFECT_", "CAISSON_"))},
        "CAISSON_STATE_DIR": str(state / "state"),
        "CAISSON_SERVER_PORT": str(free_port()),
        "CAISSON_GATEWAY_PORT": "0",
        "CAISSON_DOCKER_HOST": host.docker_host,
        "CAISSON_HOST_NAME": "test-host",
        "CAISSON_DRAIN_SECONDS": "1",
        "CAISSON_MIN_FREE_BYTES": "64m",
    }
    settings = load_settings(
        _env_file=None,
        state_dir=state / "state",
        server_port=int(environment["CAISSON_SERVER_PORT"]),
        docker_host=host.docker_host,
        host_name="test-host",
    )
    with git_daemon(state / "git", host.gateway) as git, (state / "up.log").open("w+") as log:
        process = subprocess.Popen(UP, env=environment, stdout=log, stderr=log, text=True, start_new_session=True)
        try:
            ready = _await(lambda: process.poll() is not None or _is_up(settings), 150)
            assert ready, (state / "up.log").read_text()
            assert process.poll() is None, (state / "up.log").read_text()
            yield Service(settings, environment, process, git)
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                process.wait(90)


def _is_up(settings: Settings) -> bool:
    try:
        with PrefectApi.of(settings) as api:
            api.get(f"/deployments/name/build-image/{settings.host_name}")
    except Exception:
        return False
    return True


@pytest.fixture
def api(service: Service) -> Iterator[PrefectApi]:
    with PrefectApi.of(service.settings) as connection:
        yield connection


def test_a_build_over_the_api_runs_its_steps_as_tasks_and_leaves_a_report(service: Service, api: PrefectApi) -> None:
    run = service.trigger(api, BASE + "RUN echo a line of the build\n", "ok", no_cache=True)
    events = list(follow(api, run))
    final = [event for event in events if isinstance(event, RunChanged)][-1]
    assert final.state_type == "COMPLETED", final.message
    steps = {event.step for event in events if isinstance(event, StepChanged) and event.state_type == "COMPLETED"}
    assert steps >= {"check_mounts", "check_disk", "start_builder", "clone", "build", "tag_image", "remove_builder"}
    log = "\n".join(event.message for event in events if isinstance(event, LogLine))
    assert "a line of the build" in log
    artifacts = api.post("/artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [str(run)]}}})
    by_key = {artifact["key"]: artifact for artifact in artifacts}
    assert "caisson-flow/service" in by_key["build-report"]["data"]
    data = by_key["build-report-data"]["data"]
    report = data if isinstance(data, dict) else json.loads(data)
    assert (report["outcome"], report["flow_run_id"]) == ("built", str(run))
    assert service.builders() == []


def test_a_failed_build_says_why_in_the_runs_state(service: Service, api: PrefectApi) -> None:
    run = service.trigger(api, BASE + "RUN exit 42\n", "bad")
    final = [event for event in follow(api, run) if isinstance(event, RunChanged)][-1]
    assert final.state_type == "FAILED"
    assert "exit code 42" in final.message
    assert service.builders() == []


def test_cancel_ends_the_build_and_its_builder(service: Service, api: PrefectApi) -> None:
    run = service.trigger(api, BASE + "RUN sleep 600\n", "slow")
    assert _await(lambda: service.builders() != [], 60)
    time.sleep(2)
    final = cancel(api, run)
    assert final.state_type == "CANCELLED"
    assert _await(lambda: service.builders() == [], 10)


def test_a_run_that_is_killed_is_crashed_and_its_builder_reaped(service: Service, api: PrefectApi) -> None:
    run = service.trigger(api, BASE + "RUN sleep 600\n", "killed")
    assert _await(lambda: service.builders() != [], 60)
    process = recorded_run(StateDir(service.settings.state_dir), run)
    assert process is not None
    os.kill(process.pid, signal.SIGKILL)
    assert _await(lambda: run_state(api, run).state_type == "CRASHED", 30)
    assert _await(lambda: service.builders() == [], 20)


def _environ(process: Path) -> bytes:
    try:
        return (process / "environ").read_bytes()
    except OSError:
        return b""


def test_a_second_up_finds_the_first(service: Service) -> None:
    done = subprocess.run(UP, env=service.environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0
    assert str(service.settings.server_port) in done.stdout


def test_sigterm_leaves_nothing_running_and_no_run_in_a_false_state(service: Service, api: PrefectApi) -> None:
    service.trigger(api, BASE + "RUN sleep 600\n", "drained")
    assert _await(lambda: service.builders() != [], 60)
    service.process.send_signal(signal.SIGTERM)
    assert service.process.wait(90) == 0
    assert service.builders() == []
    marker = f"CAISSON_STATE_DIR={service.settings.state_dir}".encode()
    left = [entry.name for entry in Path("/proc").iterdir() if entry.name.isdigit() and marker in _environ(entry)]
    assert left == []
