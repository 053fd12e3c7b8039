"""Caisson with PostgreSQL in the place of SQLite: a real one, in a cluster of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from caisson.docker_engine import DockerEngine
from deployments.launcher import down
from deployments.server import client_environment, server_environment
from deployments.state import StateDir
from tests.conftest import EngineHost, find_engines
from tests.engine.repositories import git_daemon
from tests.flows.caisson_host import ROOT, CaissonHost, wait_for
from tests.flows.postgres import PASSWORD, Postgres, postgres

IMAGE = "caisson-flow/postgres"
SAVE = "from prefect.blocks.system import Secret; Secret(value='c4nary').save('kept')"
LOAD = "from prefect.blocks.system import Secret; print(Secret.load('kept').get())"
KEYS_IN_DATABASE = "SELECT count(*) FROM configuration WHERE key = 'ENCRYPTION_KEY'"
OLDER_SCHEMA = "97429116795e"
"""The last one before Prefect 3.0, of August 2024: alembic's name of it, from Prefect's own list."""
FINAL = ("Completed", "Failed", "Crashed", "Cancelled")


@pytest.fixture
def server() -> Iterator[Postgres]:
    with postgres() as server:
        yield server


@pytest.fixture
def database_url(server: Postgres) -> str:
    return server.url("postgres")


def building_host(directory: Path, name: str, database_url: str, engine: EngineHost, **more: str) -> CaissonHost:
    """A Caisson on that database, with an engine to build on."""
    variables = {
        "CAISSON_DATABASE_URL": database_url,
        "CAISSON_DOCKER_HOST": engine.docker_host,
        "CAISSON_MIN_FREE_BYTES": "64m",
    }
    return CaissonHost(directory / "state", name, variables | more)


def prefect(host: CaissonHost, code: str) -> str:
    """What the code prints as a client of that host's server."""
    env = client_environment(host.settings, StateDir(host.state_dir), host.env)
    command = [sys.executable, "-c", code]
    return subprocess.run(command, env=env, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def query(server: Postgres, statement: str) -> str:
    """What PostgreSQL answers, without headings."""
    return server.run("psql", "--dbname=postgres", "--tuples-only", "--no-align", f"--command={statement}").strip()


def schema(server: Postgres) -> str:
    """The revision of Prefect's schema that the database is at."""
    return query(server, "SELECT version_num FROM alembic_version")


def downgrade(host: CaissonHost, revision: str) -> None:
    """Take the database of a host that is down back to an older revision, by Prefect's own steps."""
    env = server_environment(host.settings, StateDir(host.state_dir), host.env)
    command = [sys.executable, "-m", "prefect", "server", "database", "downgrade", "--yes", "--revision", revision]
    done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def remove_images(engine: EngineHost) -> None:
    with DockerEngine(engine.docker_host) as docker:
        for tag in [tag for image in docker.list_images() for tag in image.tags if tag.startswith(IMAGE)]:
            docker.untag_image(tag)


def test_up_a_build_and_down_on_postgresql(
    database_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = find_engines()[0]
    host = building_host(tmp_path, "postgres", database_url, engine)
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
        remove_images(engine)
    with capsys.disabled():
        print(f"\n  up on a fresh PostgreSQL: {up:.1f} s")
    assert json.loads((tmp_path / "state" / "builds" / f"{run}.json").read_text())["outcome"] == "built"
    assert not (tmp_path / "state" / "prefect" / "prefect.db").exists()
    assert PASSWORD not in host.output + host.logs()
    assert host.processes() == {}


def test_an_older_schema_is_brought_up_to_date_by_up_and_the_queue_goes_on(
    server: Postgres, database_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = find_engines()[0]
    host = building_host(tmp_path, "older", database_url, engine, CAISSON_POLL_SECONDS="2")
    host.up()
    try:
        with git_daemon(tmp_path / "git", engine.gateway) as git:
            repository = git.repository("app", {"Dockerfile": "FROM debian:trixie-slim\nLABEL on=older\n"})
            wanted = {"repository_url": repository.url, "image": IMAGE}
            ended = host.trigger("build-image", request=wanted)
            assert host.wait_for_state(ended, *FINAL).state_name == "Completed"
            host.cli("drain")
            waiting = [host.trigger("build-image", request={**wanted, "image": f"{IMAGE}-{n}"}) for n in range(2)]
            host.stop()

            newest = schema(server)
            downgrade(host, OLDER_SCHEMA)
            assert schema(server) == OLDER_SCHEMA != newest
            began = time.monotonic()
            host.up()
            up = time.monotonic() - began
            assert schema(server) == newest
            assert host.state(ended).state_name == "Completed"
            assert {host.state(run).state_name for run in waiting} <= {"Scheduled", "Late"}
            host.cli("undrain")
            for run in waiting:
                assert host.wait_for_state(run, *FINAL).state_name == "Completed"
                assert host.history(run).count("Running") == 1
    finally:
        if host.is_up:
            host.stop()
        remove_images(engine)
    with capsys.disabled():
        print(f"\n  up on a PostgreSQL with the schema of {OLDER_SCHEMA}: {up:.1f} s")


def test_the_key_of_blocks_is_no_part_of_the_database_and_one_that_is_there_is_taken_over(
    server: Postgres, database_url: str, tmp_path: Path
) -> None:
    host = CaissonHost(tmp_path / "state", "keys", {"CAISSON_DATABASE_URL": database_url})
    file = tmp_path / "state" / "prefect" / "encryption-postgresql.key"
    host.up()
    try:
        prefect(host, SAVE)
        assert prefect(host, LOAD) == "c4nary"
        assert query(server, KEYS_IN_DATABASE) == "0"
        key = file.read_text()
        dump = server.run("pg_dump", "--inserts", "postgres")
        assert "kept" in dump
        assert "c4nary" not in dump
        assert key not in dump
        host.stop()
        # As it was when the database kept the key itself.
        file.unlink()
        row = f"(key, value) VALUES ('ENCRYPTION_KEY', '{json.dumps({'fernet_key': key})}')"
        query(server, f"INSERT INTO configuration {row}")
        host.up()
        assert prefect(host, LOAD) == "c4nary"
        assert file.read_text() == key
        host.stop()
        query(server, "DELETE FROM configuration WHERE key = 'ENCRYPTION_KEY'")
        host.up()
        assert prefect(host, LOAD) == "c4nary"
    finally:
        if host.is_up:
            host.stop()
