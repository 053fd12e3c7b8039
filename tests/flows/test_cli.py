"""``caisson build`` over the API of a real Caisson: what it shows, what it prints, how it ends."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from caisson.docker_engine import DockerEngine
from caisson.errors import BuildCancelled, BuildStepFailed, SecretMissing, ServiceUnreachable
from tests.conftest import ask_engine, find_engines
from tests.engine.repositories import GitDaemon, git_daemon
from tests.flows.caisson_host import CaissonHost

BASE = "FROM debian:trixie-slim\n"
CAISSON = str(Path(sys.executable).with_name("caisson"))
SECONDS = 240


@pytest.fixture(scope="module", autouse=True)
def _no_image_is_left() -> Iterator[None]:
    yield
    with DockerEngine(find_engines()[0].docker_host) as engine:
        for tag in [tag for image in engine.list_images() for tag in image.tags if tag.startswith("caisson-flow/")]:
            engine.untag_image(tag)


@pytest.fixture(scope="module")
def git(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GitDaemon]:
    with git_daemon(tmp_path_factory.mktemp("git"), find_engines()[0].gateway) as daemon:
        yield daemon


def run(host: CaissonHost, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [CAISSON, *arguments], env=host.env, capture_output=True, text=True, timeout=SECONDS, check=False
    )


def test_a_build_is_shown_step_by_step_and_ends_with_a_summary(caisson: CaissonHost, git: GitDaemon) -> None:
    url = git.repository("ok", {"Dockerfile": BASE + "RUN echo from-the-step\n"}).url
    done = run(caisson, "build", url, "--image", "caisson-flow/cli", "--no-cache")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    steps = [line.split()[1] for line in lines if line.startswith("✓ ")]
    assert steps == [
        "check_mounts",
        "check_disk",
        "start_builder",
        "resolve_commit",
        "reuse_image",
        "clone",
        "check_dockerfile",
        "build",
        "tag_image",
        "remove_builder",
    ]
    assert "  from-the-step" in lines
    assert any(line.startswith("Built caisson-flow/cli at ") for line in lines)
    assert any("caisson-flow/cli:main" in line for line in lines)
    assert not any("Beginning flow run" in line or "Finished in state" in line for line in lines)


def test_no_line_of_the_log_is_lost_or_out_of_order(caisson: CaissonHost, git: GitDaemon) -> None:
    url = git.repository("many", {"Dockerfile": BASE + "RUN seq -f 'number %05g' 1 5000\n"}).url
    done = run(caisson, "build", url, "--image", "caisson-flow/cli", "--no-cache")
    numbers = [line for line in done.stdout.splitlines() if line.startswith("  number ")]
    assert numbers == [f"  number {number:05}" for number in range(1, 5001)]


def test_json_is_the_report_and_nothing_else(caisson: CaissonHost, git: GitDaemon) -> None:
    url = git.repository("fails", {"Dockerfile": BASE + "RUN echo reason; exit 3\n"}).url
    done = run(caisson, "build", url, "--image", "caisson-flow/cli", "--json")
    report = json.loads(done.stdout)
    assert (done.returncode, report["outcome"]) == (BuildStepFailed.exit_code, "failed")
    assert report["failure"]["details"]["exit_code"] == 3
    assert report["flow_run_id"]
    assert "reason" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_run_that_fails_before_its_build_begins_has_its_own_exit_code(caisson: CaissonHost, git: GitDaemon) -> None:
    url = git.repository("secret", {"Dockerfile": BASE}).url
    done = run(caisson, "build", url, "--image", "caisson-flow/cli", "--secret", "nowhere", "--json")
    failure = json.loads(done.stdout)["failure"]
    assert (done.returncode, failure["kind"]) == (SecretMissing.exit_code, "secret-missing")
    assert "CAISSON_SECRET_NOWHERE" in done.stderr


def test_ctrl_c_cancels_the_run_and_waits_until_its_builder_is_gone(caisson: CaissonHost, git: GitDaemon) -> None:
    url = git.repository("slow", {"Dockerfile": BASE + "RUN echo it-sleeps && sleep 600\n"}).url
    process = subprocess.Popen(
        [CAISSON, "build", url, "--image", "caisson-flow/cli"],
        env=caisson.env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    run_id = process.stdout.readline().split()[1].rstrip(":")
    assert any(line == "  it-sleeps\n" for line in process.stdout)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == BuildCancelled.exit_code
    containers = ask_engine(find_engines()[0], "/containers/json?all=1")
    assert not [item for item in containers if item["Labels"].get("caisson.flow-run") == run_id]
    assert "Cancelling" in out
    assert err.startswith("caisson: The build was cancelled.")
    with caisson.api as api:
        assert api.get(f"/flow_runs/{run_id}")["state_type"] == "CANCELLED"


def test_a_detached_build_is_followed_by_logs_and_listed_by_builds(caisson: CaissonHost, git: GitDaemon) -> None:
    url = git.repository("detached", {"Dockerfile": BASE + "RUN echo said-later\n"}).url
    began = json.loads(
        run(caisson, "build", url, "--image", "caisson-flow/detached", "--no-cache", "--detach", "--json").stdout
    )
    assert began["failure"] is None
    log = ""
    deadline = time.monotonic() + 60
    while "said-later" not in log and time.monotonic() < deadline:
        log = run(caisson, "logs", began["flow_run_id"], "--follow").stdout
    assert "said-later" in log.splitlines()
    rows = json.loads(run(caisson, "builds", "--json").stdout)
    (row,) = [row for row in rows if row["run"] == began["flow_run_id"]]
    assert (row["state"], row["image"], row["repository_url"]) == ("built", "caisson-flow/detached", url)


def test_doctor_finds_the_service_and_its_worker(caisson: CaissonHost) -> None:
    document = json.loads(run(caisson, "doctor", "--json").stdout)
    items = {item["name"]: item for item in document["items"]}
    assert (items["service"]["status"], items["worker"]["status"]) == ("ok", "ok")
    assert items["clock"]["message"].endswith("as the Prefect API's.")


def test_a_host_that_the_api_does_not_know_is_told(caisson: CaissonHost) -> None:
    done = run(caisson, "build", "https://example.com/x.git", "--image", "a", "--host", "elsewhere")
    assert done.returncode == ServiceUnreachable.exit_code
    assert "has no deployment build-image/elsewhere" in done.stderr
