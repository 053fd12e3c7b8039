"""The set-up scripts: what is there is used as it is, what changed is made anew, what fails is said in a sentence."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import SETUP, EngineHost, ask_engine

IMAGE = "caisson-test/setup:latest"


def run(script: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(SETUP / script), *arguments],
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        check=False,
        capture_output=True,
        text=True,
    )


def image_id(host: EngineHost, image: str) -> str:
    return str(ask_engine(host, f"/images/{image}/json")["Id"])


@pytest.fixture
def directory(tmp_path: Path, engine_host: EngineHost) -> Iterator[Path]:
    (tmp_path / "Dockerfile").write_text("ARG BASE\nFROM ${BASE}\nCOPY helper /helper\n")
    (tmp_path / "helper").write_text("one\n")
    yield tmp_path
    subprocess.run(["docker", "--host", engine_host.docker_host, "rmi", IMAGE], check=False, capture_output=True)


def test_the_builder_image_is_built_again_only_when_its_directory_changes(
    engine_host: EngineHost, directory: Path
) -> None:
    def build() -> tuple[str, str]:
        done = run(
            "builder-image.sh", engine_host.docker_host, str(directory / "."), CAISSON_BUILDER_IMAGE=IMAGE, LANG="C"
        )
        assert done.returncode == 0, done.stderr
        return done.stdout, image_id(engine_host, IMAGE)

    said, first = build()
    assert said == f"Building {IMAGE}\n"
    assert build() == ("", first)

    (directory / "helper").chmod(0o755)
    said, second = build()
    assert said
    assert second != first
    with pytest.raises(OSError, match="404"):
        image_id(engine_host, first)


def test_a_build_that_fails_shows_the_end_of_its_log(engine_host: EngineHost, directory: Path) -> None:
    (directory / "Dockerfile").write_text("ARG BASE\nFROM ${BASE}\nRUN echo it-broke && false\n")
    done = run("builder-image.sh", engine_host.docker_host, str(directory), CAISSON_BUILDER_IMAGE=IMAGE)
    assert done.returncode != 0
    assert "it-broke" in done.stderr
    assert "builder-image.log" in done.stderr


def test_a_base_image_that_is_there_is_left_alone(engine_host: EngineHost) -> None:
    before = image_id(engine_host, "debian:trixie-slim")
    done = run("base-image.sh", engine_host.docker_host)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert image_id(engine_host, "debian:trixie-slim") == before


def test_engines_that_run_are_left_alone(engine_host: EngineHost) -> None:
    before = ask_engine(engine_host, "/info")["ID"]
    for done in (run("engine.sh"), run("test-engine.sh", "start")):
        assert (done.returncode, done.stderr) == (0, "")
        assert "Starting" not in done.stdout
    assert ask_engine(engine_host, "/info")["ID"] == before


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("tcp://127.0.0.1:1", "is no unix socket. Set it to unix:///PATH."),
        ("unix:///none/docker.sock", "No engine answers at CAISSON_DOCKER_HOST=unix:///none/docker.sock."),
    ],
)
def test_an_engine_that_is_not_there_is_never_replaced_by_another(address: str, sentence: str) -> None:
    done = run("engine.sh", CAISSON_DOCKER_HOST=address)
    assert done.returncode == 1
    assert sentence in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("script", "argument"), [("environment.sh", "--nope"), ("test-tools.sh", "x"), ("test-engine.sh", "x")]
)
def test_an_unknown_argument_is_named(script: str, argument: str) -> None:
    done = run(script, argument)
    assert done.returncode == 1
    assert f"'{argument}'" in done.stderr
