"""How far a plan has come towards what is to be free, by estimate. Pure."""

from __future__ import annotations

from caisson.disk import DiskUsage
from caisson.retention.prune_plan import FreeTarget


class Room:
    """Free bytes and inodes as removals are planned.

    No engine tells how many inodes a layer has, so they are taken to be spread over the disk's bytes evenly; an apply
    reads the true number after each removal. ``inodes_over``: ``short`` is true until so many times as many are
    reclaimable.
    """

    def __init__(self, usage: DiskUsage, target: FreeTarget | None, *, inodes_over: int = 1) -> None:
        self._usage, self._target, self._inodes_over = usage, target, inodes_over
        self.reclaimable = 0

    def free(self, size: int) -> None:
        """A removal of so many bytes is planned."""
        self.reclaimable += size

    @property
    def reclaimable_inodes(self) -> int:
        used_bytes = self._usage.total_bytes - self._usage.free_bytes
        used_inodes = self._usage.total_inodes - self._usage.free_inodes
        if not self._usage.total_inodes or used_bytes <= 0:
            return 0
        return min(used_inodes, self.reclaimable * used_inodes // used_bytes)

    @property
    def free_bytes(self) -> int:
        return self._usage.free_bytes + self.reclaimable

    @property
    def under_pressure(self) -> bool:
        return self._target is not None

    @property
    def short(self) -> bool:
        """Whether bytes or inodes are still missing; never without pressure."""
        if self._target is None:
            return False
        if self.free_bytes < self._target.free_bytes:
            return True
        inodes = self._usage.free_inodes + self.reclaimable_inodes // self._inodes_over
        return bool(self._usage.total_inodes) and inodes < self._target.free_inodes

    @property
    def missing_bytes(self) -> int:
        """Bytes to the target; those that stand for missing inodes included, as they are estimated at first."""
        if self._target is None:
            return 0
        missing = max(0, self._target.free_bytes - self.free_bytes)
        used_bytes = self._usage.total_bytes - self._usage.free_bytes
        used_inodes = self._usage.total_inodes - self._usage.free_inodes
        if self._usage.total_inodes and used_inodes > 0:
            inodes = self._target.free_inodes - self._usage.free_inodes
            # Rounded up, or the last inode would be missing for ever.
            missing = max(missing, -(-inodes * used_bytes // used_inodes) - self.reclaimable)
        return missing
