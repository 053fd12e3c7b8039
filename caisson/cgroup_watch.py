"""What the kernel saw in a build's control groups while it ran: steps, out of memory, refused forks."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from caisson.cgroups import Cgroup, child_groups, read_counter

_TICK_SECONDS = 0.02
_ITSELF = ""
# A step that forks without end is refused at each tick. What is older than these counts as the failing step's.
_MOST_CHANGES = 10_000


@dataclass(frozen=True)
class CgroupEvidence:
    """What the kernel saw in the group that holds a build and the groups below it while the build ran."""

    nested: tuple[str, ...] = ()
    oom_kills: int = 0
    pids_refused: int = 0


class CgroupWatch:
    """Watches the group that holds a build while it runs; a context manager.

    Without being entered it has no thread, and counts only in groups that are still there when it is asked.

    ``builder`` is the group of the builder's container, which is below the one that is watched or is that one. All
    others below are those of RUN steps: seeing one is the proof that steps are held.

    Version 2 counts what happens below a group in that group too, but for refused forks before Linux 6.11. Version 1
    counts in the group of the victim, which is gone with its step; so its events are asked for as well
    (``memory.oom_control``). They come from the group whose limit was reached, and reach those below it, but not those
    above: hence the builder's own group, which has limits too, is asked beside the one that holds all.
    """

    def __init__(self, cgroup: Cgroup, builder: Cgroup, *, wall: Callable[[], float] = time.time) -> None:
        self._cgroup = cgroup
        self._builder_name = builder.path.removeprefix(cgroup.path).strip("/")
        self._nested: dict[str, None] = {}
        self._oom: dict[str, int] = {}
        self._refused: dict[str, int] = {}
        self._before = {
            name: (self._oom_kills(cgroup.memory / name), _refusals(cgroup.pids / name))
            for name in (_ITSELF, self._builder_name)
        }
        self._events = [_OomEvents(cgroup.memory / name) for name in self._before] if cgroup.version == 1 else []
        self._wall = wall
        self._changes: deque[tuple[float, int, int]] = deque(maxlen=_MOST_CHANGES)
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="cgroup-watch", daemon=True)

    def __enter__(self) -> CgroupWatch:
        for events in self._events:
            events.subscribe()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(timeout=5)
        for events in self._events:
            events.close()

    def evidence(self, *, since: float | None = None) -> CgroupEvidence:
        """What was seen until now; to be asked before the builder is removed.

        ``since``, in seconds since 1970, leaves out the kills and refusals before.
        """
        with self._lock:
            self._sample()
            _, oom, refused = self._changes[-1]
            earlier = [] if since is None else [change for change in self._changes if change[0] <= since]
            _, oom_before, refused_before = earlier[-1] if earlier else (0, 0, 0)
            return CgroupEvidence(
                nested=tuple(name for name in self._nested if not self._is_parent(name)),
                oom_kills=oom - oom_before,
                pids_refused=refused - refused_before,
            )

    def _totals(self) -> tuple[int, int]:
        oom, refused = self._since_start(self._oom, 0), self._since_start(self._refused, 1)
        return max(self._total(oom), *(events.count() for events in self._events), 0), self._total(refused)

    def _total(self, counts: dict[str, int]) -> int:
        below = sum(count for name, count in counts.items() if name != _ITSELF)
        own = counts.get(_ITSELF, 0)
        return own + below if self._cgroup.version == 1 else max(own, below)

    def _since_start(self, counts: dict[str, int], index: int) -> dict[str, int]:
        return {
            name: max(0, count - self._before[name][index]) if name in self._before else count
            for name, count in counts.items()
        }

    def _is_parent(self, name: str) -> bool:
        # BuildKit puts the groups of its steps into one of its own, which stays when they are gone.
        return any(other.startswith(f"{name}/") for other in self._nested)

    def _is_builders(self, name: str) -> bool:
        return bool(self._builder_name) and (name == self._builder_name or name.startswith(f"{self._builder_name}/"))

    def _run(self) -> None:
        while not self._stop.wait(_TICK_SECONDS):
            with self._lock:
                self._sample()

    def _sample(self) -> None:
        for directory, name in [(self._cgroup.memory, _ITSELF), *_below(self._cgroup.memory, depth=2)]:
            if name and not self._is_builders(name):
                self._nested.setdefault(name)
            _keep_highest(self._oom, name, self._oom_kills(directory))
        for directory, name in [(self._cgroup.pids, _ITSELF), *_below(self._cgroup.pids, depth=2)]:
            _keep_highest(self._refused, name, _refusals(directory))
        totals = self._totals()
        if not self._changes or self._changes[-1][1:] != totals:
            self._changes.append((self._wall(), *totals))

    def _oom_kills(self, directory: Path) -> int:
        file = "memory.events" if self._cgroup.version == 2 else "memory.oom_control"
        return read_counter(directory / file, "oom_kill")


class _OomEvents:
    """Version 1's own word that a group is out of memory: an eventfd that the kernel adds to."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._descriptor = -1
        self._seen = 0

    def subscribe(self) -> None:
        descriptor = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        try:
            with (self._directory / "memory.oom_control").open("rb") as control:
                (self._directory / "cgroup.event_control").write_text(f"{descriptor} {control.fileno()}")
        except OSError:
            os.close(descriptor)
        else:
            self._descriptor = descriptor

    def count(self) -> int:
        if self._descriptor < 0:
            return 0
        with contextlib.suppress(BlockingIOError):
            self._seen += os.eventfd_read(self._descriptor)
        # The removal of a group is told in the same way.
        return self._seen if self._directory.is_dir() else max(0, self._seen - 1)

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _refusals(directory: Path) -> int:
    return read_counter(directory / "pids.events", "max")


def _keep_highest(counts: dict[str, int], name: str, count: int) -> None:
    # A group that is going away says 0.
    counts[name] = max(count, counts.get(name, 0))


def _below(directory: Path, depth: int) -> list[tuple[Path, str]]:
    found: list[tuple[Path, str]] = []
    try:
        children = child_groups(directory)
    except OSError:
        return found
    for child in children:
        found.append((child, child.name))
        if depth > 1:
            found.extend((path, f"{child.name}/{name}") for path, name in _below(child, depth - 1))
    return found
