"""One look at the disks: state between looks, what is told, and who may build. On real small file systems."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from caisson.disk import DiskUsage
from caisson.disk_places import Place
from caisson.disk_report import horizon
from caisson.disk_state import DiskState, only_one, read_state, state_file, write_state
from caisson.disk_watch import changed_horizons, look, report, require_uncritical
from caisson.engine import EngineInfo
from caisson.errors import DiskTooFull, EngineUnreachable
from caisson.forecast import Forecast
from caisson.pressure import Level
from caisson.settings import Settings
from tests.unit.test_disk_places import engine_info

NOW = datetime(2026, 1, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
MIB = 1 << 20


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """An empty file system of 20 MiB and 200 inodes, as Docker's data root."""
    root = tmp_path / "docker"
    root.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=20m,nr_inodes=200,mode=0755", "caisson-test", str(root)]
    subprocess.run(mount, check=True)
    yield root
    subprocess.run(["umount", str(root)], check=True)


def fill(disk: Path, mib: int) -> None:
    """Have so many MiB in use on it."""
    (disk / "filler").write_bytes(b"\0" * (mib * MIB))


class Monitor:
    """Looks at one disk, once a minute, and remembers in a file as the real one does."""

    def __init__(self, disk: Path, state_dir: Path, **settings: str) -> None:
        self.settings = Settings(_env_file=None, docker_data_root=str(disk), state_dir=state_dir, **settings)
        self.now, self.engine_calls = NOW, 0

    def ask(self) -> EngineInfo:
        self.engine_calls += 1
        return engine_info("/elsewhere")

    def look(self) -> tuple[Level, str]:
        """The level after a look, and the change that it told, ``before>after``."""
        self.now += MINUTE
        found = look(self.settings, read_state(self.settings.state_dir), self.now, ask=self.ask)
        write_state(self.settings.state_dir, found.state)
        (reading,) = found.readings
        change = reading.change
        return reading.pressure.level, f"{change.before}>{change.after}" if change else ""


def test_a_disk_goes_through_pressure_and_critical_to_recovered(disk: Path, tmp_path: Path) -> None:
    monitor = Monitor(disk, tmp_path / "state")
    assert monitor.look() == ("normal", "")
    fill(disk, 18)
    assert monitor.look() == ("normal", "")
    assert monitor.look() == ("high", "normal>high")
    assert monitor.look() == ("high", "")
    fill(disk, 20)
    assert [monitor.look(), monitor.look()] == [("high", ""), ("critical", "high>critical")]
    fill(disk, 16)
    assert [monitor.look(), monitor.look()] == [("critical", ""), ("high", "critical>high")]
    assert [monitor.look(), monitor.look()] == [("high", ""), ("high", "")]
    fill(disk, 5)
    assert [monitor.look(), monitor.look()] == [("high", ""), ("normal", "high>normal")]
    assert monitor.engine_calls == 1


def test_inodes_run_out_as_bytes_do(disk: Path, tmp_path: Path) -> None:
    monitor = Monitor(disk, tmp_path / "state")
    for number in range(195):
        (disk / f"{number}").touch()
    assert [monitor.look(), monitor.look()] == [("normal", ""), ("critical", "normal>critical")]
    for number in range(100):
        (disk / f"{number}").unlink()
    assert [monitor.look(), monitor.look()] == [("critical", ""), ("normal", "critical>normal")]


def test_a_full_disk_is_seen_though_the_engine_died_of_it(disk: Path, tmp_path: Path) -> None:
    monitor = Monitor(disk, tmp_path / "state")
    monitor.look()
    fill(disk, 20)

    def dead() -> EngineInfo:
        raise EngineUnreachable("The engine does not answer.")

    state = read_state(monitor.settings.state_dir)
    found = look(monitor.settings, state, NOW + timedelta(days=3), ask=dead)
    assert found.readings[0].usage.free_bytes == 0
    with pytest.raises(EngineUnreachable):
        look(monitor.settings, DiskState(), NOW, ask=dead)


