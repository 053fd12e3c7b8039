"""Which file systems Docker fills: found through the engine once, each of them once."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from caisson.disk import read_file_system
from caisson.disk_places import docker_places, find_images, find_places, holds_images, stops_builds
from caisson.engine import EngineInfo
from caisson.errors import SettingsInvalid
from caisson.mount_table import Mount
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


def mounted(*mounts: tuple[str, str]) -> Callable[[Iterable[str]], list[Mount]]:
    return lambda _below: [Mount(path, fs_type) for path, fs_type in mounts]


def test_what_is_mounted_below_the_data_root_is_a_place_of_its_own() -> None:
    found = devices(docker=1, docker_buildkit=2, docker_containers=2, docker_volumes_db__data=3, docker_image=1)
    mounts = mounted(
        ("/docker/image", "ext4"),  # on the data root's own file system
        ("/docker/volumes/db/_data", "ext4"),
        ("/docker/buildkit", "xfs"),
        ("/docker/containers", "xfs"),
        ("/docker/gone", "xfs"),
    )
    places = docker_places(engine_info("/docker"), Settings(_env_file=None), device_of=found, mounts=mounts)
    assert [(place.path, place.holds) for place in places] == [
        ("/docker", ("images and containers",)),
        ("/docker/buildkit", ("build cache", "containers and their logs")),
        ("/docker/volumes/db/_data", ("volume db",)),
    ]
    assert [stops_builds(place) for place in places] == [True, True, False]


def test_where_the_layers_are_is_where_a_prune_of_images_makes_room() -> None:
    found = devices(docker=1, docker_overlay2=2)
    mounts = mounted(("/docker/overlay2", "xfs"))
    places = docker_places(engine_info("/docker"), Settings(_env_file=None), device_of=found, mounts=mounts)
    assert [(place.path, place.holds) for place in places] == [
        ("/docker", ("containers",)),
        ("/docker/overlay2", ("image layers",)),
    ]
    assert find_images(places).path == "/docker/overlay2"
    assert [holds_images(place) for place in places] == [False, True]


@pytest.mark.parametrize(
    ("path", "fs_type"),
    [
        ("/docker/overlay2/0a1b/merged", "overlay"),
        ("/docker/rootfs/overlayfs/0a1b", "overlay"),
        ("/docker/containers/0a1b/mounts/shm", "tmpfs"),
        ("/docker/containers/0a1b/mounts/secrets", "tmpfs"),
        ("/docker/netns/0a1b", "nsfs"),
        ("/docker/zfs/graph/0a1b", "zfs"),
        ("/docker/devicemapper/mnt/0a1b", "xfs"),
        ("/docker/plugins/0a1b/rootfs", "ext4"),
        ("/docker/buildkit/executor/0a1b/rootfs", "overlay"),
        ("/docker/volumes/cache/_data", "tmpfs"),
        ("/docker/volumes/share/_data", "nfs4"),
        ("/docker/volumes/share/_data", "fuse.sshfs"),
        ("/docker/volumes/share/_data/below", "ext4"),
    ],
)
def test_mounts_of_containers_and_of_other_hosts_are_none_and_are_not_asked(path: str, fs_type: str) -> None:
    asked: list[Path] = []

    def device_of(directory: Path) -> int:
        asked.append(directory)
        return 1 if directory in (Path("/docker"), Path("/docker/volumes")) else 2

    settings = Settings(_env_file=None)
    places = docker_places(engine_info("/docker"), settings, device_of=device_of, mounts=mounted((path, fs_type)))
    assert [place.path for place in places] == ["/docker"]
    assert Path(path) not in asked


@pytest.fixture
def real_mounts(tmp_path: Path) -> Iterator[Path]:
    """A data root with a build cache of 8 MiB, what a running container has there, and the same disk twice."""
    root = tmp_path / "docker dir"
    made: list[str] = []

    def mount(where: str, *options: str) -> None:
        (root / where).mkdir(parents=True)
        subprocess.run(["mount", *options, str(root / where)], check=True)
        made.append(str(root / where))

    try:
        mount("buildkit", "-t", "tmpfs", "-o", "size=8m", "caisson-test")
        mount("containers/0a1b/mounts/shm", "-t", "tmpfs", "-o", "size=1m", "shm")
        mount("tmp", "--bind", str(root / "buildkit"))
        yield root
    finally:
        for path in reversed(made):
            subprocess.run(["umount", path], check=False)


def test_the_kernel_tells_of_mounts_without_the_engine(real_mounts: Path) -> None:
    settings = Settings(_env_file=None)
    known = find_places(settings, lambda: engine_info(str(real_mounts)), NOW, None)
    root, cache = known.places
    assert (root.path, cache.path) == (str(real_mounts), str(real_mounts / "buildkit"))
    assert cache.holds == ("build cache", "tmp")
    assert read_file_system(Path(cache.path)).total_bytes == 8 << 20
    # What was remembered is looked through anew each time, and the engine is not asked for that.
    for name in ("tmp", "buildkit"):
        subprocess.run(["umount", str(real_mounts / name)], check=True)
    again = find_places(settings, pytest.fail, NOW, known)
    assert again.places == (root,)


def test_a_place_that_an_older_version_remembered_is_found_anew(tmp_path: Path) -> None:
    settings = Settings(_env_file=None)
    known = find_places(settings, lambda: engine_info(str(tmp_path)), NOW, None)
    old = known.model_copy(update={"directories": ()})
    assert find_places(settings, lambda: engine_info(str(tmp_path)), NOW, old) == known
