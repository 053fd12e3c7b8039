"""Which file systems Docker fills: found through the engine once, each of them once."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from caisson.disk_places import docker_places, find_places
from caisson.engine import EngineInfo
from caisson.errors import SettingsInvalid
from caisson.settings import Settings

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def engine_info(data_root: str, *, containerd_store: bool = False) -> EngineInfo:
    return EngineInfo("26.1.5", "1.45", "overlay2", "cgroupfs", 1, data_root, (), 2, 1 << 30, containerd_store)


def devices(**numbers: int) -> Callable[[Path], int | None]:
    """Device numbers by path, ``a_b`` for ``/a/b``; everything else is not there."""
    return lambda path: numbers.get(str(path).strip("/").replace("/", "_"))


def test_what_is_on_one_file_system_is_one_place() -> None:
    (place,) = docker_places(
        engine_info("/docker"), Settings(_env_file=None), device_of=devices(docker=1, docker_volumes=1)
    )
    assert (place.path, place.holds) == ("/docker", ("images and containers", "volumes"))


def test_volumes_and_containerd_on_disks_of_their_own_are_places_of_their_own() -> None:
    settings = Settings(_env_file=None, containerd_root="/containerd")
    found = devices(docker=1, docker_volumes=2, containerd=3)
    places = docker_places(engine_info("/docker", containerd_store=True), settings, device_of=found)
    assert [place.path for place in places] == ["/docker", "/docker/volumes", "/containerd"]
    # Without its store containerd fills nothing.
    assert len(docker_places(engine_info("/docker"), settings, device_of=found)) == 2


def test_the_engines_path_can_be_another_than_this_hosts() -> None:
    settings = Settings(_env_file=None, docker_data_root="/mnt/docker")
    (place,) = docker_places(engine_info("/docker"), settings, device_of=devices(docker=1, mnt_docker=2))
    assert place.path == "/mnt/docker"


def test_a_data_root_that_is_not_to_be_seen_is_never_taken_for_the_root_disk() -> None:
    with pytest.raises(SettingsInvalid, match=r"CAISSON_DOCKER_DATA_ROOT: .*/docker is not to be seen"):
        docker_places(engine_info("/docker"), Settings(_env_file=None), device_of=devices())


def test_the_engine_is_asked_once_and_again_after_it_restarted_or_a_day(tmp_path: Path) -> None:
    asked = []
    socket = tmp_path / "docker.sock"
    socket.touch()
    settings = Settings(_env_file=None, docker_host=f"unix://{socket}")

    def ask() -> EngineInfo:
        asked.append(1)
        return engine_info(str(tmp_path))

    known = find_places(settings, ask, NOW, None)
    assert find_places(settings, ask, NOW + timedelta(hours=23), known) == known
    assert len(asked) == 1
    find_places(settings, ask, NOW + timedelta(days=1), known)
    assert len(asked) == 2
    find_places(settings, ask, NOW - timedelta(hours=1), known)  # the clock was set back
    assert len(asked) == 3
    socket.rename(tmp_path / "old.sock")
    socket.touch()
    find_places(settings, ask, NOW, known)
    assert len(asked) == 4
    find_places(settings.model_copy(update={"docker_data_root": str(tmp_path)}), ask, NOW, known)
    assert len(asked) == 5
