"""What an alert says, as templates that Prefect fills in: a webhook's payload, a notification's subject and body."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from prefect.automations import CallWebhook, SendNotification

from caisson.durations import format_age

SILENT_EVENT = "caisson.prune.silent"
"""The name under which a dead man's switch tells: no event has it, since its host has told none."""


@dataclass(frozen=True)
class Telling:
    """The templates of one message."""

    payload: str
    subject: str
    body: str

    def action(self, block: UUID, *, by_webhook: bool) -> CallWebhook | SendNotification:
        """The action of an automation that tells it through that block."""
        if by_webhook:
            return CallWebhook(block_document_id=block, payload=self.payload)
        return SendNotification(block_document_id=block, subject=self.subject, body=self.body)


EVENTS = Telling(
    '{"event": {{ event.event | tojson }}, "host": {{ event.resource.name | tojson }}, '
    '"occurred": {{ event.occurred.isoformat() | tojson }}, "message": {{ event.payload.message | tojson }}, '
    '"payload": {{ event.payload | tojson }}}',
    "{{ event.event }} on {{ event.resource.name }}",
    "{{ event.payload.message }}",
)
"""What a host's own events say."""


def silence(host: str, interval: timedelta) -> Telling:
    """What is told of a host that has told of no finished prune for twice that interval. There is no event to ask."""
    message = (
        f"Nothing was heard of a finished prune of {host} for {format_age(2 * interval)}; one is expected every "
        f"{format_age(interval)}. See whether its Caisson is up, and the runs of prune-images in Prefect."
    )
    payload = {"host": host, "interval_seconds": interval.total_seconds(), "message": message}
    document = json.dumps({"event": SILENT_EVENT, "host": host, "message": message, "payload": payload})
    return Telling(
        f'{document[:-1]}, "occurred": {{{{ firing.triggered.isoformat() | tojson }}}}}}',
        f"{SILENT_EVENT} on {host}",
        message,
    )
