"""A prune under pressure of images that BuildKit has built, whose layers its cache holds as well."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from caisson.prune_view import HostView
from caisson.retention.policy import CachePolicy
from tests.engine.own_disks import HOST_WIDE, LONG_AGO, MIB, UNDER_PRESSURE, Disk, low_at

COUNT, SIZE = 10, 20 * MIB
POLICY = UNDER_PRESSURE.model_copy(update={"build_cache": CachePolicy(reserved_space=0)})


@pytest.fixture
def disk(disk: Disk) -> Iterator[Disk]:
    """Without what its builds leave in the cache."""
    yield disk
    disk.clear()
    disk.docker.prune_build_cache(keep_bytes=0, timeout=120)


def test_images_that_free_nothing_alone_are_no_reason_for_more(
    disk: Disk, buildx: tuple[Path, ...], tmp_path: Path
) -> None:
    env = {"DOCKER_HOST": disk.engine.host.docker_host, "HOME": str(tmp_path), "PATH": os.environ["PATH"]}
    for number in range(COUNT):
        context = tmp_path / str(number)
        context.mkdir()
        (context / "file").write_bytes(os.urandom(SIZE))
        (context / "Dockerfile").write_text("FROM scratch\nCOPY file /\n")
        command = [str(buildx[0]), "build", "--provenance=false", "--tag", f"app{number}:1", str(context)]
        built = subprocess.run(command, env=env, capture_output=True, text=True)
        assert built.returncode == 0, built.stderr
    # What came of the contexts would be room enough without any layer.
    disk.docker.prune_build_cache(keep_bytes=0, timeout=120)
    disk.now = datetime.now(UTC) - LONG_AGO
    HostView(disk.host, HOST_WIDE).look(disk.leases.held())
    disk.now = datetime.now(UTC)

    wanted = 3 * SIZE - MIB
    report = disk.prune(POLICY, low_at(disk.usage.free_bytes + wanted))
    removed = [result for result in report.results if result.outcome == "removed"]
    print(f"\n  {report.freed_bytes / MIB:.1f} MiB freed of {wanted / MIB:.0f}:")
    for result in removed:
        print(f"  round {result.round}: {result.item.phase}, {result.item.marginal_bytes / MIB:.1f} MiB planned")
    assert report.ending == "target-reached"
    assert wanted <= report.freed_bytes <= wanted + 2 * SIZE
    assert [result.item.phase for result in removed if result.round > 1] == ["cache-evicted"]
    assert len(disk.tags) >= COUNT - 4
