"""Alerts: automations of Prefect on the events of disk, prunes and audit, and on a host that tells of no prunes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

import httpx
from prefect.automations import AutomationCore, EventTrigger, Posture
from prefect.client.orchestration import get_client
from prefect.events import emit_event
from prefect.exceptions import PrefectHTTPStatusError

from caisson.audit.events import FINDING_EVENT
from caisson.disk_events import EVENT_NAMES, host_resource
from caisson.errors import RequestInvalid, ServiceUnreachable
from caisson.prune_events import ALERTED
from caisson.settings import Settings
from deployments.alert_blocks import BlockName, find_block, make_block, remove_blocks, save_block
from deployments.alert_telling import EVENTS
from deployments.names import ALERT_KINDS, alert_name, alert_of
from deployments.prune_switches import read_automations, remove_switches, set_switches

TEST_EVENT = "caisson.alert.test"
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?")


@dataclass(frozen=True)
class Alert:
    """One alert as it is set up: its name, where it goes, and whether it is enabled."""

    name: str
    kind: str
    enabled: bool


def set_alert(
    settings: Settings,
    kind: str,
    secret: str = "",
    *,
    name: str = "",
    to: Sequence[str] = (),
    sender: str = "",
    on_forecast: bool = True,
) -> str:
    """Set up an alert, or renew the one of that name; returns its name, by default the kind's or the block's.

    ``kind`` is one of ``ALERT_KINDS``, or a block that people have made in Prefect: ``discord-webhook/ops``.
    ``secret`` is the URL of a webhook, or SendGrid's API key for e-mail; none for a block. Raises ``RequestInvalid``
    for what can't work, ``ServiceUnreachable`` when Prefect can't be asked.
    """
    own = next((known for known in ALERT_KINDS if known == kind), None)
    named = BlockName.parse(kind) if own is None else None
    name = name or (named.name if named else kind)
    if not _NAME.fullmatch(name):
        raise RequestInvalid(f"name: {name[:60]!r} is not small letters, digits and dashes, at most 40.")
    block = make_block(own, secret, to, sender) if own is not None else None
    with _explained(), get_client(sync_client=True) as client:
        if named is not None:
            where = find_block(client, named)
        else:
            assert block is not None
            where = save_block(block, name)
        told = (*EVENT_NAMES, *ALERTED, FINDING_EVENT)
        events = [event for event in told if on_forecast or event != "caisson.disk.forecast"]
        automation = AutomationCore(
            name=alert_name(name),
            description=f"Caisson's alert about Docker's disk, prunes and audit, by {kind}.",
            enabled=True,
            trigger=EventTrigger(
                expect={*events, f"{TEST_EVENT}.{name}"},
                match={"prefect.resource.id": host_resource("*")},
                posture=Posture.Reactive,
                threshold=1,
                within=timedelta(0),
            ),
            actions=[EVENTS.action(where.document, by_webhook=where.by_webhook)],
        )
        known = client.read_automations_by_name(automation.name)
        for old in known[1:]:
            client.delete_automation(old.id)
        if known:
            client.update_automation(known[0].id, automation)
        else:
            client.create_automation(automation)
        set_switches(client, settings, name, where.document, by_webhook=where.by_webhook)
        # Last: until then the old automation still told by them.
        remove_blocks(client, name, but=where.document)
    return name


def list_alerts() -> list[Alert]:
    """The alerts that are set up; raises ``ServiceUnreachable``."""
    with _explained(), get_client(sync_client=True) as client:
        return [
            Alert(alert_of(item.name), (item.description or "").rpartition("by ")[2].rstrip("."), item.enabled)
            for item in read_automations(client)
            if alert_of(item.name)
        ]


def remove_alert(name: str) -> bool:
    """Remove an alert and what was made for it; False where there is none. Raises ``ServiceUnreachable``."""
    with _explained(), get_client(sync_client=True) as client:
        found = client.read_automations_by_name(alert_name(name))
        for automation in found:
            client.delete_automation(automation.id)
        remove_switches(client, name)
        return remove_blocks(client, name) or bool(found)


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
