"""One read of the engine's account of its disk for a prune; what can't be read is told, or left out where it may be."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping

from caisson.engine import DiskPart, Engine
from caisson.engine_disk import EngineDisk
from caisson.errors import EngineRefused, EngineUnreachable
from caisson.retention.policy import RetentionPolicy
from caisson.snapshot_disk import DiskUnread, wanted_of_disk

TIMEOUT_SECONDS = 120.0
"""With millions of files in volumes it takes minutes."""
# Engine 20.10 refuses a second call while another one's is under way (daemon/disk_usage.go).
_BUSY = "already running"
_AGAIN_SECONDS = 0.5
# Volumes are what takes long: so none are walked for a policy that wants none.
_PARTS: Mapping[str, DiskPart] = {
    "build_cache": "build-cache",
    "exited_containers_age": "container",
    "anonymous_volumes_age": "volume",
}


def read_disk(
    engine: Engine,
    policy: RetentionPolicy,
    *,
    timeout: float = TIMEOUT_SECONDS,
    sleep: Callable[[float], None] = time.sleep,
) -> EngineDisk | DiskUnread | None:
    """For ``observe``. Never raises for what the engine does not tell within ``timeout`` seconds.

    None where the policy wants nothing of it: then what goes does not hang on it.
    """
    wanted = wanted_of_disk(policy)
    try:
        return _read(engine, {_PARTS[name] for name in wanted}, timeout, sleep)
    except (EngineRefused, EngineUnreachable) as error:
        if not wanted:
            return None
        return DiskUnread(f"the engine's account of its disk, needed for {', '.join(wanted)}: {error.message}")


def _read(engine: Engine, parts: Collection[DiskPart], timeout: float, sleep: Callable[[float], None]) -> EngineDisk:
    deadline = time.monotonic() + timeout
    while True:
        left = deadline - time.monotonic()
        try:
            return engine.disk_usage(timeout=max(left, _AGAIN_SECONDS), parts=parts)
        except EngineRefused as error:
            if _BUSY not in error.message or left <= _AGAIN_SECONDS:
                raise
        sleep(_AGAIN_SECONDS)
