"""Readings of a disk over time: what forecast and picture are made from."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from caisson.disk import DiskUsage
from caisson.forecast import Point

History = list[tuple[datetime, DiskUsage]]
"""Samples of one file system, the oldest first; times are aware."""


def byte_points(history: Iterable[tuple[datetime, DiskUsage]], now: DiskUsage) -> list[Point]:
    """The bytes in use over time, out of what can be used now: samples don't know what is reserved for root."""
    return [Point(at, now.usable_bytes - usage.free_bytes) for at, usage in history]


def inode_points(history: Iterable[tuple[datetime, DiskUsage]], now: DiskUsage) -> list[Point]:
    """The inodes in use over time; none of a file system without a fixed number of them."""
    return [Point(at, now.total_inodes - usage.free_inodes) for at, usage in history if now.total_inodes]
