"""``make demo`` as a person runs it, on a Caisson that is up: an image, what a container of it says, and Ctrl-C."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from caisson.docker_engine import DockerEngine
from caisson.errors import BuildCancelled, RequestInvalid
from tests.flows.caisson_host import ROOT, CaissonHost

DEMO = [sys.executable, "-m", "deployments.demo"]


def _demo(host: CaissonHost, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        DEMO, env=host.env | variables, cwd=ROOT, capture_output=True, text=True, timeout=180, check=False
    )


def _builders(host: CaissonHost) -> list[str]:
    with DockerEngine(host.settings.docker_host) as engine:
        return [container.name for container in engine.list_containers({"caisson.host": host.name})]


def _untag(host: CaissonHost) -> None:
    with DockerEngine(host.settings.docker_host) as engine:
        for image in engine.list_images():
            for tag in image.tags:
                if tag.startswith("caisson-demo/"):
                    engine.untag_image(tag)


@pytest.fixture(scope="module", autouse=True)
def _no_image_is_left(caisson: CaissonHost) -> Iterator[None]:
    yield
    _untag(caisson)


def test_the_sample_becomes_an_image_and_a_container_of_it_speaks(caisson: CaissonHost) -> None:
    done = _demo(caisson)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"Caisson runs: http://127.0.0.1:{caisson.settings.server_port}" in done.stdout
    assert re.search(r"image +sha256:[0-9a-f]{64}", done.stdout)
    assert "caisson-demo/greet:1.0.0" in done.stdout
    assert re.search(
        r"Hello, world, from an image that Caisson built: version 1\.0\.0, commit [0-9a-f]{40}", done.stdout
    )
    assert "caisson down" in done.stdout


def test_a_second_time_the_same_commit_is_the_same_image_without_a_build(caisson: CaissonHost) -> None:
    first, second = _demo(caisson), _demo(caisson)
    image = re.compile(r"image +(sha256:[0-9a-f]{64})")
    assert image.findall(first.stdout) == image.findall(second.stdout) != []
    assert "was on this host already; tagged without a build" in second.stdout


def test_ctrl_c_cancels_the_build_and_waits_until_its_builder_is_gone(caisson: CaissonHost) -> None:
    _untag(caisson)
    process = subprocess.Popen(
        DEMO, env=caisson.env, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for line in process.stdout:
        # Lines are shown a little later than they come: by now the builder is being started.
        if "check_mounts" in line:
            process.send_signal(signal.SIGINT)
            break
    output, errors = process.communicate(timeout=120)
    assert process.returncode == BuildCancelled.exit_code, output + errors
    assert "demo: The build was cancelled." in errors
    assert _builders(caisson) == []


@pytest.mark.parametrize("url", ["https://user:s3cr3t-canary@git.example/app.git", "ext::sh -c id", "file:///etc"])
def test_a_url_that_is_refused_is_refused_before_a_run_is_made(caisson: CaissonHost, url: str) -> None:
    done = _demo(caisson, CAISSON_DEMO_REPO=url)
    assert done.returncode == RequestInvalid.exit_code
    assert done.stderr.startswith("demo: The build request is invalid: repository_url: ")
    assert "s3cr3t-canary" not in done.stdout + done.stderr
    assert done.stdout == ""
