"""Who holds the disk, on real engines: against bytes that the test itself put there."""

from __future__ import annotations

import subprocess
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from caisson.disk_account import account
from caisson.disk_attribution import Attribution
from caisson.disk_state import DiskState
from caisson.disk_watch import look
from caisson.docker_engine import DockerEngine
from caisson.errors import DiskTooFull, EngineUnreachable
from caisson.settings import Settings
from tests.conftest import EngineHost
from tests.engine.conftest import Builds

BASE = "debian:trixie-slim"
SHARED, OWN, WRITABLE, LOG, VOLUME = 4_000_000, 3_000_000, 2_000_000, 500_000, 1_000_000


class Holder:
    """Two images on a layer of their own, a container with files, a log and a volume; all of one name."""

    def __init__(self, host: EngineHost, directory: Path) -> None:
        self.host, self.directory = host, directory
        self.name = f"caisson-test-disk-{uuid.uuid4().hex[:8]}"
        self.settings = Settings(
            _env_file=None,
            docker_host=host.docker_host,
            docker_data_root=host.data_root,
            state_dir=directory / "state",
        )

    def docker(self, *arguments: str) -> str:
        env = {"DOCKER_BUILDKIT": "0", "PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": str(self.directory)}
        command = ["docker", "--host", self.host.docker_host, *arguments]
        return subprocess.run(command, env=env, check=True, capture_output=True, text=True).stdout

    def make(self) -> None:
        context = self.directory / "context"
        context.mkdir()
        (context / "shared").write_bytes(uuid.uuid4().bytes + b"s" * (SHARED - 16))
        (context / "own").write_bytes(uuid.uuid4().bytes + b"o" * (OWN - 16))
        (context / "Dockerfile.one").write_text(f"FROM {BASE}\nCOPY shared /shared\nCOPY own /own\n")
        (context / "Dockerfile.two").write_text(f"FROM {BASE}\nCOPY shared /shared\nENV two=2\n")
        for image in ("one", "two"):
            dockerfile = str(context / f"Dockerfile.{image}")
            self.docker("build", "-t", f"{self.name}/{image}:1", "-f", dockerfile, str(context))
        files = f"head -c {WRITABLE} /dev/urandom > /file; head -c {VOLUME} /dev/urandom > /v/file"
        script = f"{files}; yes line | head -c {LOG}"
        self.docker(
            "run", "--name", self.name, "--log-driver", "json-file", "-v", f"{self.name}:/v", BASE, "sh", "-c", script
        )

    def remove(self) -> None:
        for arguments in (
            ("rm", "-fv", self.name),
            ("volume", "rm", self.name),
            ("rmi", f"{self.name}/one:1", f"{self.name}/two:1"),
        ):
            self.docker(*arguments)

    def account(self) -> Attribution:
        with DockerEngine(self.host.docker_host) as engine:
            return account(engine, self.settings, used=1 << 60)


@pytest.fixture
def holder(engine_host: EngineHost, tmp_path: Path) -> Iterator[Holder]:
    made = Holder(engine_host, tmp_path)
    made.make()
    yield made
    made.remove()


def test_every_byte_is_told_where_it_was_put(holder: Holder) -> None:
    found = holder.account()
    repositories = {item.name: item for item in found.repositories}
    one, two = (repositories[f"{holder.name}/{image}"] for image in ("one", "two"))
    assert (one.exclusive, two.exclusive) == (OWN, 0)
    assert one.shared == two.shared >= SHARED
    (container,) = [item for item in found.containers if item.name == holder.name]
    assert WRITABLE <= container.writable < WRITABLE + 100_000
    # json-file writes each line with its time and stream.
    assert container.logs is not None
    assert container.logs > LOG
    (volume,) = [item for item in found.volumes if item.name == holder.name]
    assert VOLUME <= (volume.size or 0) < VOLUME + 100_000
    assert volume.users == 1
    assert found.not_docker is not None


def test_what_repositories_hold_adds_up_to_the_engines_own_sum(holder: Holder) -> None:
    def difference() -> int:
        found = holder.account()
        return found.images - found.shared_layers - sum(item.exclusive for item in found.repositories)

    # Others make and remove images on this engine, also while it is asked.
    assert 0 in (difference() for _ in range(5))


def test_a_time_out_is_told_and_raises_nothing(engine_host: EngineHost, tmp_path: Path) -> None:
    settings = Settings(_env_file=None, docker_host=engine_host.docker_host, state_dir=tmp_path)
    with DockerEngine(engine_host.docker_host) as engine:
        with pytest.raises(EngineUnreachable, match="did not answer in time"):
            engine.disk_usage(timeout=0.0001)
        found = account(engine, settings, used=0, timeout_seconds=0.0001)
    assert len(found.unknown) == 1
    assert "did not answer in time (account for its disk)" in found.unknown[0]


def test_docker_s_disk_is_found_through_the_engine(engine_host: EngineHost, tmp_path: Path) -> None:
    settings = Settings(
        _env_file=None, docker_host=engine_host.docker_host, docker_data_root=engine_host.data_root, state_dir=tmp_path
    )
    found = look(settings, DiskState(), datetime.now(UTC))
    assert found.readings[0].place.path == (engine_host.data_root or "/var/lib/docker")
    assert found.readings[0].usage.total_bytes > 0


def test_a_critical_disk_stops_builds_until_it_is_over(builds: Builds, tmp_path: Path) -> None:
    """No monitor runs here at all: admission asks the disk itself."""
    disk = tmp_path / "docker"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=20m", "caisson-test", str(disk)], check=True)
    try:
        small = builds.with_settings(docker_data_root=str(disk), min_free_bytes=0, min_free_inodes=0)
        repository = builds.repository(f"FROM {BASE}\n", name="critical")
        (disk / "filler").write_bytes(b"\0" * (20 << 20))
        with pytest.raises(DiskTooFull, match=r"critically full: no build starts before 1 MiB of it is freed"):
            small(repository)
        (disk / "filler").unlink()
        assert small(repository).image_id
    finally:
        subprocess.run(["umount", str(disk)], check=True)
