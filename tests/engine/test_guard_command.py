"""``caisson guard`` as a person uses it: one image can be built by the docker client, and nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import EngineHost

BASE = "FROM debian:trixie-slim\n"


@dataclass(frozen=True)
class Guarded:
    socket: Path
    image: str
    audit: Path
    process: subprocess.Popen[str]

    def docker(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        env = {**os.environ, "DOCKER_HOST": f"unix://{self.socket}", "DOCKER_BUILDKIT": "0"}
        return subprocess.run(["docker", *arguments], env=env, capture_output=True, text=True, timeout=120, check=False)

    def build(self, directory: Path, dockerfile: str) -> subprocess.CompletedProcess[str]:
        directory.mkdir(exist_ok=True)
        (directory / "Dockerfile").write_text(dockerfile)
        return self.docker("build", "-t", self.image, str(directory))


@contextmanager
def guarding(host: EngineHost, directory: Path, *options: str) -> Iterator[Guarded]:
    socket, audit, image = (
        directory / "g.sock",
        directory / "audit.jsonl",
        f"caisson-test/guarded:{uuid.uuid4().hex[:8]}",
    )
    command = ["guard", "--socket", socket, "--image", image, "--engine", host.docker_host, "--audit", audit, *options]
    process = subprocess.Popen(
        [str(Path(sys.executable).parent / "caisson"), *map(str, command)], text=True, stdout=subprocess.PIPE
    )
    try:
        deadline = time.monotonic() + 30
        while not socket.exists():
            assert process.poll() is None and time.monotonic() < deadline, "the guard's socket is not there"  # noqa: PT018
            time.sleep(0.05)
        yield Guarded(socket, image, audit, process)
    finally:
        process.terminate()
        process.wait(timeout=20)
        subprocess.run(["docker", "--host", host.docker_host, "rmi", "-f", image], capture_output=True, check=False)


def test_its_image_is_built_and_nothing_else_is_possible(engine_host: EngineHost, tmp_path: Path) -> None:
    with guarding(engine_host, tmp_path) as guard:
        built = guard.build(tmp_path / "good", BASE + "RUN echo whole > /whole\nFROM scratch\nCOPY --from=0 /whole /\n")
        assert built.returncode == 0, built.stderr
        for command in (["ps"], ["run", "--rm", "debian:trixie-slim", "true"], ["rmi", "debian:trixie-slim"]):
            refused = guard.docker(*command)
            assert refused.returncode != 0
            assert "no part of building an image" in refused.stderr, refused.stderr
        other = guard.docker("build", "-t", "caisson-test/other:1", str(tmp_path / "good"))
        assert other.returncode != 0
    assert not guard.socket.exists()
    assert guard.process.returncode == 0
    lines = [json.loads(line) for line in guard.audit.read_text().splitlines()]
    assert {line["verdict"] for line in lines} == {"allow", "deny"}


@pytest.mark.parametrize(
    ("dockerfile", "reason"),
    [
        (BASE + "ADD http://127.0.0.1:1/secret /\n", "127.0.0.1"),
        ("FROM caisson.local/build:0123456789ab\n", "caisson.local"),
        ("ARG ONLY=this\n", "FROM"),
    ],
)
def test_a_dockerfile_that_reaches_for_more_is_denied_before_the_engine_reads_it(
    engine_host: EngineHost, tmp_path: Path, dockerfile: str, reason: str
) -> None:
    with guarding(engine_host, tmp_path) as guard:
        refused = guard.build(tmp_path / "bad", dockerfile)
    assert refused.returncode != 0
    assert reason in refused.stderr
    assert "Step 1" not in refused.stdout


def test_buildkit_is_served_too_and_audit_only_denies_nothing(
    engine_host: EngineHost,
    buildx: tuple[Path, ...],
    tmp_path: Path,
) -> None:
    def build(guard: Guarded, image: str) -> subprocess.CompletedProcess[str]:
        env = {"DOCKER_HOST": f"unix://{guard.socket}", "HOME": str(tmp_path), "PATH": os.environ["PATH"]}
        command = [str(buildx[0]), "build", "-t", image, str(context)]
        return subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=False)

    context = tmp_path / "good"
    context.mkdir()
    (context / "Dockerfile").write_text(BASE + "RUN true\n")
    with guarding(engine_host, tmp_path) as guard:
        built = build(guard, guard.image)
        assert built.returncode == 0, built.stderr
        other = build(guard, "caisson-test/other:1")
        assert "has to be named" in other.stderr
    watching = tmp_path / "watching"
    watching.mkdir()
    with guarding(engine_host, watching, "--audit-only") as guard:
        other = build(guard, "caisson-test/other:1")
        assert other.returncode == 0, other.stderr
        subprocess.run(["docker", "--host", engine_host.docker_host, "rmi", "caisson-test/other:1"], check=True)
    lines = [json.loads(line) for line in guard.audit.read_text().splitlines()]
    assert "build-name" in {line["rule"] for line in lines if line.get("would_deny")}
