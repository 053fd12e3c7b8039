"""A client that goes away takes its build with it, through the guard, on both builders; and so does the guard's end."""

from __future__ import annotations

import os
import random
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from caisson.guard.policy import GuardPolicy
from caisson.reference import parse_reference
from tests.conftest import EngineHost
from tests.engine.guarded import guarded

IMAGE = "caisson.invalid/build:guard-cancel"
POLICY = GuardPolicy(image=parse_reference(IMAGE))
START_SECONDS, END_SECONDS = 60, 10


def running(argument: str) -> bool:
    """Whether a process with that argument is on this host; both engines' containers are."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                arguments = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if arguments[:2] == [b"sleep", argument.encode()]:
                return True
    return False


def wait(until: Callable[[], bool], seconds: float) -> float:
    """How long it took; fails where it does not come about."""
    began = time.monotonic()
    while not until():
        assert time.monotonic() - began < seconds
        time.sleep(0.02)
    return time.monotonic() - began


@contextmanager
def building(command: list[str], env: dict[str, str], context: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """A build whose RUN step sleeps; the process of its client, and what the sleep can be told by."""
    context.mkdir()
    seconds = f"{random.randrange(10**6, 10**7)}"
    (context / "Dockerfile").write_text(f"FROM debian:trixie-slim\nRUN sleep {seconds}\n")
    client = subprocess.Popen([*command, str(context)], env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait(lambda: running(seconds), START_SECONDS)
        yield client, seconds
    finally:
        client.kill()
        client.wait()


@pytest.mark.parametrize("builder", ["classic", "buildkit"])
@pytest.mark.parametrize("ends", ["client", "guard"])
def test_the_daemon_stops_the_build(
    engine_host: EngineHost,
    buildx: tuple[Path, ...],
    tmp_path: Path,
    builder: str,
    ends: str,
) -> None:
    command = {
        "classic": ["docker", "build", "--no-cache", f"--tag={IMAGE}"],
        "buildkit": [str(buildx[0]), "build", "--no-cache", "--provenance=false", f"--tag={IMAGE}"],
    }[builder]
    with ExitStack() as stack:
        guard = stack.enter_context(guarded(tmp_path, engine_host.socket, POLICY))
        env = {
            "DOCKER_HOST": guard.host,
            "DOCKER_BUILDKIT": "0",
            "HOME": str(tmp_path),
            "PATH": os.environ["PATH"],
        }
        with building(command, env, tmp_path / "context") as (client, seconds):
            if ends == "client":
                client.kill()
            else:
                stack.close()
            took = wait(lambda: not running(seconds), END_SECONDS)
        assert took < END_SECONDS
        assert not guard.denials()
