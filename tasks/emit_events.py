"""Events about this host, told to Prefect."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from prefect.events import emit_event

from caisson.disk_events import event_resource


class HostEvent(Protocol):
    """An event of ``caisson.disk_events`` or ``caisson.prune_events``."""

    @property
    def name(self) -> str: ...
    @property
    def path(self) -> str: ...
    @property
    def payload(self) -> Mapping[str, Any]: ...


def emit_events(host: str, events: Iterable[HostEvent]) -> None:
    """Tell Prefect; they are sent from a thread of Prefect's own, at the latest when the run ends."""
    for event in events:
        emit_event(event=event.name, resource=event_resource(host, event.path), payload=dict(event.payload))
