"""Caisson with PostgreSQL in the place of SQLite: a real one, in a cluster of its own."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from caisson.docker_engine import DockerEngine
from deployments.launcher import down
from tests.conftest import find_engines
from tests.engine.repositories import git_daemon
from tests.flows.caisson_host import CaissonHost, wait_for
from tests.flows.postgres import PASSWORD, postgres

IMAGE = "caisson-flow/postgres"


@pytest.fixture
def database_url() -> Iterator[str]:
    with postgres() as server:
        yield server.url("postgres")


def test_up_a_build_and_down_on_postgresql(
    database_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = find_engines()[0]
    host = CaissonHost(
        tmp_path / "state",
        "postgres",
        {
            "CAISSON_DATABASE_URL": database_url,
            "CAISSON_DOCKER_HOST": engine.docker_host,
            "CAISSON_MIN_FREE_BYTES": "64m",
        },
    )
    began = time.monotonic()
    host.up()
    up = time.monotonic() - began
    try:
        with git_daemon(tmp_path / "git", engine.gateway) as git:
            repository = git.repository("app", {"Dockerfile": "FROM debian:trixie-slim\nLABEL on=postgres\n"})
            run = host.trigger("build-image", request={"repository_url": repository.url, "image": IMAGE})
            assert host.wait_for_state(run, "Completed", "Failed", "Crashed").state_name == "Completed"
        # Only the server has to know the way into the database.
        wait_for("the fork server", lambda: host.processes("deployments.fork_server"))
        for name in ("deployments.worker_main", "deployments.fork_server"):
            (pid, *_) = host.processes(name)
            assert PASSWORD.encode() not in Path(f"/proc/{pid}/environ").read_bytes(), name
        assert down(host.settings, say=lambda _: None) == 0
    finally:
        if host.is_up:
            host.stop()
        with DockerEngine(engine.docker_host) as docker:
            for tag in [tag for image in docker.list_images() for tag in image.tags if tag.startswith(f"{IMAGE}:")]:
                docker.untag_image(tag)
    with capsys.disabled():
        print(f"\n  up on a fresh PostgreSQL: {up:.1f} s")
    assert json.loads((tmp_path / "state" / "builds" / f"{run}.json").read_text())["outcome"] == "built"
    assert not (tmp_path / "state" / "prefect" / "prefect.db").exists()
    assert PASSWORD not in host.output + host.logs()
    assert host.processes() == {}
