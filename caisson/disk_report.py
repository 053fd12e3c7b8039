"""What one look at the disks says: for ``caisson disk --json``, for the page in Prefect and for the metrics. Values."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from pydantic import BaseModel, ConfigDict

from caisson.disk import DiskUsage
from caisson.disk_attribution import Attribution
from caisson.disk_limits import DiskLimits, Zone, describe_missing
from caisson.disk_places import Place
from caisson.disk_samples import History, byte_points, inode_points
from caisson.forecast import Forecast, describe, forecast, nearest_full
from caisson.pressure import LEVELS, Level, Pressure
from caisson.sizes import format_size

_HORIZONS = (timedelta(days=1), timedelta(days=3), timedelta(days=7), timedelta(days=14))
_RELAX = 1.25


class ResourceReport(BaseModel):
    """Bytes or inodes of one file system. ``missing`` is how much must be freed until pressure would be over.

    ``total`` is what unprivileged users can fill. ``full_in_seconds`` is None where no time can be told.
    """

    model_config = ConfigDict(frozen=True)

    total: int
    used: int
    free: int
    used_share: float
    zone: str
    low_free: int
    high_free: int
    critical_free: int
    missing: int
    forecast: str
    growth_per_day: float | None
    full_in_seconds: float | None
    full_in_earliest_seconds: float | None
    full_in_latest_seconds: float | None


class FileSystemReport(BaseModel):
    """One file system; ``inodes`` is None where it has no fixed number of them."""

    model_config = ConfigDict(frozen=True)

    path: str
    holds: tuple[str, ...]
    level: Level
    since: datetime | None
    summary: str
    bytes: ResourceReport
    inodes: ResourceReport | None


class DiskReport(BaseModel):
    """One look at all file systems of a host; ``attribution`` may be of an earlier time than ``at``."""

    model_config = ConfigDict(frozen=True)

    host: str
    at: datetime
    level: Level
    file_systems: tuple[FileSystemReport, ...]
    attribution: Attribution | None = None


def report_file_system(
    place: Place,
    usage: DiskUsage,
    pressure: Pressure,
    *,
    limits: DiskLimits,
    history: History,
    resets: Sequence[datetime] = (),
) -> tuple[FileSystemReport, Forecast | None]:
    """What is to say of one file system, and the forecast of what is full first, if it can be told."""
    of_bytes = forecast(byte_points(history, usage), free=usage.free_bytes, total=usage.usable_bytes, resets=resets)
    of_inodes = forecast(
        inode_points(history, usage),
        free=usage.free_inodes,
        total=usage.total_inodes,
        resource="inodes",
        resets=resets,
    )
    missing_bytes, missing_inodes = limits.missing(usage, Zone.BETWEEN)
    told = [of_bytes, *([of_inodes] if usage.total_inodes else [])]
    report = FileSystemReport(
        path=place.path,
        holds=place.holds,
        level=pressure.level,
        since=pressure.since,
        summary=_summary(usage, pressure, nearest_full(told) or of_bytes, missing_bytes, missing_inodes),
        bytes=_resource(
            usage.usable_bytes,
            usage.free_bytes,
            limits.byte_zone(usage),
            [bound.left_of(usage.usable_bytes) for bound in limits.bytes.in_order],
            missing_bytes,
            of_bytes,
        ),
        inodes=_resource(
            usage.total_inodes,
            usage.free_inodes,
            limits.inode_zone(usage),
            [bound.left_of(usage.total_inodes) for bound in limits.inodes.in_order],
            missing_inodes,
            of_inodes,
        )
        if usage.total_inodes
        else None,
    )
    return report, nearest_full(told)


def worst(levels: Iterable[Level]) -> Level:
    """
    >>> worst(["normal", "critical", "high"]), worst([])
    ('critical', 'normal')
    """
    return max(levels, key=LEVELS.index, default="normal")


def horizon(found: Forecast | None, told: int) -> int:
    """How near the end is, as a step from 0 (far, or unknown) to 4 (within a day); ``told`` is the step last told.

    A step back needs a quarter more time than the step ahead took, or each look would tell another.
    """
    if found is None or found.full_in is None:
        return 0
    left = found.full_in
    step = sum(left <= limit for limit in _HORIZONS)
    while step < told and left <= _RELAX * _HORIZONS[len(_HORIZONS) - step - 1]:
        step += 1
    return step


def _resource(total: int, free: int, zone: Zone, left: Sequence[int], missing: int, found: Forecast) -> ResourceReport:
    known = found.trend != "none" or found.rate != 0
    return ResourceReport(
        total=total,
        used=total - free,
        free=free,
        used_share=(total - free) / total if total else 0.0,
        zone=zone.name.lower(),
        low_free=left[0],
        high_free=left[1],
        critical_free=left[2],
        missing=missing if zone >= Zone.HIGH else 0,
        forecast=describe(found),
        growth_per_day=found.rate if known else None,
        full_in_seconds=_seconds(found.full_in),
        full_in_earliest_seconds=_seconds(found.earliest),
        full_in_latest_seconds=_seconds(found.latest),
    )


def _seconds(span: timedelta | None) -> float | None:
    return span.total_seconds() if span is not None else None


def _summary(usage: DiskUsage, pressure: Pressure, told: Forecast, missing_bytes: int, missing_inodes: int) -> str:
    share = usage.used_bytes / usage.usable_bytes if usage.usable_bytes else 0.0
    total, free = format_size(usage.usable_bytes), format_size(usage.free_bytes)
    words = f"{usage.path}: {share:.0%} of {total} in use, {free} free"
    if usage.total_inodes and usage.used_inodes / usage.total_inodes > share:
        words += f", {usage.used_inodes / usage.total_inodes:.0%} of the inodes"
    if pressure.level != "normal":
        words += f"; {pressure.level} pressure, {describe_missing(missing_bytes, missing_inodes)} to be freed"
    return f"{words}; {describe(told)}"
