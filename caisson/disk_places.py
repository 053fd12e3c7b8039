"""Which file systems Docker fills on this host.

Its directories are asked of the engine once, and remembered until it restarts. What is mounted below them the kernel
tells, with each look: volumes with a device of their own come and go with their containers.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from caisson.engine import EngineInfo
from caisson.errors import SettingsInvalid
from caisson.mount_table import Mount, read_mounts
from caisson.settings import Settings

_CONTAINERD_ROOT = Path("/var/lib/containerd")
_OLDEST = timedelta(days=1)
_ALL, _LAYERS, _CONTAINERD = "images and containers", "image layers", "containerd's images"
_OF_IMAGES = frozenset((_ALL, _LAYERS, _CONTAINERD))
_VOLUME = "volume "
_HELD = {"containers": "containers and their logs", "buildkit": "build cache", "image": "images' records"}
_DRIVERS = frozenset(("overlay2", "fuse-overlayfs", "overlay", "vfs", "btrfs", "zfs", "aufs", "devicemapper"))
"""Directories of the data root in which a storage driver keeps the layers."""
_TWO_DEEP = frozenset(("image", "buildkit"))
_NO_DISK = frozenset(("overlay", "nsfs", "proc", "sysfs", "mqueue", "devpts", "cgroup", "cgroup2", "autofs"))
_ELSEWHERE = ("nfs", "cifs", "smb", "ceph", "9p", "fuse", "glusterfs", "afs", "lustre", "gpfs", "beegfs")
"""Types of file systems on other hosts: who asks one whose host is gone may wait for ever."""
Mounts = Callable[[Iterable[str]], Iterable[Mount]]


class Place(BaseModel):
    """One file system: a directory on it, and what of Docker's is there."""

    model_config = ConfigDict(frozen=True)

    path: str
    holds: tuple[str, ...]


class Places(BaseModel):
    """What the engine said, and what is on it now; ``engine`` tells whether it is still the same engine that was asked.

    ``directories`` are Docker's, as the engine told them, and ``places`` the file systems that they and the mounts
    below them are on.
    """

    model_config = ConfigDict(frozen=True)

    engine: str
    found: datetime
    places: tuple[Place, ...]
    directories: tuple[Place, ...] = ()

    def still_good(self, settings: Settings, now: datetime) -> bool:
        """Whether the engine need not be asked again: the same settings and engine, and not for longer than a day."""
        known = self.directories and self.engine == engine_mark(settings)
        return bool(known) and timedelta() <= now - self.found < _OLDEST


def holds_images(place: Place) -> bool:
    """Whether a prune of images makes room there."""
    return not _OF_IMAGES.isdisjoint(place.holds)


def find_images(places: tuple[Place, ...]) -> Place:
    """The file system that images fill; the data root's where they have none of their own."""
    wanted = (_CONTAINERD, _LAYERS)
    return next((place for what in wanted for place in places if what in place.holds), places[0])


def stops_builds(place: Place) -> bool:
    """Whether no build may start when it is critically full: not where only volumes with disks of their own are."""
    return not place.holds or not all(what.startswith(_VOLUME) for what in place.holds)


def engine_mark(settings: Settings) -> str:
    """What changes when the engine restarts, when another one is meant, or when a path in the settings changes."""
    try:
        # dockerd makes its socket anew at each start. Its times alone could be equal after a quick restart.
        status = Path(settings.docker_socket).stat()
        socket = f"{status.st_ino} {status.st_ctime_ns}"
    except (OSError, SettingsInvalid):
        socket = ""
    return " ".join((settings.docker_host, settings.docker_data_root, settings.containerd_root, socket))


def find_places(settings: Settings, ask: Callable[[], EngineInfo], now: datetime, known: Places | None) -> Places:
    """Where to look: what is known if that is still good, else what the engine says.

    Raises what ``ask`` raises, and ``SettingsInvalid`` when the data root is not to be seen from here.
    """
    if known is not None and known.still_good(settings, now):
        if _device_of(Path(known.directories[0].path)) is None:
            return known
        return known.model_copy(update={"places": _distinct(known.directories, _device_of, read_mounts)})
    directories = docker_directories(ask(), settings, _device_of)
    places = _distinct(directories, _device_of, read_mounts)
    return Places(engine=engine_mark(settings), found=now, places=places, directories=directories)


def docker_data_root(engine: EngineInfo, settings: Settings) -> Path:
    """The engine's data root, as this host sees it."""
    return Path(settings.docker_data_root or engine.data_root)


