"""Which file systems Docker fills on this host: asked of the engine once, and remembered until the engine restarts."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from caisson.engine import EngineInfo
from caisson.errors import SettingsInvalid
from caisson.settings import Settings

_CONTAINERD_ROOT = Path("/var/lib/containerd")
_OLDEST = timedelta(days=1)
_OF_IMAGES = frozenset(("images and containers", "containerd's images"))


class Place(BaseModel):
    """One file system: a directory on it, and what of Docker's is there."""

    model_config = ConfigDict(frozen=True)

    path: str
    holds: tuple[str, ...]


class Places(BaseModel):
    """What the engine said; ``engine`` tells whether it is still the same engine that was asked."""

    model_config = ConfigDict(frozen=True)

    engine: str
    found: datetime
    places: tuple[Place, ...]

    def still_good(self, settings: Settings, now: datetime) -> bool:
        """Whether the engine need not be asked again: the same settings and engine, and not for longer than a day."""
        return self.engine == engine_mark(settings) and timedelta() <= now - self.found < _OLDEST


def holds_images(place: Place) -> bool:
    """Whether a prune of images makes room there."""
    return not _OF_IMAGES.isdisjoint(place.holds)


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
        return known
    return Places(engine=engine_mark(settings), found=now, places=docker_places(ask(), settings))


def docker_data_root(engine: EngineInfo, settings: Settings) -> Path:
    """The engine's data root, as this host sees it."""
    return Path(settings.docker_data_root or engine.data_root)


def docker_places(
    engine: EngineInfo, settings: Settings, *, device_of: Callable[[Path], int | None] | None = None
) -> tuple[Place, ...]:
    """The distinct file systems, the data root's first. Raises ``SettingsInvalid`` when that is not to be seen."""
    device_of = device_of or _device_of
    data_root = docker_data_root(engine, settings)
    if device_of(data_root) is None:
        raise SettingsInvalid(
            f"CAISSON_DOCKER_DATA_ROOT: Docker's data root {data_root} is not to be seen on this host.",
            hint="Set it to the path of the engine's data root as this host sees it.",
        )
    directories = [(data_root, "images and containers"), (data_root / "volumes", "volumes")]
    if engine.containerd_store and (root := _containerd_root(settings, data_root)) is not None:
        directories.append((root, "containerd's images"))
    by_device: dict[int, tuple[Path, list[str]]] = {}
    for directory, what in directories:
        device = device_of(directory)
        if device is not None:
            by_device.setdefault(device, (directory, []))[1].append(what)
    return tuple(Place(path=str(directory), holds=tuple(what)) for directory, what in by_device.values())


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
