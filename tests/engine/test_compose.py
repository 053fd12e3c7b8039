"""Caisson in containers, brought up by docker's own compose as the head of deployments/compose.yaml says: three healthy
services with no more rights than are argued, builds over the API, and stops that lose nothing.
"""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.conftest import find_compose_engine
from tests.engine.composed import API, PREFECT, ROOT, SERVICES, Composed, composed, make_images
from tests.engine.repositories import GitDaemon, git_daemon
from tests.flows.caisson_host import wait_for

BUILD_SECONDS = 120
# Looks at health more often than a host needs it, and takes the room on this machine's disk for enough.
OVERRIDE = """
services:
  database: {healthcheck: {interval: 2s}}
  server: {healthcheck: {interval: 2s}}
  worker:
    healthcheck: {interval: 2s, retries: 30}
    environment: {CAISSON_MIN_FREE_BYTES: 64m, CAISSON_DISK_CRITICAL: 99%, CAISSON_PRUNE_ON_PRESSURE: "false"}
"""
# Ended by itself, or by the signal that asks for it: 137 would be a kill.
CLEAN_ENDS = {"0", "143"}
ARGUED = re.compile(r"^\| `([a-z-]+)` \| ([a-z, ]+) \|", re.MULTILINE)

# The images are made in the first test's time: two minutes, where none of their layers are there.
pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Composed]:
    """Caisson in containers, from its images to three healthy services."""
    with composed(tmp_path_factory.mktemp("compose"), find_compose_engine()) as ours:
        (ours.directory / "compose.override.yaml").write_text(OVERRIDE)
        make_images(ours)
        # Without a token it would not start.
        create_token(ours, "ops", "read")
        ours.up()
        yield ours


@pytest.fixture(scope="module")
def token(service: Composed) -> str:
    return create_token(service, "ci", "build")


@pytest.fixture(scope="module")
def git(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GitDaemon]:
    with git_daemon(tmp_path_factory.mktemp("git"), find_compose_engine().gateway) as daemon:
        yield daemon


def create_token(service: Composed, name: str, scope: str) -> str:
    create = ("tokens", "create", name, "--scope", scope, "--expires", "never")
    return service.compose("run", "--rm", "--no-deps", "worker", *create).strip()


def build(service: Composed, token: str, git: GitDaemon, text: str) -> dict[str, Any]:
    """A build's own document, once it has succeeded."""
    dockerfile = f'FROM debian:trixie-slim\nRUN echo {text} >/said\nCMD ["cat", "/said"]\n'
    request = {
        "repository_url": git.repository(text, {"Dockerfile": dockerfile}).url,
        "image": f"caisson-compose/{text}",
        "limits": {"memory": "256m"},
    }
    status, accepted = ask(service, token, "POST", "/api/builds", request)
    assert status == 202, accepted

    def ended() -> dict[str, Any] | None:
        _, found = ask(service, token, "GET", f"/api/builds/{accepted['id']}")
        return found if found["state"] in ("succeeded", "failed", "crashed", "cancelled") else None

    found = wait_for("the build has ended", ended, seconds=BUILD_SECONDS)
    assert found is not None
    assert found["state"] == "succeeded", found
    return found


def ask(service: Composed, token: str, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    return service.ask(API, method, path, body, Authorization=f"Bearer {token}")


def said_by(service: Composed, built: dict[str, Any]) -> str:
    """What a container of the image prints; the image is gone afterwards."""
    image = built["report"]["image_id"]
    said = service.docker("run", "--rm", "--network=none", image)
    service.docker("rmi", "--force", image)
    return said


def test_all_services_are_healthy_and_tell_what_they_do(service: Composed) -> None:
    states = service.states()
    assert {name: state["State"]["Health"]["Status"] for name, state in states.items()} == dict.fromkeys(
        SERVICES, "healthy"
    )
    assert {name: state["RestartCount"] for name, state in states.items()} == dict.fromkeys(SERVICES, 0)
    assert "Caisson is up" in service.compose("logs", "worker")
    doctor = service.caisson("doctor")
    assert doctor.returncode == 0, doctor.stdout


def test_the_audit_finds_what_is_argued_and_nothing_else(service: Composed) -> None:
    table = (ROOT / "docs/operations.md").read_text()
    argued = {f"{rule}@caisson-{name}-1" for rule, names in ARGUED.findall(table) for name in names.split(", ")}
    done = service.caisson("audit", "--json")
    assert done.stdout, done.stderr
    ours = [finding for finding in json.loads(done.stdout)["findings"] if finding["area"] == "containers"]
    assert {finding["subject"] for finding in ours} == {f"caisson-{name}-1" for name in SERVICES}
    assert {finding["key"] for finding in ours if finding["status"] == "fail"} == argued
    assert {finding["key"] for finding in ours if finding["accepted"]} == argued
    assert [finding["key"] for finding in ours if finding["status"] == "unknown"] == []


def test_nobodys_settings_are_in_the_image(service: Composed) -> None:
    assert (service.directory / ".env").exists()
    looked = ("find", "/opt/caisson/deployments", "-name", ".env", "-o", "-name", "compose*")
    found = service.compose("exec", "--no-TTY", "worker", *looked)
    assert sorted(found.split()) == [f"/opt/caisson/deployments/compose.{name}" for name in ("env.example", "yaml")]


def test_the_ports_are_the_loopbacks(service: Composed) -> None:
    # What listens there, by the kernel.
    command = service.network.command("ss", "--no-header", "--listening", "--tcp", "--numeric")
    listening = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    published = {line.split()[3] for line in listening.splitlines() if line.split()[3].endswith((":4200", ":4280"))}
    assert published == {"127.0.0.1:4200", "127.0.0.1:4280"}
    assert service.ask(API, "GET", "/api/builds")[0] == 401
    assert service.ask(PREFECT, "GET", "/api/admin/version")[0] == 401


def test_builds_and_stops_that_lose_nothing(service: Composed, token: str, git: GitDaemon) -> None:
    begun = time.time()
    first = build(service, token, git, "first")
    assert said_by(service, first) == "first\n"
    assert list((service.engine.root / "run/caisson").glob("*.sock")) == []

    service.compose("restart", "server")
    wait_for("the build is there", lambda: knows(service, token, first), seconds=60)

    service.compose("down")
    assert service.states() == {}
    ends = service.ends_since(begun)
    assert {name for name, _ in ends} == set(SERVICES)
    assert {code for _, code in ends} <= CLEAN_ENDS, ends

    service.up()
    # The token's and the build's records are in two volumes, and a third has the run itself.
    wait_for("the build is there", lambda: knows(service, token, first), seconds=60)
    assert said_by(service, build(service, token, git, "second")) == "second\n"


def knows(service: Composed, token: str, built: dict[str, Any]) -> bool:
    try:
        status, found = ask(service, token, "GET", f"/api/builds/{built['id']}")
    except OSError:
        return False
    return status == 200 and found["state"] == "succeeded" and found["report"] == built["report"]