def docker_places(
    engine: EngineInfo,
    settings: Settings,
    *,
    device_of: Callable[[Path], int | None] | None = None,
    mounts: Mounts = read_mounts,
) -> tuple[Place, ...]:
    """The distinct file systems, the data root's first. Raises ``SettingsInvalid`` when that is not to be seen."""
    device_of = device_of or _device_of
    return _distinct(docker_directories(engine, settings, device_of), device_of, mounts)


def docker_directories(
    engine: EngineInfo, settings: Settings, device_of: Callable[[Path], int | None]
) -> tuple[Place, ...]:
    """The directories that Docker fills, whatever they are on. Raises ``SettingsInvalid`` likewise."""
    data_root = docker_data_root(engine, settings)
    if device_of(data_root) is None:
        raise SettingsInvalid(
            f"CAISSON_DOCKER_DATA_ROOT: Docker's data root {data_root} is not to be seen on this host.",
            hint="Set it to the path of the engine's data root as this host sees it.",
        )
    directories = [(data_root, _ALL), (data_root / "volumes", "volumes")]
    if engine.containerd_store and (root := _containerd_root(settings, data_root)) is not None:
        directories.append((root, _CONTAINERD))
    return tuple(Place(path=str(directory), holds=(what,)) for directory, what in directories)


def _distinct(
    directories: tuple[Place, ...], device_of: Callable[[Path], int | None], mounts: Mounts
) -> tuple[Place, ...]:
    """Each file system once: those of the directories, then those of mounts below them that are on none of these."""
    by_device: dict[int, tuple[str, list[str]]] = {}
    for directory in directories:
        device = device_of(Path(directory.path))
        if device is not None:
            by_device.setdefault(device, (directory.path, []))[1].extend(directory.holds)
    own = frozenset(by_device)
    data_root = os.path.realpath(directories[0].path)
    for mount in sorted(mounts([data_root]), key=lambda mount: mount.path):
        what = held_by_mount(mount, data_root)
        # Its type is looked at first: one on another host may not be asked.
        device = device_of(Path(mount.path)) if what else None
        if device is None or device in own:
            continue
        by_device.setdefault(device, (mount.path, []))[1].append(what)
    if any(_LAYERS in what for _, what in by_device.values()):
        # Removing images makes no room beside them, then.
        by_device = {
            device: (path, ["containers" if item == _ALL else item for item in what])
            for device, (path, what) in by_device.items()
        }
    return tuple(Place(path=path, holds=tuple(what)) for path, what in by_device.values())


def held_by_mount(mount: Mount, data_root: str) -> str:
    """What of Docker's is on a mount below its data root; empty for what is no disk of this host, or a container's own.

    Containers have mounts of their own there while they run: their root (overlay), ``shm`` and secrets (tmpfs).

    >>> held_by_mount(Mount("/d/overlay2", "xfs"), "/d"), held_by_mount(Mount("/d/volumes/db/_data", "ext4"), "/d")
    ('image layers', 'volume db')
    >>> held_by_mount(Mount("/d/containers/c1/mounts/shm", "tmpfs"), "/d")
    ''
    """
    if mount.fs_type in _NO_DISK or mount.fs_type.startswith(_ELSEWHERE):
        return ""
    first, *rest = mount.path[len(data_root.rstrip("/")) + 1 :].split("/")
    if first == "volumes":
        # A volume in memory fills no disk, and is gone with its container.
        is_volume = rest[1:] in ([], ["_data"]) and mount.fs_type != "tmpfs"
        return f"{_VOLUME}{rest[0]}" if rest and is_volume else ""
    if len(rest) > (first in _TWO_DEEP):
        return ""
    return _LAYERS if first in _DRIVERS else _HELD.get(first, first)


def seen_places(engine: EngineInfo, settings: Settings) -> tuple[Place, ...]:
    """The same, or nothing where the engine's data root is not to be seen from here."""
    try:
        return docker_places(engine, settings)
    except SettingsInvalid:
        return ()


def _containerd_root(settings: Settings, data_root: Path) -> Path | None:
    """Where the containerd store is. The engine's API does not tell."""
    if settings.containerd_root:
        return Path(settings.containerd_root)
    # A containerd that dockerd starts has its root below the data root; a system's own has it where it is packaged.
    return next((path for path in (data_root / "containerd" / "daemon", _CONTAINERD_ROOT) if path.is_dir()), None)


def _device_of(path: Path) -> int | None:
    try:
        return os.stat(path).st_dev  # noqa: PTH116
    except OSError:
        return None
