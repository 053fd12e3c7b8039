"""Step: is there room for a build on Docker's disk?"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from caisson.build import Build
from caisson.disk import read_disk_usage, require_room
from caisson.disk_attribution import holders
from caisson.disk_places import docker_data_root, seen_places
from caisson.disk_state import read_attribution
from caisson.disk_watch import require_uncritical
from caisson.settings import Settings
from caisson.sizes import format_size
from tasks.step import step

_OLDEST = timedelta(hours=2)


@step("check_disk")
def check_disk(build: Build) -> None:
    """Refuse the build when Docker's disk is critical, or free bytes or inodes are under the floor.

    Both are read now: what the monitor last saw admits nothing and refuses nothing. Raises ``DiskTooFull``.
    """
    engine = build.record.engine
    assert engine is not None
    usage = read_disk_usage(docker_data_root(engine, build.settings))
    build.log.line(f"{usage.path}: {format_size(usage.free_bytes)} and {usage.free_inodes:,} inodes free")
    require_room(usage, min_free_bytes=build.settings.min_free_bytes, min_free_inodes=build.settings.min_free_inodes)
    # Where they are not to be seen from here, the line above shows it by its path.
    require_uncritical(build.settings, seen_places(engine, build.settings), holders=_holders(build.settings))


def _holders(settings: Settings) -> list[str]:
    """What held the disk when it was last accounted for, if that is not long ago."""
    found = read_attribution(settings.state_dir)
    return holders(found) if found is not None and datetime.now(UTC) - found.at < _OLDEST else []
