"""Room for a build: bytes and inodes."""

from __future__ import annotations

from pathlib import Path

import pytest

from caisson.disk import DiskUsage, read_disk_usage, require_room
from caisson.errors import DiskTooFull

GIB = 1 << 30
USAGE = DiskUsage("/var/lib/docker", total_bytes=10 * GIB, free_bytes=2 * GIB, total_inodes=1000, free_inodes=100)


def test_enough_room_passes_and_the_floor_itself_is_enough() -> None:
    require_room(USAGE, min_free_bytes=2 * GIB, min_free_inodes=100)


def test_too_few_bytes_says_how_much_is_missing() -> None:
    with pytest.raises(DiskTooFull, match="1 GiB missing") as caught:
        require_room(USAGE, min_free_bytes=3 * GIB, min_free_inodes=0)
    assert caught.value.details["bytes_missing"] == GIB


def test_too_few_inodes_says_how_many_are_missing() -> None:
    with pytest.raises(DiskTooFull, match="50 missing"):
        require_room(USAGE, min_free_bytes=0, min_free_inodes=150)


def test_a_file_system_without_a_number_of_inodes_never_lacks_them() -> None:
    require_room(DiskUsage("/", GIB, GIB, total_inodes=0, free_inodes=0), min_free_bytes=0, min_free_inodes=150)


def test_usage_is_read_of_the_nearest_directory_that_exists(tmp_path: Path) -> None:
    usage = read_disk_usage(tmp_path / "not" / "there")
    assert usage.path == str(tmp_path)
    assert 0 < usage.free_bytes <= usage.total_bytes
