"""The report's way out: a private file always, two artifacts where a Prefect run is, and never a failure of its own."""

from __future__ import annotations

import json
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from caisson.build import Build, report_file
from caisson.engine import Engine
from caisson.errors import BuildStepFailed
from caisson.report import BuildReport
from caisson.request import BuildRequest
from caisson.settings import Settings
from caisson.spec import make_spec
from deployments.server import client_environment
from deployments.state import StateDir
from tasks.publish_report import publish_report
from tests.flows.caisson_host import ROOT, CaissonHost

# A flow of its own process, as every run is: prints its run's ID and how many seconds publishing took. With an
# address its client talks to that, and is given up after so many seconds.
SCRIPT = """
import sys, time
from prefect import flow
from prefect.client.orchestration import SyncPrefectClient
from prefect.runtime import flow_run
from caisson.errors import BuildCancelled
from tasks import publish_report as publishing
from tests.flows.test_publish_report import make_build

if sys.argv[2:]:
    publishing.get_client = lambda sync_client: SyncPrefectClient(sys.argv[2])
    publishing._MOST_SECONDS = float(sys.argv[3])

@flow(name="publish")
def publish():
    with make_build(sys.argv[1], str(flow_run.get_id())) as build:
        report = build.report(BuildCancelled("The build was cancelled."))
        began = time.monotonic()
        publishing.publish_report(build, report)
        print(flow_run.get_id(), time.monotonic() - began, flush=True)

publish()
"""

# The flow itself, with a request (JSON); its run's ID on the last line, whatever became of it.
BUILD = """
import sys
from prefect import flow
from prefect.runtime import flow_run
from caisson.spec import parse_request
from flows import build_image as module

load, run = module.load_settings, []
def load_settings():
    run.append(flow_run.get_id())
    return load()
module.load_settings = load_settings
try:
    module.build_image(parse_request(__import__("json").loads(sys.argv[1])))
except Exception as error:
    print(type(error).__name__, run[0])
"""


def make_build(state_dir: str | Path, flow_run_id: str = "") -> Build:
    """A build that never begins: no engine is asked."""
    settings = Settings(_env_file=None, state_dir=Path(state_dir))
    request = BuildRequest(repository_url="https://git.example/app.git", image="team/app")
    spec = make_spec(request, settings)
    engine = cast(Engine, None)
    return Build(request, spec, settings, engine, secrets={"token": "s3cr3t-canary"}, flow_run_id=flow_run_id)


@pytest.fixture
def build(tmp_path: Path) -> Iterator[Build]:
    with make_build(tmp_path / "state") as build:
        yield build


def _publish_in_flow(host: CaissonHost, state_dir: Path, *arguments: str) -> tuple[str, float, str]:
    env = client_environment(host.settings, StateDir(host.state_dir), host.env)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(state_dir), *arguments],
        env=env,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    run, seconds = done.stdout.split()
    return run, float(seconds), done.stderr


def _artifacts(host: CaissonHost, run: str) -> dict[str, dict[str, Any]]:
    with host.api as api:
        found = api.post("/artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [run]}}})
    return {artifact["key"]: artifact for artifact in found}


def test_the_file_is_whole_and_for_its_owner_only(build: Build) -> None:
    report = build.report()
    publish_report(build, report)
    file = report_file(build.settings, build.identity.build_id)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert BuildReport.model_validate_json(file.read_bytes()) == report


def test_a_second_report_takes_the_place_of_the_first_in_one_go(build: Build) -> None:
    publish_report(build, build.report())
    file = report_file(build.settings, build.identity.build_id)
    with file.open() as first:
        publish_report(build, build.report(BuildStepFailed("make ended with exit code 2.")))
        assert json.load(first)["outcome"] == "built"
    assert json.loads(file.read_text())["outcome"] == "failed"
    assert [path.name for path in file.parent.glob("*.new")] == []


def test_a_disk_that_takes_no_report_is_logged_and_nothing_more(build: Build, caplog: pytest.LogCaptureFixture) -> None:
    report_file(build.settings, build.identity.build_id).mkdir()
    publish_report(build, build.report())
    assert "could not be written" in caplog.text


def test_a_run_gets_a_report_to_read_and_the_same_for_machines(caisson: CaissonHost, tmp_path: Path) -> None:
    run, _, _ = _publish_in_flow(caisson, tmp_path)
    artifacts = _artifacts(caisson, run)
    assert set(artifacts) == {"build-report", "build-report-data"}
    page, data = artifacts["build-report"], artifacts["build-report-data"]
    assert (page["type"], data["type"]) == ("markdown", "json")
    assert page["data"].startswith("## ⏹ The build of team\\/app was cancelled")
    on_disk = report_file(Settings(_env_file=None, state_dir=tmp_path), run).read_text()
    assert BuildReport.model_validate(data["data"]) == BuildReport.model_validate_json(on_disk)


def test_an_api_that_never_answers_holds_nothing_up(caisson: CaissonHost, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}/api"
        run, seconds, log = _publish_in_flow(caisson, tmp_path, address, "0.5")
    assert seconds < 5
    assert "could not be shown in Prefect" in log
    assert report_file(Settings(_env_file=None, state_dir=tmp_path), run).exists()


def test_an_api_that_is_gone_fails_no_build(caisson: CaissonHost, tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{probe.getsockname()[1]}/api"
    _, seconds, log = _publish_in_flow(caisson, tmp_path, address, "10")
    assert seconds < 5
    assert "could not be shown in Prefect (ConnectError" in log


_URL = "https://git.example.com/team/app.git"


@pytest.mark.parametrize(
    ("changes", "request_changes", "kind"),
    [
        ({}, {"context": "/etc"}, "request-invalid"),
        ({}, {"secrets": ["nowhere"]}, "secret-missing"),
        ({"CAISSON_DOCKER_HOST": "unix:///run/nothing.sock"}, {}, "engine-unreachable"),
        ({"CAISSON_CPUS": "many"}, {}, "settings-invalid"),
    ],
)
def test_a_run_whose_build_never_begins_has_a_report_too(
    caisson: CaissonHost, tmp_path: Path, changes: dict[str, str], request_changes: dict[str, Any], kind: str
) -> None:
    env = client_environment(caisson.settings, StateDir(caisson.state_dir), caisson.env)
    request = {"repository_url": _URL, "image": "caisson-flow/unbegun", **request_changes}
    done = subprocess.run(
        [sys.executable, "-c", BUILD, json.dumps(request)],
        env={**env, "CAISSON_STATE_DIR": str(tmp_path), **changes},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    run = done.stdout.split()[-1]
    artifacts = _artifacts(caisson, run)
    # The run's own failure is one as well, without a key.
    assert set(artifacts) - {None} == {"build-report", "build-report-data"}
    report = BuildReport.model_validate(artifacts["build-report-data"]["data"])
    assert report.failure is not None
    assert (report.outcome, report.failure["kind"], report.flow_run_id) == ("failed", kind, run)
    assert (report.repository_url, report.image, report.steps) == (_URL, "caisson-flow/unbegun", [])
    assert artifacts["build-report"]["data"].startswith("## ✗ The build of caisson\\-flow\\/unbegun failed")
    file = report_file(Settings(_env_file=None, state_dir=tmp_path), run)
    # Where the settings can't be read, nobody knows where its file would be.
    assert file.exists() == (kind != "settings-invalid")
