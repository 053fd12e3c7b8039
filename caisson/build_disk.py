"""Docker's disks while a build runs: it is ended before it has filled one, and that is told as what it is."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable

from caisson.disk import DiskUsage
from caisson.engine import ContainerID, Engine
from caisson.errors import BuildTimedOut, CaissonError, DiskTooFull
from caisson.sizes import format_size

# A look is a statvfs(2) for each disk; a fast one takes 500 MB meanwhile.
_POLL_SECONDS = 0.1


class BuildDisk:
    """Removes the builder when one of Docker's disks is critical, which ends whatever step runs; a context manager.

    ``find_critical`` reads the disks, and tells the first that is critical now. It is a thread of the flow's process.
    """

    def __init__(
        self,
        engine: Engine,
        container: ContainerID,
        find_critical: Callable[[], DiskUsage | None],
        *,
        poll_seconds: float = _POLL_SECONDS,
    ) -> None:
        self._engine, self._container, self._find_critical = engine, container, find_critical
        self._poll_seconds = poll_seconds
        self._critical: DiskUsage | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="build-disk", daemon=True)

    def __enter__(self) -> BuildDisk:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(timeout=5)

    def _watch(self) -> None:
        while not self._stop.wait(self._poll_seconds):
            self._critical = self._find_critical()
            if self._critical is not None:
                # The flow's own clean-up tries again, and reports.
                with contextlib.suppress(CaissonError):
                    self._engine.remove_container(self._container)
                return

    def explain(self, error: CaissonError) -> CaissonError:
        """What a failed step means: ``DiskTooFull`` where the build was ended for that; else it is unchanged."""
        critical = self._critical
        if critical is None or isinstance(error, BuildTimedOut):
            return error
        left = f"{format_size(critical.free_bytes)} and {critical.free_inodes:,} inodes free"
        return DiskTooFull(
            f"Docker's disk at {critical.path} became critically full while the build ran ({left}), so it was ended.",
            hint="Let its steps write less, or make room there: `caisson disk --attribution` shows what holds it, and "
            "the settings CAISSON_DISK_… say what critical is.",
            details={**error.details, "path": critical.path, "free_bytes": critical.free_bytes},
        )
