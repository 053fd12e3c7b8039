"""``caisson build`` in its own process, and ``caisson doctor``, on real engines."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Callable

import pytest

from caisson.engine import Engine
from caisson.errors import BuildCancelled, BuildStepFailed, RequestInvalid
from caisson.settings import Settings
from deployments.doctor import diagnose
from deployments.doctor.gather import gather
from tests.conftest import SETUP, EngineHost
from tests.engine.conftest import COMMAND_SECONDS, Builds, Run, Start

BASE = "FROM debian:trixie-slim\n"
Leftovers = Callable[[], list[str]]


def says(line: str, words: str) -> bool:
    """Whether a step of the Dockerfile printed the words; BuildKit's lines begin with the step's number."""
    return line.strip().rpartition("] ")[2] == words


def test_a_build_is_shown_step_by_step_and_ends_with_a_summary(
    run: Run, builds: Builds, engine: Engine, leftovers: Leftovers
) -> None:
    repository = builds.repository(BASE + "RUN echo from-the-step\n")
    done = run("build", repository.url, "--image", "caisson-test/cli", "--tag", "mine", "--only-tags", "--no-cache")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert [line.split()[1] for line in lines if line.startswith("✓ ")][-3:] == ["build", "tag_image", "remove_builder"]
    assert any(says(line, "from-the-step") for line in lines)
    summary = dict(line.split(maxsplit=1) for line in lines if line.startswith("  ") and len(line.split()) > 1)
    image = engine.inspect_image("caisson-test/cli:mine")
    assert image is not None
    assert summary["image"] == image.id
    assert summary["tags"] == "caisson-test/cli:mine"
    assert summary["limits"].startswith("verified")
    assert leftovers() == []
    assert run("logs").stdout.splitlines()[-1].endswith("is removed")
    assert json.loads(run("builds", "--json").stdout)[0]["state"] == "built"


def test_json_is_the_report_of_a_failed_build_and_its_exit_code_tells_the_kind(run: Run, builds: Builds) -> None:
    repository = builds.repository(BASE + "RUN echo reason; exit 3\n")
    done = run("build", repository.url, "--image", "caisson-test/cli", "--json")
    report = json.loads(done.stdout)
    assert (done.returncode, report["outcome"]) == (BuildStepFailed.exit_code, "failed")
    assert (report["failure"]["kind"], report["failure"]["details"]["exit_code"]) == ("build-step-failed", 3)
    assert any(says(line, "reason") for line in done.stderr.splitlines())
    assert "caisson: The Dockerfile step" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_invalid_request_makes_nothing(run: Run, settings: Settings) -> None:
    done = run("build", "--image", "team/app", "--json", "--", "--upload-pack=touch /tmp/x")
    assert done.returncode == RequestInvalid.exit_code
    assert json.loads(done.stdout)["failure"]["details"]["fields"][0]["field"] == "repository_url"
    assert not settings.state_dir.exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_a_signal_cancels_the_build_and_more_of_them_do_not_disturb_the_clean_up(
    number: signal.Signals, start: Start, run: Run, builds: Builds, leftovers: Leftovers
) -> None:
    repository = builds.repository(BASE + "RUN echo it-sleeps && sleep 600\n")
    process = start("build", repository.url, "--image", "caisson-test/cli", "--json")
    assert process.stderr is not None
    assert any(says(line, "it-sleeps") for line in process.stderr)
    assert len(leftovers()) == 1
    began = time.monotonic()
    for _ in range(5):
        process.send_signal(number)
        time.sleep(0.02)
    out, err = process.communicate(timeout=60)
    assert leftovers() == []
    assert process.returncode == BuildCancelled.exit_code
    report = json.loads(out)
    assert (report["outcome"], report["failure"]["kind"]) == ("cancelled", "cancelled")
    assert report["builder_removed"] is True
    assert "caisson: The build was cancelled." in err
    assert time.monotonic() - began < 20


@pytest.mark.parametrize("step", ["start_builder", "clone", "remove_builder"])
def test_a_build_that_is_cancelled_in_any_step_leaves_no_builder(
    step: str, start: Start, builds: Builds, leftovers: Leftovers
) -> None:
    repository = builds.repository(BASE + "RUN true\n")
    process = start("build", repository.url, "--image", "caisson-test/cli", "--no-cache")
    assert process.stdout is not None
    assert any(line == f"• {step}\n" for line in process.stdout)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert leftovers() == []
    # The last step may end before the signal is there.
    assert process.returncode in {BuildCancelled.exit_code, 0 if step == "remove_builder" else None}


def test_a_reader_that_goes_away_does_not_end_the_build(start: Start, builds: Builds, engine: Engine) -> None:
    repository = builds.repository(BASE + "RUN echo said\n")
    process = start("build", repository.url, "--image", "caisson-test/cli", "--tag", "kept", "--only-tags")
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(COMMAND_SECONDS) == 0
    assert engine.inspect_image("caisson-test/cli:kept") is not None


def test_doctor_finds_nothing_wrong_with_the_engine(run: Run, settings: Settings, engine_host: EngineHost) -> None:
    subprocess.run([str(SETUP / "builder-image.sh"), engine_host.docker_host], check=True, capture_output=True)
    done = run("doctor", "--json")
    items = {item["name"]: item for item in json.loads(done.stdout)["items"]}
    assert not [item for item in items.values() if item["status"] == "problem"]
    assert done.returncode == 0
    assert engine_host.name in items["engine"]["message"]
    assert "up to date" in items["builder image"]["message"]


def test_doctor_tells_an_old_builder_image_from_the_one_of_this_version(
    settings: Settings, engine_host: EngineHost
) -> None:
    """The script and doctor must mean the same by up to date."""
    subprocess.run([str(SETUP / "builder-image.sh"), engine_host.docker_host], check=True, capture_output=True)
    image = gather(settings).builder_image
    assert image is not None
    assert image.content == image.wanted != ""
    other = gather(settings.model_copy(update={"builder_image": "debian:trixie-slim"}))
    (item,) = [item for item in diagnose(other) if item.name == "builder image"]
    assert item.status == "warning"


def test_version_tells_the_engines(run: Run, engine: Engine) -> None:
    info = engine.info()
    assert f"{info.version} (API {info.api_version})" in run("version").stdout
