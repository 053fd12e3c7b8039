"""The names under which hosts and alerts are known to Prefect: one work pool, and in it a queue for each host and one
for all."""

from __future__ import annotations

from typing import Literal, get_args

from caisson.settings import Settings

BUILD_FLOW = "build-image"
MONITOR_FLOW = "monitor-disk"
PRUNE_FLOW = "prune-images"
AUDIT_FLOW = "audit-host"
POOL = "caisson"
"""The work pool of all hosts. A worker asks for the queues of its own host and for the shared one, never for others."""
SHARED_QUEUE = "shared"
"""The work queue of builds that any host may take."""
ANY_HOST = "any"
"""Stands for the host in the name of the deployment whose builds any host may take."""
AlertKind = Literal["webhook", "slack", "email"]
"""Where an alert goes by a block that Caisson makes for it."""
ALERT_KINDS: tuple[AlertKind, ...] = get_args(AlertKind)
_CARE = "care-"
_ALERT = "caisson-alert-"
_SWITCH = "caisson-silence-"


def host_queue(host: str) -> str:
    """The work queue of the builds that were asked of this very host."""
    return host


def care_queue(host: str) -> str:
    """The work queue of what must not wait behind builds: a full disk is seen and pruned while builds fill it."""
    return f"{_CARE}{host}"


def host_of_queue(queue: str) -> str:
    """The host that alone takes the runs of a queue; empty for the shared queue and for what is none of ours.

    >>> host_of_queue("care-b1"), host_of_queue("b1"), host_of_queue("shared"), host_of_queue("default")
    ('b1', 'b1', '', '')
    """
    return "" if queue in (SHARED_QUEUE, "default") else queue.removeprefix(_CARE)


def monitor_deployment(settings: Settings) -> str:
    """The deployment that looks at this host's disks."""
    return f"{MONITOR_FLOW}/{settings.host_name}"


def prune_deployment(settings: Settings) -> str:
    """The deployment that prunes this host's images."""
    return f"{PRUNE_FLOW}/{settings.host_name}"


def audit_deployment(settings: Settings) -> str:
    """The deployment that audits this host."""
    return f"{AUDIT_FLOW}/{settings.host_name}"


def build_deployment(settings: Settings) -> str:
    """The deployment that builds on this host, as Prefect's API names it: ``flow/deployment``."""
    return f"{BUILD_FLOW}/{settings.host_name}"


def alert_name(alert: str) -> str:
    """An alert's own automation, and its own block.

    >>> alert_of(alert_name("ops")), alert_of("somebody's own")
    ('ops', '')
    """
    return f"{_ALERT}{alert}"


def alert_of(automation: str) -> str:
    """The alert that an automation of this name is; empty for others."""
    return automation.removeprefix(_ALERT) if automation.startswith(_ALERT) else ""


def switch_name(alert: str, host: str) -> str:
    """The automation by which an alert tells of a host's silence; an alert's name has no ``@``.

    >>> host_of_switch(switch_name("ops", "b1.example.com")), host_of_switch("caisson-alert-ops")
    ('b1.example.com', '')
    """
    return f"{_SWITCH}{alert}@{host}"


def host_of_switch(automation: str) -> str:
    """The host whose silence an automation of this name tells of; empty for others."""
    return automation.partition("@")[2] if automation.startswith(_SWITCH) else ""
