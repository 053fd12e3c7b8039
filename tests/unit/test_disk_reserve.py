"""The reserve on a disk that may be full, and what a prune does with it when an engine can't write."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from caisson.disk_reserve import DiskReserve
from caisson.errors import EngineRefused
from caisson.prune import apply_plan
from tests.unit.test_prune_rounds import Inodes


def test_it_is_kept_where_there_is_room_and_given_up_once(tmp_path: Path) -> None:
    reserve = DiskReserve(tmp_path)
    reserve.keep()
    assert reserve.path.stat().st_size == 1 << 20
    assert reserve.path.stat().st_mode & 0o777 == 0o600
    before = reserve.path.stat().st_ino
    reserve.keep()
    assert reserve.path.stat().st_ino == before
    assert (reserve.give_up(), reserve.give_up()) == (True, False)


def test_a_link_in_its_place_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / ".caisson-reserve").symlink_to(tmp_path / "other")
    DiskReserve(tmp_path).keep()
    assert not (tmp_path / "other").exists()


def test_on_a_full_disk_none_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = os.statvfs(tmp_path)
    full = os.statvfs_result((disk.f_bsize, disk.f_frsize, disk.f_blocks, 0, 0, *disk[5:10]))
    monkeypatch.setattr(os, "statvfs", lambda _: full)
    DiskReserve(tmp_path).keep()
    assert list(tmp_path.iterdir()) == []
    DiskReserve(tmp_path / "none").keep()


@pytest.mark.parametrize(("reserved", "ending"), [(True, "target-reached"), (False, "short")])
def test_an_engine_that_can_not_write_removes_when_it_is_given_up(tmp_path: Path, reserved: bool, ending: str) -> None:
    host = Inodes(tmp_path, wanted=1500)
    reserve = DiskReserve(tmp_path)
    object.__setattr__(host.pruned, "reserve", reserve if reserved else None)
    refusals = 0

    def full(name: str, _: str) -> None:
        nonlocal refusals
        if name == "remove_image" and (reserve.path.exists() or not reserved):
            refusals += 1
            raise EngineRefused("write /var/lib/docker/image/overlay2/.tmp-repositories.json: no space left on device")

    host.engine.before = full
    report = apply_plan(host.view, host.plan(), trigger="a test", replan=host.plan)
    assert report.ending == ending
    assert refusals == (1 if reserved else len(report.results))
    assert reserve.path.exists() == reserved, "it is there again at the end"
