"""The disks as a page, a picture, metrics and events."""

from __future__ import annotations

import base64
import re
import xml.etree.ElementTree as ElementTree
from datetime import UTC, datetime, timedelta
from pathlib import Path

from caisson.disk import DiskUsage
from caisson.disk_attribution import Attribution, RepositoryBytes
from caisson.disk_events import disk_events
from caisson.disk_markdown import disk_markdown, disk_summary
from caisson.disk_metrics import metrics_file, render_metrics, write_metrics
from caisson.disk_picture import Series, disk_picture
from caisson.disk_places import Place
from caisson.disk_report import DiskReport, worst
from caisson.disk_state import DiskState
from caisson.disk_watch import Look, Reading, report
from caisson.pressure import Change, Level, Pressure
from caisson.settings import Settings

NOW = datetime(2026, 1, 5, 12, tzinfo=UTC)
GIB = 1 << 30
SETTINGS = Settings(_env_file=None, host_name="build-1", state_dir=Path("/nonexistent"))


def made(
    level: Level = "normal", *, free: int = 50, change: Change | None = None, path: str = "/d"
) -> tuple[Look, DiskReport]:
    usage = DiskUsage(path, 100 * GIB, free * GIB, 0, 0)
    zone = SETTINGS.disk_limits.zone(usage)
    reading = Reading(Place(path=path, holds=("volumes",)), usage, zone, Pressure(level, NOW), change)
    found = Look(NOW, (reading,), DiskState())
    return found, report(SETTINGS, found, lambda _: [])[0]


def svg(uri: str) -> ElementTree.Element:
    return ElementTree.fromstring(base64.b64decode(uri.removeprefix("data:image/svg+xml;base64,")))


def test_the_picture_has_the_line_the_bounds_and_the_prunes() -> None:
    points = [(NOW - timedelta(minutes=minute), 0.5) for minute in range(4 * 1440, -1, -1)]
    prunes = [NOW - timedelta(hours=5), NOW - timedelta(days=9)]
    picture = svg(disk_picture([Series("/d", points, (0.75, 0.85, 0.95), prunes)], now=NOW, span=timedelta(days=3)))
    text = ElementTree.tostring(picture, encoding="unicode")
    assert len(re.findall('class="prune"', text)) == 1
    assert all(word in text for word in ("low 75%", "high 85%", "critical 95%", "Sat 03", "Mon 05"))
    (line,) = [item for item in picture.iter() if item.tag.endswith("polyline")]
    drawn = [tuple(map(float, pair.split(","))) for pair in line.attrib["points"].split()]
    assert 300 < len(drawn) < 400
    assert drawn[-1][0] == 720 - 72
    assert len({y for _, y in drawn}) == 1


def test_peaks_are_in_the_picture_however_short() -> None:
    points = [(NOW - timedelta(minutes=minute), 0.99 if minute == 777 else 0.5) for minute in range(3000, -1, -1)]
    picture = svg(disk_picture([Series("/d", points, (0.75, 0.85, 0.95))], now=NOW, span=timedelta(days=3)))
    (line,) = [item for item in picture.iter() if item.tag.endswith("polyline")]
    heights = [float(pair.split(",")[1]) for pair in line.attrib["points"].split()]
    assert min(heights) < 32 < sorted(heights)[1]


def test_there_is_no_picture_of_nothing() -> None:
    assert disk_picture([Series("/d", [(NOW, 0.5)], (0.7, 0.8, 0.9))], now=NOW, span=timedelta(days=3)) == ""


def test_the_page_says_what_is_to_be_freed_and_shows_strangers_names_as_text() -> None:
    _, found = made("critical", free=3, path="/d|<b>")
    held = Attribution(
        at=NOW, seconds=1, repositories=(RepositoryBytes(name="evil|![](x)", images=1, exclusive=5, shared=0),)
    )
    page = disk_markdown(found.model_copy(update={"attribution": held}), "data:x")
    assert "**CRITICAL** since Mon 12:00 UTC; 22 GiB to be freed" in page
    assert "97% of 100 GiB" in page
    assert r"evil\|\!\[\]\(x\)" in page
    assert r"\/d\|\<b\>" in page
    assert "no limit" in page
    assert disk_summary(found).startswith("/d|<b>: 97% of 100 GiB in use, 3 GiB free; critical pressure, 22 GiB")


def test_many_rows_are_cut_and_the_cut_is_told() -> None:
    _, found = made()
    many = tuple(RepositoryBytes(name=f"app-{number}", images=1, exclusive=5, shared=0) for number in range(40))
    page = disk_markdown(
        found.model_copy(update={"attribution": Attribution(at=NOW, seconds=1, repositories=many)}), ""
    )
    assert "and 25 more" in page
    assert page.count(r"app\-") == 15


def test_metrics_have_one_level_and_escaped_labels() -> None:
    _, found = made("high", free=10, path='/d"\\')
    text = render_metrics(found)
    assert 'caisson_disk_avail_bytes{path="/d\\"\\\\"} 10737418240\n' in text
    assert re.findall(r'level="(\w+)"} (\d)', text) == [("normal", "0"), ("high", "1"), ("critical", "0")]
    assert "caisson_disk_files" not in text  # no fixed number of inodes
    assert "caisson_disk_full_seconds" not in text  # not known
    assert text.endswith(f"caisson_disk_last_look_timestamp_seconds {NOW.timestamp():.3f}\n")
    for line in text.splitlines():
        assert re.fullmatch(r'# (HELP|TYPE) \S+ .+|[a-z_]+(\{[a-z]+=".*"(,[a-z]+="\w+")?\})? [-+.e\d]+', line), line


def test_metrics_are_replaced_in_one_go_and_readable_for_the_exporter(tmp_path: Path) -> None:
    settings = Settings(_env_file=None, metrics_dir=str(tmp_path / "metrics"))
    _, found = made()
    write_metrics(settings, found)
    write_metrics(settings, found)
    assert metrics_file(settings).stat().st_mode & 0o777 == 0o644
    assert [path.name for path in (tmp_path / "metrics").iterdir()] == ["caisson_disk.prom"]


def test_only_changes_are_events_each_by_its_name() -> None:
    def names(before: Level, after: Level) -> list[str]:
        found, shown = made(after, change=Change(before, after, NOW))
        return [event.name for event in disk_events(found, shown, {})]

    assert list(disk_events(*made("critical"), {})) == []
    assert names("normal", "high") == ["caisson.disk.pressure"]
    assert names("high", "critical") == names("normal", "critical") == ["caisson.disk.critical"]
    assert names("critical", "high") == ["caisson.disk.pressure"]
    assert names("high", "normal") == names("critical", "normal") == ["caisson.disk.recovered"]


def test_an_event_says_to_people_and_machines_what_is_wrong() -> None:
    found, shown = made("critical", free=3, change=Change("high", "critical", NOW))
    critical, forecast = disk_events(found, shown, {"/d": 2})
    assert critical.message.startswith("Docker's disk on build-1 is critically full: no build starts. /d: 97% of")
    assert critical.payload["missing_bytes"] == 22 * GIB + 1
    assert critical.payload["before"] == "high"
    assert (forecast.name, forecast.payload["step"]) == ("caisson.disk.forecast", 2)


def test_a_host_is_as_bad_as_its_worst_disk() -> None:
    assert worst(["high", "normal"]) == "high"