@pytest.mark.parametrize("text", ["", "{", '{"looked": "yesterday"}', "[]", '{"pressures": {"/": {"level": "bad"}}}'])
def test_a_damaged_state_is_no_state(tmp_path: Path, text: str) -> None:
    state_file(tmp_path).write_text(text)
    assert read_state(tmp_path) == DiskState()


def test_a_critical_disk_admits_no_build_and_says_what_is_missing_and_what_holds_it(disk: Path, tmp_path: Path) -> None:
    settings = Settings(_env_file=None, state_dir=tmp_path)
    places = (Place(path=str(disk), holds=("images and containers",)),)
    require_uncritical(settings, places, holders=[])
    fill(disk, 20)
    with pytest.raises(
        DiskTooFull, match=r"1 MiB of it is freed\. It is held by build cache 12 GiB, volume db 3 GiB\."
    ):
        require_uncritical(settings, places, holders=["build cache 12 GiB", "volume db 3 GiB"])
    fill(disk, 18)
    require_uncritical(settings, places, holders=[])


def test_admission_asks_the_disk_and_not_the_monitor(disk: Path, tmp_path: Path) -> None:
    """A monitor that died while the disk was critical blocks nobody, one that never saw it full lets nobody in."""
    monitor = Monitor(disk, tmp_path / "state")
    places = (Place(path=str(disk), holds=()),)
    fill(disk, 20)
    monitor.look(), monitor.look()
    assert read_state(monitor.settings.state_dir).pressures[str(disk)].level == "critical"
    fill(disk, 1)
    require_uncritical(monitor.settings, places, holders=[])
    monitor.look(), monitor.look()
    fill(disk, 20)
    with pytest.raises(DiskTooFull):
        require_uncritical(monitor.settings, places, holders=[])


def test_the_report_says_what_must_be_freed_and_when_it_is_full(disk: Path, tmp_path: Path) -> None:
    monitor = Monitor(disk, tmp_path / "state")
    fill(disk, 18)
    monitor.look()
    found = look(monitor.settings, read_state(monitor.settings.state_dir), NOW + 3 * MINUTE, ask=monitor.ask)
    (reading,) = found.readings
    # 10 MiB in use two hours ago, 18 now: full in half an hour.
    history = [
        (found.at - timedelta(minutes=120 - minute), free(reading.usage, 10 * MIB - minute * 8 * MIB // 120))
        for minute in range(120)
    ]
    made, forecasts = report(monitor.settings, found, lambda _: history)
    (item,) = made.file_systems
    assert made.level == item.level == "high"
    assert item.bytes.missing == 3 * MIB + 1
    assert item.bytes.full_in_seconds == pytest.approx(1800, rel=0.05)
    assert "full in about 30 minutes" in item.summary
    assert changed_horizons(found.state, forecasts) == {str(disk): 4}


def free(usage: DiskUsage, free_bytes: int) -> DiskUsage:
    return DiskUsage(usage.path, usage.total_bytes, free_bytes, usage.total_inodes, usage.free_inodes)


@pytest.mark.parametrize(
    ("days", "told", "step"),
    [
        (None, 4, 0),
        (20, 0, 0),
        (14, 0, 1),
        (6, 0, 2),
        (3, 0, 3),
        (0.5, 0, 4),
        (1.2, 4, 4),
        (1.3, 4, 3),
        (17, 1, 1),
        (18, 1, 0),
    ],
)
def test_a_forecast_is_told_by_steps_and_taken_back_a_quarter_later(days: float | None, told: int, step: int) -> None:
    found = Forecast("bytes", "growing", 100, timedelta(days=9), full_in=timedelta(days=days)) if days else None
    assert horizon(found, told) == step


def test_a_lock_is_held_by_one(tmp_path: Path) -> None:
    with (
        only_one(tmp_path, "disk") as first,
        only_one(tmp_path, "disk") as second,
        only_one(tmp_path, "other") as other,
    ):
        assert (first, second, other) == (True, False, True)
    with only_one(tmp_path, "disk") as again:
        assert again
