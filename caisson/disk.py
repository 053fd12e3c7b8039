"""Room on a file system: bytes and inodes, and whether a build may start on it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from caisson.errors import DiskTooFull
from caisson.sizes import format_size


@dataclass(frozen=True)
class DiskUsage:
    """One file system as ``statvfs`` tells it; free is what unprivileged users may use. Bytes and inodes.

    ``total_inodes`` is 0 where the file system has no fixed number of them (btrfs): then they never run out.
    ``reserved_bytes`` are free too, but for root alone (ext4 keeps 5 %).
    """

    path: str
    total_bytes: int
    free_bytes: int
    total_inodes: int
    free_inodes: int
    reserved_bytes: int = 0

    @property
    def usable_bytes(self) -> int:
        """What unprivileged users can fill; a share of it is what ``df`` shows as ``Use%``."""
        return self.total_bytes - self.reserved_bytes

    @property
    def used_bytes(self) -> int:
        return self.usable_bytes - self.free_bytes

    @property
    def used_inodes(self) -> int:
        return self.total_inodes - self.free_inodes


def read_disk_usage(path: Path) -> DiskUsage:
    """The file system that holds ``path``, or its nearest directory that exists; raises ``OSError``."""
    return read_file_system(next(candidate for candidate in (path, *path.parents) if candidate.exists()))


def read_file_system(path: Path) -> DiskUsage:
    """The file system that holds ``path``; raises ``OSError`` where that is not there."""
    status = os.statvfs(path)
    return DiskUsage(
        path=str(path),
        total_bytes=status.f_blocks * status.f_frsize,
        free_bytes=status.f_bavail * status.f_frsize,
        total_inodes=status.f_files,
        free_inodes=status.f_favail,
        reserved_bytes=(status.f_bfree - status.f_bavail) * status.f_frsize,
    )


def require_room(usage: DiskUsage, *, min_free_bytes: int, min_free_inodes: int) -> None:
    """Raise ``DiskTooFull``, saying how much is missing, when free bytes or inodes are under the floor."""
    missing: list[str] = []
    bytes_missing = max(0, min_free_bytes - usage.free_bytes)
    inodes_missing = max(0, min_free_inodes - usage.free_inodes) if usage.total_inodes else 0
    if bytes_missing:
        missing.append(
            f"{format_size(usage.free_bytes)} free, {format_size(min_free_bytes)} needed: "
            f"{format_size(bytes_missing)} missing"
        )
    if inodes_missing:
        missing.append(f"{usage.free_inodes:,} inodes free, {min_free_inodes:,} needed: {inodes_missing:,} missing")
    if missing:
        raise DiskTooFull(
            f"Docker's disk at {usage.path} is too full for a build: {'; '.join(missing)}.",
            hint="Free some room there (`caisson prune` shows what could go, `caisson disk --attribution` what holds "
            "it), or lower CAISSON_MIN_FREE_BYTES or CAISSON_MIN_FREE_INODES.",
            details={"bytes_missing": bytes_missing, "inodes_missing": inodes_missing, "path": usage.path},
        )
