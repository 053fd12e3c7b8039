"""What a prune of the command line tells Prefect: the same events as the flow's, in one short request.

Prefect's own client takes more than a second to import, and sends events from a thread that has to be waited for.
"""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import Any

from caisson.disk_events import event_resource
from caisson.errors import ServiceUnreachable
from caisson.prune_events import PruneEvent
from caisson.prune_report import PruneReport
from caisson.prune_report_events import report_events
from caisson.prune_told import choose_untold, read_told, write_told
from caisson.settings import Settings
from deployments.prefect_api import PrefectApi
from deployments.state import find_running

TIMEOUT_SECONDS = 5.0


def tell_prune(settings: Settings, report: PruneReport) -> str:
    """Tell the server that is named, or runs here, if there is one; returns why it could not be told, and never raises.

    What does not get through is lost: the ledger has the prune all the same, and so have the metrics.
    """
    if not settings.api_url and find_running(settings) is None:
        return ""
    now = datetime.now(UTC)
    events, told = choose_untold(read_told(settings.state_dir), report_events(settings.host_name, report), now)
    try:
        if events:
            with PrefectApi.of(settings, timeout=TIMEOUT_SECONDS) as api:
                api.post("/events", [_body(settings.host_name, event, now) for event in events])
        write_told(settings.state_dir, told)
    except (ServiceUnreachable, OSError, ValueError) as error:
        return f"Prefect was not told of this prune: {getattr(error, 'message', error)}"
    return ""


def _body(host: str, event: PruneEvent, now: datetime) -> dict[str, Any]:
    # The server takes one ID once, so that it may be sent again.
    return {
        "id": str(uuid.uuid4()),
        "occurred": now.isoformat(),
        "event": event.name,
        "resource": event_resource(host, event.path),
        "payload": dict(event.payload),
    }
