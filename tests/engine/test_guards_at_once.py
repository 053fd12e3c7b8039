"""Ten builds at once, each behind a guard in a process of its own: none meets another, and all stay small."""

from __future__ import annotations

import os
import subprocess
import uuid
from pathlib import Path

import pytest

from caisson.guard.policy import GuardPolicy
from caisson.reference import parse_reference
from tests.conftest import EngineHost
from tests.engine.buildx import copy_buildx
from tests.engine.guard_processes import guard_processes

GUARDS = 10
MOST_MEMORY = 40 << 20


@pytest.mark.parametrize("builder", ["classic", "buildkit"])
def test_ten_guards_serve_ten_builds_at_once(engine_host: EngineHost, tmp_path: Path, builder: str) -> None:
    program = ["docker", "build"]
    if builder == "buildkit":
        program = [str(copy_buildx(tmp_path / "docker-buildx")), "build", "--provenance=false"]
    images = [f"caisson-guarded/at-once:{uuid.uuid4().hex[:8]}" for _ in range(GUARDS)]

    def start(host: str, image: str) -> subprocess.Popen[str]:
        context = tmp_path / image.rpartition(":")[2]
        if not context.exists():
            context.mkdir()
            (context / "mine").write_text(image)
            # More than all buffers on the way hold.
            (context / "big").write_bytes(os.urandom(8 << 20))
            (context / "Dockerfile").write_text(f"FROM scratch\nCOPY mine big /\nLABEL own={context.name}\n")
        env = {"DOCKER_HOST": host, "DOCKER_BUILDKIT": "0", "HOME": str(tmp_path), "PATH": os.environ["PATH"]}
        command = [*program, "--no-cache", "--tag", image, str(context)]
        return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def end(client: subprocess.Popen[str]) -> tuple[int, str]:
        printed, _ = client.communicate(timeout=240)
        return client.returncode, printed

    policies = [GuardPolicy(image=parse_reference(image)) for image in images]
    try:
        with guard_processes(tmp_path, engine_host.socket, policies) as guards:
            clients = [start(guard.host, image) for guard, image in zip(guards, images, strict=True)]
            for code, printed in map(end, clients):
                assert code == 0, printed
            # Each guard builds its own, and none builds its neighbour's.
            others = [start(guard.host, image) for guard, image in zip(guards, images[1:] + images[:1], strict=True)]
            for code, printed in map(end, others):
                assert code != 0
                assert "has to be named" in printed
            memory = [guard.added_memory() for guard in guards]
        for image in images:
            label = docker(engine_host, "inspect", "--format", "{{.Config.Labels.own}}", image).strip()
            assert label == image.rpartition(":")[2]
    finally:
        for image in images:
            docker(engine_host, "rmi", "-f", image, check=False)
    assert max(memory) < MOST_MEMORY, memory


def docker(host: EngineHost, *command: str, check: bool = True) -> str:
    program = ["docker", "--host", host.docker_host, *command]
    return subprocess.run(program, check=check, capture_output=True, text=True, timeout=60).stdout
