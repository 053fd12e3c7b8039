"""What of prunes is worth an event, and its words. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal

from caisson.durations import format_age

EventName = Literal[
    "caisson.prune.finished",
    "caisson.prune.failed",
    "caisson.prune.short",
    "caisson.prune.overdue",
    "caisson.prune.recovered",
]
ALERTED: tuple[EventName, ...] = (
    "caisson.prune.failed",
    "caisson.prune.short",
    "caisson.prune.overdue",
    "caisson.prune.recovered",
)
"""What alerts tell: all but that a prune is done, as it is every few hours."""


@dataclass(frozen=True)
class PruneEvent:
    """One event; ``payload`` has ``message`` for people and numbers for machines, all JSON values.

    ``path`` is the file system that was pruned; empty where the event is about none.
    """

    name: EventName
    message: str
    path: str = ""
    payload: Mapping[str, Any] = field(default_factory=dict)


def failed_event(host: str, trigger: str, problem: str) -> PruneEvent:
    """The event of a prune that ended before its first removal."""
    message = f"A prune of {host} has failed. {problem}"
    return prune_event("caisson.prune.failed", message, "", {"host": host, "trigger": trigger, "problem": problem})


def overdue_event(host: str, since: datetime, now: datetime, interval: timedelta) -> PruneEvent:
    """The event of prunes that no longer succeed, since that time."""
    message = (
        f"No prune of {host} has succeeded for {format_age(now - since)}; one is expected every "
        f"{format_age(interval)}. See the runs of prune-images in Prefect, and whether its schedule is paused there."
    )
    payload = {"host": host, "since": since.isoformat(), "interval_seconds": interval.total_seconds()}
    return prune_event("caisson.prune.overdue", message, "", payload)


def recovered_event(host: str, succeeded: datetime) -> PruneEvent:
    """The event of a prune that succeeded after some had been overdue."""
    message = f"A prune of {host} has succeeded again, at {succeeded:%Y-%m-%d %H:%M} UTC."
    return prune_event("caisson.prune.recovered", message, "", {"host": host, "succeeded": succeeded.isoformat()})


def prune_event(name: EventName, message: str, path: str, payload: Mapping[str, Any]) -> PruneEvent:
    """An event whose payload has the message as well."""
    return PruneEvent(name, message, path, {**payload, "message": message})
