"""What is on a host while a prune works on it: taken once, and anew whenever something changed that was not its doing.

Each check costs one call to the engine: its events since the last one tell whether the picture still holds. Where they
don't (others' work, a lease that came or changed, an event lost) the host is looked at again in full.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from caisson.boot import Boot
from caisson.clock import Reading, judge_clock
from caisson.disk import DiskUsage
from caisson.disk_reserve import DiskReserve
from caisson.engine import Engine, EngineEvent, ImageID
from caisson.engine_disk import EngineDisk
from caisson.engine_disk_read import read_disk
from caisson.engine_events import replay
from caisson.leases import Held, Leases
from caisson.ledger import Ledger
from caisson.observe import observe
from caisson.retention.policy import RetentionPolicy
from caisson.retention.prune_plan import PlanItem
from caisson.retention.recheck import Recheck, Verdict
from caisson.snapshot import ImageState, Snapshot
from caisson.snapshot_disk import DiskUnread, wanted_of_disk

# What tells of no new use, name or hold. All else that there is, or will be, counts as a change.
_HARMLESS = {
    "container": frozenset(
        (
            *("attach", "copy", "detach", "die", "destroy", "export", "kill", "oom", "pause", "resize", "stop", "top"),
            *("unpause", "update", "archive-path", "extract-to-dir", "health_status"),
            *("exec_create", "exec_start", "exec_die", "exec_detach"),
        )
    ),
    "image": frozenset(("prune",)),
}


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True)
class PruneHost:
    """One host as a prune works with it. ``engines`` are connections to one engine: one for each removal at once.

    ``read_usage`` reads the file system that holds the data root, and raises ``OSError``; ``reserve`` is kept on it.
    ``boot`` tells the seconds that pass whatever the clock says, and raises it too; without it the clock is believed.
    """

    engines: Sequence[Engine]
    ledger: Ledger
    leases: Leases
    read_usage: Callable[[], DiskUsage]
    containerd_store: bool = False
    engine_id: str = ""
    clock: Callable[[], datetime] = _now
    sleep: Callable[[float], None] = time.sleep
    reserve: DiskReserve | None = None
    boot: Callable[[], Boot] | None = None

    @property
    def engine(self) -> Engine:
        return self.engines[0]


class HostView:
    """A picture of the host under a policy. All its reads raise, and then nothing may be removed."""

    def __init__(self, host: PruneHost, policy: RetentionPolicy) -> None:
        self.host, self.policy = host, policy
        self._held: Held | None = None
        self._disk: EngineDisk | DiskUnread | None = None
        self._anchor: tuple[str, ...] = ()
        self._removed: set[ImageID] = set()
        self._touched: set[ImageID] = set()
        self._snapshot: Snapshot | None = None
        self._by_id: dict[ImageID, ImageState] = {}
        self._recheck: Recheck | None = None

    @property
    def snapshot(self) -> Snapshot:
        """The last picture, as it was taken; raises ``RuntimeError`` before the first."""
        if self._snapshot is None:
            raise RuntimeError("look at the host first")
        return self._snapshot

    @property
    def has_disk(self) -> bool:
        """Whether the engine's account of its disk was asked for, if the policy wants anything of it."""
        return self._disk is not None or not wanted_of_disk(self.policy)

    def read_disk(self) -> None:
        """Ask for the engine's account of its disk, which can take minutes: so never while builds wait."""
        if isinstance(self._disk, DiskUnread) and not self._disk.blocks:
            # Not a second time for as long.
            return
        self._disk = read_disk(self.host.engine, self.policy) if wanted_of_disk(self.policy) else None

    def go_without_account(self) -> bool:
        """Let what could not be read of the engine's disk stand in the way of nothing else; whether that changed it."""
        if not isinstance(self._disk, DiskUnread) or not self._disk.blocks:
            return False
        self._disk = replace(self._disk, blocks=False)
        self.distrust()
        return True

    def look(self, held: Held) -> Snapshot:
        """Take the picture, whatever is known."""
        host = self.host
        now = host.clock()
        doubt = self._judge_clock(now)
        snapshot = observe(
            host.engine,
            host.ledger,
            held,
            host.read_usage(),
            now=now,
            containerd_store=host.containerd_store,
            disk=self._disk,
            with_ends=self.policy.exited_containers_age is not None,
            is_recorded=not doubt,
        )
        if doubt:
            snapshot = replace(snapshot, problems=(doubt, *snapshot.problems))
        # Not from the ledger: there may be what another process has replayed since.
        self._anchor = snapshot.anchor
        self._snapshot, self._held, self._recheck = snapshot, held, None
        self._by_id = {image.id: image for image in snapshot.images}
        self._removed, self._touched = set(), set()
        return snapshot

    def _judge_clock(self, now: datetime) -> str:
        if self.host.boot is None:
            return ""
        memory = self.host.ledger.clock
        known, doubt = judge_clock(memory.known(), Reading(now, self.host.boot()))
        memory.record(known)
        return doubt

    def refresh(self, held: Held) -> None:
        """Take the picture anew if it may not hold any more; ``held`` is what ``Leases.exclude`` gives."""
        if self._snapshot is None or held != self._held or self._has_changed():
            self.look(held)

    def verdict(self, item: PlanItem) -> Verdict:
        """Whether an item may go by the picture, and by what was removed since."""
        if self._recheck is None:
            snapshot = self.snapshot
            self._recheck = Recheck(snapshot, self.policy, snapshot.taken)
        return self._recheck.verdict(item, removed=self._removed)

    def image(self, image_id: ImageID) -> ImageState | None:
        return self._by_id.get(image_id)

    @property
    def has_builds(self) -> bool:
        """Whether a build held a lease at the last check."""
        return self._held is not None and bool(self._held.leases)

    def touching(self, image_id: ImageID) -> None:
        """What the engine tells next of this image's names and end is our own doing."""
        self._touched.add(image_id)

    def removed(self, image_id: ImageID) -> None:
        """It is gone."""
        self._removed.add(image_id)

    def distrust(self) -> None:
        """The next check takes the picture anew."""
        self._held = None

    def _has_changed(self) -> bool:
        since = int(self._anchor[0]) if self._anchor else 0
        found = replay(self.host.engine.events(since_ns=since), self._anchor)
        if not found.is_complete and (found.events or self._anchor):
            return True
        if any(self._matters(event) for event in found.events):
            return True
        self._anchor = found.anchor
        return False

    def _matters(self, event: EngineEvent) -> bool:
        if event.type not in _HARMLESS:
            return False
        action = event.action.partition(":")[0]
        if event.type == "image" and action in ("untag", "delete") and event.subject in self._touched:
            return False
        return action not in _HARMLESS[event.type]
