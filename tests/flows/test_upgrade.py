"""A host goes over to this version, from a backup of its SQLite database that was made while it ran."""

from __future__ import annotations

import re
import shutil
import sqlite3
import subprocess
from datetime import UTC, datetime
from pathlib import Path

from caisson.docker_engine import DockerEngine
from caisson.ledger.schema import VERSION, migrate
from caisson.migrations import read_version
from caisson.tokens import make_grant
from deployments.token_store import TokenStore
from tests.conftest import find_engines
from tests.engine.repositories import git_daemon
from tests.flows.caisson_host import ROOT, CaissonHost

IMAGE = "caisson-flow/upgrade"
OPERATIONS = ROOT / "docs/operations.md"


def make_ledger(path: Path, version: int) -> None:
    """The ledger as a Caisson of that schema version left it, with one build in it."""
    with sqlite3.connect(path, isolation_level=None) as database:
        migrate(database, to=version)
        columns = "build_id, spec_hash, sha, repository_url, image_id, finished"
        row = ("old", "0" * 64, "a" * 40, "https://example.com/old", f"sha256:{'b' * 64}", "2026-01-01T00:00:00+00:00")
        database.execute(f"INSERT INTO builds ({columns}) VALUES (?, ?, ?, ?, ?, ?)", row)


def read_ledger(path: Path) -> tuple[int, set[str]]:
    """Its schema version, and the IDs of its builds."""
    with sqlite3.connect(path) as database:
        return read_version(database), {build for (build,) in database.execute("SELECT build_id FROM builds")}


def test_a_queued_build_outlives_a_backup_a_new_state_directory_and_an_older_ledger(tmp_path: Path) -> None:
    engine = find_engines()[0]
    variables = {
        "CAISSON_DOCKER_HOST": engine.docker_host,
        "CAISSON_GUARD_DIR": str(engine.guard_dir),
        "CAISSON_MIN_FREE_BYTES": "64m",
        "CAISSON_POLL_SECONDS": "2",
    }
    old = CaissonHost(tmp_path / "old", "upgraded", variables)
    new = CaissonHost(tmp_path / "new", "upgraded", variables)
    kept = old.state_dir / "prefect"
    old.up()
    try:
        with git_daemon(tmp_path / "git", engine.gateway) as git:
            repository = git.repository("app", {"Dockerfile": "FROM debian:trixie-slim\nLABEL from=upgrade\n"})
            old.cli("drain")
            run = old.trigger("build-image", request={"repository_url": repository.url, "image": IMAGE})
            (command,) = re.findall(r'^python3 -c "import sqlite3;.*"$', OPERATIONS.read_text(), re.MULTILINE)
            subprocess.run(command, shell=True, cwd=kept, check=True)
            # "Copy it in the same way."
            token, _ = TokenStore.of(old.settings).create("ci", make_grant(["read"]), lifetime=None)
            same_way = command.replace("prefect.db", "service.sqlite")
            subprocess.run(same_way.replace("caisson.db", "service.copy"), shell=True, cwd=old.state_dir, check=True)
            assert old.is_up
            old.cli("drain", "--wait")
            old.stop()

            home = new.state_dir / "prefect"
            home.mkdir(parents=True)
            shutil.copy(kept / "caisson.db", home / "prefect.db")
            shutil.copy(kept / "encryption.key", home)
            shutil.copy(old.state_dir / "service.copy", new.state_dir / "service.sqlite")
            make_ledger(new.state_dir / "ledger.sqlite", version=VERSION - 1)
            new.up()
            assert new.state(run).state_name in ("Scheduled", "Late")
            assert TokenStore.of(new.settings).find(token, datetime.now(UTC)) is not None
            new.cli("undrain")
            assert new.wait_for_state(run, "Completed", "Failed", "Crashed").state_name == "Completed"
            assert new.history(run).count("Running") == 1
        version, builds = read_ledger(new.state_dir / "ledger.sqlite")
        assert version == VERSION
        assert len(builds) == 2
        assert "old" in builds
        assert not list(new.state_dir.glob("ledger.sqlite.damaged-*"))
    finally:
        for host in (old, new):
            if host.is_up:
                host.stop()
        with DockerEngine(engine.docker_host) as docker:
            for tag in [tag for image in docker.list_images() for tag in image.tags if tag.startswith(f"{IMAGE}:")]:
                docker.untag_image(tag)
