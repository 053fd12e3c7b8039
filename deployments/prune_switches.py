"""The dead man's switch: Prefect's server itself tells when it has heard of no finished prune of a host for too long.

The monitor tells the same, and better, since it knows the ledger; but it runs on the host's own worker, and one that is
dead tells nothing. So each alert has a switch for each host, an automation that expects the event of a finished prune
within twice the interval. The monitor's own word, which comes at twice the interval, restarts the wait as well: nobody
is told the same thing twice.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from datetime import timedelta
from uuid import UUID

from prefect.automations import AutomationCore, CallWebhook, EventTrigger, Posture, SendNotification
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.events.schemas.automations import Automation

from caisson.disk_events import host_resource
from caisson.settings import Settings
from deployments.alert_telling import silence
from deployments.hosts import RECORDS, parse_records
from deployments.names import alert_of, host_of_switch, switch_name
from deployments.state import find_running

HEARD = frozenset(("caisson.prune.finished", "caisson.prune.overdue"))
"""The events that show that somebody watches over a host's prunes."""
_LEAST = timedelta(seconds=10)
"""Prefect's own bound for what is expected within a time."""
_MOST_GRACE = timedelta(minutes=10)
_PAGE = 200
_OURS = {"description", "trigger", "actions"}


def set_switches(client: SyncPrefectClient, settings: Settings, alert: str, block: UUID, *, by_webhook: bool) -> None:
    """Have the alert tell of every host's silence, through that block; switches of hosts that are gone are removed.

    Raises what Prefect's client raises.
    """
    known = _switches(read_automations(client), alert)
    for host, interval in _intervals(client, settings).items():
        _put(client, _switch(alert, host, interval, block, by_webhook=by_webhook), known.pop(host, []), renew=True)
    _delete(client, (automation for old in known.values() for automation in old))


def keep_switches(settings: Settings) -> None:
    """Have each alert that is set up tell of this host's silence, by the settings as they are now.

    One that nothing is changed of waits on as it did, and one that was switched off in Prefect stays off. Raises what
    Prefect's client raises.
    """
    host, interval = settings.host_name, timedelta(seconds=settings.prune_seconds)
    with get_client(sync_client=True) as client:
        found = read_automations(client)
        for automation in found:
            alert = alert_of(automation.name)
            action = next((a for a in automation.actions if isinstance(a, CallWebhook | SendNotification)), None)
            if not alert or action is None:
                continue
            old = _switches(found, alert).get(host, [])
            if interval:
                by_webhook = isinstance(action, CallWebhook)
                wanted = _switch(alert, host, interval, action.block_document_id, by_webhook=by_webhook)
                wanted.enabled = automation.enabled
                _put(client, wanted, old, renew=False)
            else:
                _delete(client, old)


def remove_switches(client: SyncPrefectClient, alert: str) -> None:
    """Remove all of an alert's switches; raises what Prefect's client raises."""
    _delete(client, (item for old in _switches(read_automations(client), alert).values() for item in old))


def read_automations(client: SyncPrefectClient) -> list[Automation]:
    """All of them, whoever made them: Prefect gives 200 at once."""
    found: list[Automation] = []
    while page := client.read_automations(limit=_PAGE, offset=len(found)):
        found += page
    return found


def silence_within(interval: timedelta) -> timedelta:
    """How long nothing may be heard of prunes that come in that interval: twice that, and a grace for the monitor."""
    return max(2 * interval + min(interval, _MOST_GRACE), _LEAST)


def _intervals(client: SyncPrefectClient, settings: Settings) -> dict[str, timedelta]:
    """How often each host is pruned by its schedule, as it tells; hosts that are on none are not in it."""
    answer = client.request("POST", "/variables/filter", json=RECORDS)
    answer.raise_for_status()
    seconds = {record.host: record.prune_seconds for record in parse_records(answer.json())}
    # Rather what its worker tells of itself: who sets up an alert may have other settings, or be on no host at all.
    if settings.host_name not in seconds and find_running(settings) is not None:
        seconds[settings.host_name] = settings.prune_seconds
    return {host: timedelta(seconds=every) for host, every in seconds.items() if every > 0}


def _switch(alert: str, host: str, interval: timedelta, block: UUID, *, by_webhook: bool) -> AutomationCore:
    """Where the same event is in ``after`` and ``expect``, each one begins the wait for the next."""
    return AutomationCore(
        name=switch_name(alert, host),
        description=f"Caisson's alert {alert}: tells when nothing was heard of a finished prune of {host}.",
        trigger=EventTrigger(
            after=set(HEARD),
            expect=set(HEARD),
            match={"prefect.resource.id": host_resource(host)},
            posture=Posture.Proactive,
            threshold=1,
            within=silence_within(interval),
        ),
        actions=[silence(host, interval).action(block, by_webhook=by_webhook)],
    )


def _switches(automations: Iterable[Automation], alert: str) -> dict[str, list[Automation]]:
    """The alert's switches by host; of each there is one, if nobody copied it."""
    found: defaultdict[str, list[Automation]] = defaultdict(list)
    for automation in automations:
        host = host_of_switch(automation.name)
        if host and automation.name == switch_name(alert, host):
            found[host].append(automation)
    return found


def _put(client: SyncPrefectClient, wanted: AutomationCore, old: list[Automation], *, renew: bool) -> None:
    _delete(client, old[1:])
    if not old:
        client.create_automation(wanted)
        return
    if not renew:
        wanted.enabled = old[0].enabled
        # An update begins the wait anew: a host that is started again and again would never be silent.
        if old[0].model_dump(include=_OURS) == wanted.model_dump(include=_OURS):
            return
    client.update_automation(old[0].id, wanted)


def _delete(client: SyncPrefectClient, automations: Iterable[Automation]) -> None:
    for automation in automations:
        client.delete_automation(automation.id)
