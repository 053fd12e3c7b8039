"""Step: is there room for a build on Docker's disk?"""

from __future__ import annotations

from pathlib import Path

from caisson.build import Build
from caisson.disk import read_disk_usage, require_room
from caisson.sizes import format_size
from tasks.step import step


@step("check_disk")
def check_disk(build: Build) -> None:
    """Refuse the build when free bytes or inodes are under the floor; raises ``DiskTooFull``."""
    engine = build.record.engine
    assert engine is not None
    usage = read_disk_usage(Path(build.settings.docker_data_root or engine.data_root))
    build.log.line(f"{usage.path}: {format_size(usage.free_bytes)} and {usage.free_inodes:,} inodes free")
    require_room(usage, min_free_bytes=build.settings.min_free_bytes, min_free_inodes=build.settings.min_free_inodes)
