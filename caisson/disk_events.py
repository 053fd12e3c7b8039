"""What of a look is worth an event, and its words. Pure.

Only changes are told: an automation on them is an alert, and one that repeats itself each minute is switched off.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from caisson.disk_report import DiskReport
from caisson.disk_watch import Look

EventName = Literal["caisson.disk.pressure", "caisson.disk.critical", "caisson.disk.recovered", "caisson.disk.forecast"]
EVENT_NAMES: tuple[EventName, ...] = (
    "caisson.disk.pressure",
    "caisson.disk.critical",
    "caisson.disk.recovered",
    "caisson.disk.forecast",
)


@dataclass(frozen=True)
class DiskEvent:
    """One event; ``payload`` has ``message`` for people and numbers for machines, all JSON values."""

    name: EventName
    path: str
    message: str
    payload: Mapping[str, Any] = field(default_factory=dict)


def host_resource(host: str) -> str:
    """The name of a host in Prefect's events."""
    return f"caisson.host.{host}"


def event_resource(host: str, path: str) -> dict[str, str]:
    """Whom an event is about, in Prefect's terms; ``path`` is the file system, empty where it is about none."""
    resource = {"prefect.resource.id": host_resource(host), "prefect.resource.name": host}
    return {**resource, "caisson.disk.path": path} if path else resource


def disk_events(found: Look, report: DiskReport, horizons: Mapping[str, int]) -> Iterator[DiskEvent]:
    """The events of one look; ``horizons`` are the forecasts' steps that changed, by path."""
    reports = {item.path: item for item in report.file_systems}
    for reading in found.readings:
        path, change = reading.place.path, reading.change
        item = reports[path]
        payload = {
            "host": report.host,
            "path": path,
            "level": item.level,
            "used_share": round(item.bytes.used_share, 4),
            "free_bytes": item.bytes.free,
            "missing_bytes": item.bytes.missing,
            "forecast": item.bytes.forecast,
            "full_in_seconds": item.bytes.full_in_seconds,
        }
        if change is not None:
            name: EventName = "caisson.disk.pressure"
            words = "is under pressure" if change.worse else "is no longer critical, but still under pressure"
            if change.recovered:
                name, words = "caisson.disk.recovered", "has recovered"
            elif change.after == "critical":
                name, words = "caisson.disk.critical", "is critically full: no build starts"
            message = f"Docker's disk on {report.host} {words}. {item.summary}."
            yield DiskEvent(name, path, message, {**payload, "before": change.before, "message": message})
        if path in horizons:
            message = f"Docker's disk on {report.host}: {item.summary}."
            yield DiskEvent(
                "caisson.disk.forecast", path, message, {**payload, "step": horizons[path], "message": message}
            )
