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
from datetime import UTC, datetime
from pathlib import Path

import pytest

from caisson.engine import ImageID
from caisson.ledger import Ledger
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
def guarding(host: EngineHost, directory: Path, *options: str, state: Path | None = None) -> Iterator[Guarded]:
    socket, audit, image = (
        directory / "g.sock",
        directory / "audit.jsonl",
        f"caisson-test/guarded:{uuid.uuid4().hex[:8]}",
    )
    command = ["guard", "--socket", socket, "--image", image, "--engine", host.docker_host, "--audit", audit, *options]
    process = subprocess.Popen(
        [str(Path(sys.executable).parent / "caisson"), *map(str, command)],
        env={**os.environ, "CAISSON_STATE_DIR": str(state or directory / "no-state")},
        text=True,
        stdout=subprocess.PIPE,
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


def test_buildkit_is_served_too(
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


def build_with(buildx: Path, guard: Guarded, context: Path, *options: str, image: str = "") -> subprocess.Popen[str]:
    env = {"DOCKER_HOST": f"unix://{guard.socket}", "HOME": str(context), "PATH": os.environ["PATH"]}
    command = [
        str(buildx),
        "build",
        "--progress=plain",
        "--no-cache",
        "-t",
        image or guard.image,
        *options,
        str(context),
    ]
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finished(process: subprocess.Popen[str]) -> str:
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    return output


def make_context(directory: Path, dockerfile: str) -> Path:
    directory.mkdir()
    (directory / "Dockerfile").write_text(dockerfile)
    return directory


def test_audit_only_changes_nothing(engine_host: EngineHost, buildx: tuple[Path, ...], tmp_path: Path) -> None:
    """Two builds at once of other names, by both builders, without a limit on their steps."""
    limits = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/cpu/cpu.cfs_quota_us"
    context = make_context(tmp_path / "context", f"{BASE}RUN {limits} && sleep 3\n")
    others = [f"caisson-test/other-{number}:{uuid.uuid4().hex[:8]}" for number in range(2)]
    watching = tmp_path / "watching"
    watching.mkdir()
    with guarding(engine_host, watching, "--audit-only", "--memory=64m") as guard:
        info, own = (
            subprocess.run(
                ["docker", "--host", host, "info", "--format", "{{.Name}} {{.ServerVersion}} {{.NCPU}}"],
                capture_output=True, text=True, check=True,
            ).stdout
            for host in (f"unix://{guard.socket}", engine_host.docker_host)
        )  # fmt: skip
        assert info == own
        builds = [build_with(buildx[0], guard, context, image=image) for image in others]
        env = {**os.environ, "DOCKER_HOST": f"unix://{guard.socket}", "DOCKER_BUILDKIT": "0"}
        builds += [
            subprocess.Popen(
                ["docker", "build", "--no-cache", "-t", image, str(context)],
                env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            )
            for image in (guard.image, guard.image)
        ]  # fmt: skip
        for process in builds:
            output = finished(process)
            # No limit at all, as the kernel writes it.
            assert "9223372036854771712" in output
            assert "-1" in output
        for command in (["run", "--rm", "debian:trixie-slim", "true"], ["rmi", *others]):
            done = guard.docker(*command)
            assert done.returncode == 0, done.stderr
    told = {line["rule"] for line in map(json.loads, guard.audit.read_text().splitlines()) if line.get("would_deny")}
    assert {"build-name", "build-busy", "session-busy", "endpoint"} <= told


def test_a_guard_by_hand_labels_limits_and_names_its_build(
    engine_host: EngineHost, buildx: tuple[Path, ...], tmp_path: Path
) -> None:
    context = make_context(tmp_path / "context", BASE + "RUN cat /proc/self/cgroup\n")
    with guarding(engine_host, tmp_path, "--label", "ci.job=7", "--build-id", "job7", "--memory", "96m") as guard:
        output = finished(build_with(buildx[0], guard, context))
        image = ["docker", "--host", engine_host.docker_host, "inspect", "-f", "{{json .Config.Labels}}", guard.image]
        labels = json.loads(subprocess.run(image, capture_output=True, text=True, check=True).stdout)
    assert labels["ci.job"] == "7"
    # BuildKit in 20.10 knows no control group, which the command has said.
    assert (":/caisson/" in output) == (not engine_host.name.startswith("20."))
    assert {json.loads(line)["build"] for line in guard.audit.read_text().splitlines()} == {"job7"}


def test_images_of_caissons_builds_are_not_read(engine_host: EngineHost, tmp_path: Path) -> None:
    state = tmp_path / "state"
    with Ledger(state / "ledger.sqlite") as ledger:
        image = ImageID("sha256:" + "1" * 64)
        now = datetime.now(UTC)
        ledger.builds.record_build(
            build_id="b", spec_hash="s", sha="1" * 40, repository_url="https://h/a.git", image_id=image, finished=now,
            seconds=1,
        )  # fmt: skip
        ledger.builds.record_tag(reference="team/secret:1", image_id=image, previous=None, build_id="b", tagged=now)
    with guarding(engine_host, tmp_path, state=state) as guard:
        refused = guard.build(tmp_path / "bad", "FROM team/secret:1\n")
    assert refused.returncode != 0
    assert "team/secret" in refused.stderr
    assert "Step 1" not in refused.stdout


def test_a_guard_ends_when_its_time_is_over(engine_host: EngineHost, tmp_path: Path) -> None:
    with guarding(engine_host, tmp_path, "--for", "2s") as guard:
        assert guard.process.wait(timeout=20) == 0
        assert not guard.socket.exists()
