"""The engine's account of its disk, and what the files on this host add to it: bounded in time, one at a time.

``GET /system/df`` walks every file of every volume: with millions of them it takes minutes, and four at once make
engine 20.10 answer with errors. It is therefore asked for on request and under pressure only, never twice at once, and
what could not be found out is said.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from caisson.disk_attribution import Attribution, attribute, chain
from caisson.disk_state import only_one, write_attribution
from caisson.engine import ContainerID, Engine, ImageID
from caisson.engine_disk import EngineDisk
from caisson.errors import CaissonError
from caisson.settings import Settings
from caisson.snapshot import ChainID, StoredLayer

TIMEOUT_SECONDS = 120.0
AGAIN = timedelta(minutes=30)
"""How long after one account the next is made under pressure; after a time-out the engine may still be at the last."""
_LOG_FILES = ("*-json.log*", "local-logs/*")


def account(
    engine: Engine,
    settings: Settings,
    *,
    used: int | None,
    timeout_seconds: float = TIMEOUT_SECONDS,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> Attribution:
    """Account for the disk and keep the account for others to read; ``used`` as ``attribute`` takes it.

    Never raises for what the engine does not tell: that is in ``unknown``. Raises ``OSError`` for the state directory.
    """
    with only_one(settings.state_dir, "disk-account") as mine:
        if not mine:
            return Attribution(at=now(), seconds=0, unknown=("Another process is asking the engine just now.",))
        found = _account(engine, settings, used, timeout_seconds, now)
        if found.images or not found.unknown:
            write_attribution(settings.state_dir, found)
        return found


def _account(
    engine: Engine, settings: Settings, used: int | None, timeout_seconds: float, now: Callable[[], datetime]
) -> Attribution:
    began = time.monotonic()
    try:
        data_root = Path(settings.docker_data_root or engine.info().data_root)
        disk = engine.disk_usage(timeout=timeout_seconds)
    except CaissonError as error:
        return Attribution(at=now(), seconds=time.monotonic() - began, unknown=(error.message,))
    layers, unknown = _layers(engine, disk, deadline=began + timeout_seconds)
    logs = {item.id: log_bytes(data_root, item.id) for item in disk.containers}
    if any(size is None for size in logs.values()):
        unknown.append(f"Logs: {data_root / 'containers'} can't be read here.")
    if used is None:
        unknown.append("What Docker does not account for: its things are on several file systems.")
    return attribute(
        disk, layers=layers, logs=logs, used=used, at=now(), seconds=time.monotonic() - began, unknown=unknown
    )


def _layers(
    engine: Engine, disk: EngineDisk, *, deadline: float
) -> tuple[dict[ImageID, Sequence[StoredLayer]], list[str]]:
    """The layers of each image, two calls an image, for as long as there is time."""
    layers: dict[ImageID, Sequence[StoredLayer]] = {}
    known: dict[ChainID, int] = {}
    for index, image in enumerate(disk.images):
        if time.monotonic() > deadline:
            return layers, [f"Layers of {len(disk.images) - index} of {len(disk.images)} images: not read in time."]
        try:
            found = engine.inspect_image(image.id)
            sizes = [layer.size for layer in engine.history(image.id)] if found is not None else []
        except CaissonError as error:
            # Removed in between, or damaged: the others count all the same.
            if error.kind == "engine-unreachable":
                return layers, [f"Layers: {error.message}"]
            continue
        if found is not None:
            layers[image.id] = chain(found.layers, sizes, known)
            known.update(layers[image.id])
    return layers, []


def log_bytes(data_root: Path, container: ContainerID) -> int | None:
    """Bytes that the logs of a container take, rotated ones too; None where they can't be seen from here.

    Drivers ``json-file`` and ``local`` keep them beside the container's configuration; others keep none.
    """
    directory = data_root / "containers" / container
    try:
        if not directory.is_dir():
            return None
        return sum(_allocated(path) for pattern in _LOG_FILES for path in directory.glob(pattern))
    except OSError:
        return None


def _allocated(path: Path) -> int:
    status = path.stat()
    return status.st_blocks * 512
