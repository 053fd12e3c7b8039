"""One look at Docker's disks: read them, judge them by what is remembered, and remember that.

While all is well it makes no call to the engine: where to look is asked once, and remembered. What can't be kept is no
reason not to look: a disk that is full takes no state either, and that is when the looking matters.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from caisson.disk import DiskUsage, read_file_system
from caisson.disk_limits import DiskLimits, Zone, describe_missing
from caisson.disk_places import Place, find_places, stops_builds
from caisson.disk_report import DiskReport, horizon, report_file_system, worst
from caisson.disk_samples import History
from caisson.disk_state import DiskState, Remembered, read_attribution
from caisson.engine import EngineInfo
from caisson.errors import DiskTooFull, EngineUnreachable
from caisson.forecast import Forecast
from caisson.pressure import Change, Pressure, advance
from caisson.settings import Settings

HISTORY = timedelta(days=14)
"""How far back forecast and picture see."""
_LEAST_GAP = timedelta(minutes=10)
_GAP_INTERVALS = 3


@dataclass(frozen=True)
class Reading:
    """One file system as it is now, and the pressure on it."""

    place: Place
    usage: DiskUsage
    zone: Zone
    pressure: Pressure
    change: Change | None


@dataclass(frozen=True)
class Look:
    """All file systems at one time, and the state to remember."""

    at: datetime
    readings: tuple[Reading, ...]
    state: DiskState


def look(settings: Settings, state: DiskState, now: datetime, *, ask: Callable[[], EngineInfo] | None = None) -> Look:
    """Read every file system that Docker fills. ``ask`` asks the engine what it is; by default the settings' engine.

    Raises ``SettingsInvalid`` where Docker's disk is not to be seen from here, ``EngineUnreachable`` where it was never
    found out which that is, ``OSError`` for a file system that can't be read.
    """
    try:
        places = find_places(settings, ask or (lambda: ask_engine(settings)), now, state.places)
    except EngineUnreachable:
        # An engine may be down because its disk is full.
        if state.places is None:
            raise
        places = state.places
    readings = []
    for place in places.places:
        try:
            usage = read_file_system(Path(place.path))
        except OSError:
            if stops_builds(place):
                raise
            # A volume that was unmounted just now.
            continue
        zone = settings.disk_limits.zone(usage)
        before = state.pressures.get(place.path, Remembered()).pressure
        pressure, change = advance(before, zone, now, most_gap=most_gap(settings))
        readings.append(Reading(place, usage, zone, pressure, change))
    pressures = {reading.place.path: Remembered.of(reading.pressure) for reading in readings}
    return Look(now, tuple(readings), state.changed(looked=now, places=places, pressures=pressures))


def ask_engine(settings: Settings) -> EngineInfo:
    """What the engine says of itself; raises ``EngineUnreachable`` or ``EngineRefused``."""
    from caisson.docker_engine import DockerEngine

    with DockerEngine(settings.docker_host, timeout=10) as engine:
        return engine.info()


def most_gap(settings: Settings) -> timedelta:
    """How long after a reading the next one still follows it."""
    return max(_LEAST_GAP, _GAP_INTERVALS * timedelta(seconds=settings.monitor_seconds))


def report(
    settings: Settings, found: Look, history_of: Callable[[str], History], *, resets: tuple[datetime, ...] = ()
) -> tuple[DiskReport, dict[str, Forecast | None]]:
    """The report of a look, and by path the forecast of what is full first. ``resets`` are the prunes there were."""
    reports, forecasts = [], {}
    for reading in found.readings:
        path = reading.place.path
        item, forecasts[path] = report_file_system(
            reading.place,
            reading.usage,
            reading.pressure,
            limits=settings.disk_limits,
            history=[*history_of(path), (found.at, reading.usage)],
            resets=resets,
        )
        reports.append(item)
    return (
        DiskReport(
            host=settings.host_name,
            at=found.at,
            level=worst(item.level for item in reports),
            file_systems=tuple(reports),
            attribution=read_attribution(settings.state_dir),
        ),
        forecasts,
    )


def changed_horizons(state: DiskState, forecasts: dict[str, Forecast | None]) -> dict[str, int]:
    """The steps by path that differ from those last told."""
    steps = {path: horizon(item, state.horizons.get(path, 0)) for path, item in forecasts.items()}
    return {path: step for path, step in steps.items() if step != state.horizons.get(path, 0)}


def find_critical(limits: DiskLimits, places: tuple[Place, ...]) -> DiskUsage | None:
    """The first of the disks that is critical now, whatever the monitor thinks; unreadable ones are passed over."""
    for place in filter(stops_builds, places):
        try:
            usage = read_file_system(Path(place.path))
        except OSError:
            continue
        if limits.zone(usage) is Zone.CRITICAL:
            return usage
    return None


def require_uncritical(settings: Settings, places: tuple[Place, ...], *, holders: list[str]) -> None:
    """Raise ``DiskTooFull`` where a disk is critical now: see ``find_critical``.

    ``holders`` say what holds the most, for the sentence; empty where that is not known.
    """
    usage = find_critical(settings.disk_limits, places)
    if usage is None:
        return
    missing_bytes, missing_inodes = settings.disk_limits.missing(usage, Zone.CRITICAL)
    held = f" It is held by {', '.join(holders)}." if holders else ""
    raise DiskTooFull(
        f"Docker's disk at {usage.path} is critically full: no build starts before "
        f"{describe_missing(missing_bytes, missing_inodes)} of it is freed.{held}",
        hint="`caisson disk --attribution` shows what holds it; the settings CAISSON_DISK_… say what critical is.",
        details={"bytes_missing": missing_bytes, "inodes_missing": missing_inodes, "path": usage.path},
    )
