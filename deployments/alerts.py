"""Alerts: an automation of Prefect on the events of disk, prunes and audit, and the block that says where they go.

The address of a webhook is a secret (whoever has it can post there), so it is in a block, which Prefect encrypts, and
nowhere else: not in the automation, not in a setting, not in a command's arguments.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal
from urllib.parse import urlsplit

import httpx
from prefect.automations import AutomationCore, CallWebhook, EventTrigger, Posture, SendNotification
from prefect.blocks.core import Block
from prefect.blocks.notifications import SendgridEmail, SlackWebhook
from prefect.blocks.webhook import Webhook
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.events import emit_event
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError
from prefect.types import SecretDict
from pydantic import SecretStr

from caisson.audit.events import FINDING_EVENT
from caisson.disk_events import EVENT_NAMES, host_resource
from caisson.errors import RequestInvalid, ServiceUnreachable
from caisson.prune_events import ALERTED

Kind = Literal["webhook", "slack", "email"]
TEST_EVENT = "caisson.alert.test"
_PREFIX = "caisson-alert-"
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?")
_ADDRESS = re.compile(r"[^@\s,]+@[^@\s,]+\.[^@\s,]+")
_SLACK = re.compile(r"https://hooks\.slack(?:-gov)?\.com/services/[A-Za-z0-9]+/[A-Za-z0-9]+/[A-Za-z0-9]+/?")
_PAYLOAD = (
    '{"event": {{ event.event | tojson }}, "host": {{ event.resource.name | tojson }}, '
    '"occurred": {{ event.occurred.isoformat() | tojson }}, "message": {{ event.payload.message | tojson }}, '
    '"payload": {{ event.payload | tojson }}}'
)
_SUBJECT = "{{ event.event }} on {{ event.resource.name }}"
_BODY = "{{ event.payload.message }}"


@dataclass(frozen=True)
class Alert:
    """One alert as it is set up: its name, where it goes, and whether it is enabled."""

    name: str
    kind: str
    enabled: bool


def set_alert(
    kind: Kind, secret: str, *, name: str = "", to: Sequence[str] = (), sender: str = "", on_forecast: bool = True
) -> str:
    """Set up an alert, or renew the one of that name; returns its name, by default the kind.

    ``secret`` is the URL of a webhook, or SendGrid's API key for e-mail. Raises ``RequestInvalid`` for what can't
    work, ``ServiceUnreachable`` when Prefect can't be asked.
    """
    name = name or kind
    if not _NAME.fullmatch(name):
        raise RequestInvalid(f"name: {name[:60]!r} is not small letters, digits and dashes, at most 40.")
    block = _block(kind, secret, to, sender)
    with _explained(), get_client(sync_client=True) as client:
        document = block.save(f"{_PREFIX}{name}", overwrite=True)
        action = (
            CallWebhook(block_document_id=document, payload=_PAYLOAD)
            if kind == "webhook"
            else SendNotification(block_document_id=document, subject=_SUBJECT, body=_BODY)
        )
        told = (*EVENT_NAMES, *ALERTED, FINDING_EVENT)
        events = [event for event in told if on_forecast or event != "caisson.disk.forecast"]
        automation = AutomationCore(
            name=f"{_PREFIX}{name}",
            description=f"Caisson's alert about Docker's disk, prunes and audit, by {kind}.",
            enabled=True,
            trigger=EventTrigger(
                expect={*events, f"{TEST_EVENT}.{name}"},
                match={"prefect.resource.id": host_resource("*")},
                posture=Posture.Reactive,
                threshold=1,
                within=timedelta(0),
            ),
            actions=[action],
        )
        known = client.read_automations_by_name(automation.name)
        for old in known[1:]:
            client.delete_automation(old.id)
        if known:
            client.update_automation(known[0].id, automation)
        else:
            client.create_automation(automation)
    return name


def list_alerts() -> list[Alert]:
    """The alerts that are set up; raises ``ServiceUnreachable``."""
    with _explained(), get_client(sync_client=True) as client:
        return [
            Alert(
                item.name.removeprefix(_PREFIX), (item.description or "").rpartition("by ")[2].rstrip("."), item.enabled
            )
            for item in client.read_automations()
            if item.name.startswith(_PREFIX)
        ]


def remove_alert(name: str) -> bool:
    """Remove an alert and its block; False where there is none of that name. Raises ``ServiceUnreachable``."""
    with _explained(), get_client(sync_client=True) as client:
        found = client.read_automations_by_name(f"{_PREFIX}{name}")
        for automation in found:
            client.delete_automation(automation.id)
        return _remove_block(client, f"{_PREFIX}{name}") or bool(found)


def test_alert(name: str, host: str) -> None:
    """Have one alert tell a test; raises ``ServiceUnreachable``, and ``RequestInvalid`` for one that is not there."""
    if name not in {alert.name for alert in list_alerts()}:
        raise RequestInvalid(f"name: there is no alert {name[:60]!r}; `caisson alerts list` shows them.")
    message = f"A test of Caisson's alert {name!r} from {host}: nothing is wrong."
    emit_event(
        event=f"{TEST_EVENT}.{name}",
        resource={"prefect.resource.id": host_resource(host), "prefect.resource.name": host},
        payload={"host": host, "message": message},
    )


def _block(kind: Kind, secret: str, to: Sequence[str], sender: str) -> Block:
    if not secret:
        raise RequestInvalid(f"{'API key' if kind == 'email' else 'URL'}: it is empty.")
    if kind == "email":
        for field, address in (("from", sender), *(("to", address) for address in (to or ("",)))):
            if not _ADDRESS.fullmatch(address):
                raise RequestInvalid(f"{field}: {address[:80]!r} is no e-mail address.")
        return SendgridEmail(api_key=SecretStr(secret), sender_email=sender, to_emails=list(to))
    parts = urlsplit(secret)
    # Never quoted: the URL is the secret.
    if parts.scheme not in ("http", "https") or not parts.hostname or any(c.isspace() for c in secret):
        raise RequestInvalid("URL: it is no http:// or https:// address.")
    if kind == "slack":
        # To any other address Prefect's block would send nothing, and say nothing.
        if not _SLACK.fullmatch(secret):
            raise RequestInvalid(
                "URL: it is no webhook of Slack's (https://hooks.slack.com/services/…).",
                hint="For what takes the same messages elsewhere, set up an alert of kind webhook.",
            )
        return SlackWebhook(url=SecretStr(secret))
    headers = SecretDict({"Content-Type": "application/json"})
    return Webhook(method="POST", url=SecretStr(secret), headers=headers)


def _remove_block(client: SyncPrefectClient, name: str) -> bool:
    for slug in ("webhook", "slack-webhook", "sendgrid-email"):
        try:
            document = client.read_block_document_by_name(name, slug, include_secrets=False)
        except ObjectNotFound:
            continue
        client.delete_block_document(document.id)
        return True
    return False


class _explained:
    """Failures of Prefect's client as our own."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if isinstance(error, PrefectHTTPStatusError):
            raise ServiceUnreachable(
                f"Prefect answered {error.response.status_code}.", hint="Is it 3.8 or newer?"
            ) from None
        if isinstance(error, httpx.HTTPError | RuntimeError):
            raise ServiceUnreachable(
                f"No Prefect API answers ({type(error).__name__}).", hint="Start `caisson up`, or set CAISSON_API_URL."
            ) from None
