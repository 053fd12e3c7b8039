"""Checks of the disk's monitor and of what it watches: the disk, and the prunes. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from caisson.audit.care import most_silence
from caisson.disk_limits import Zone, describe_missing
from caisson.forecast import format_span
from deployments.doctor.facts import HostFacts, Item
from deployments.names import monitor_deployment, prune_deployment


def pressure(facts: HostFacts) -> Iterator[Item]:
    """Whether Docker's disk is under pressure by this very look at it."""
    usage, settings = facts.docker_disk, facts.settings
    limits = settings.disk_limits
    if usage is None or (zone := limits.zone(usage)) < Zone.HIGH:
        return
    if usage.free_bytes < 2 * settings.min_free_bytes or usage.free_inodes < settings.min_free_inodes:
        return  # so near to the floor of a single build that the check of that says it
    missing = describe_missing(*limits.missing(usage, zone))
    fix = "`caisson disk --attribution` shows what holds it."
    if zone is Zone.CRITICAL:
        yield Item("disk pressure", "problem", f"Critical: no build starts before {missing} is freed.", fix)
    else:
        yield Item("disk pressure", "warning", f"Docker's disk fills up: {missing} over the high threshold.", fix)


def monitor(facts: HostFacts) -> Iterator[Item]:
    """Whether somebody looks at the disk; only where a Caisson runs that should."""
    settings, looked = facts.settings, facts.disk_looked
    if not facts.service.api_url or facts.service.error:
        return
    if settings.monitor_seconds == 0:
        yield Item("disk monitor", "ok", "CAISSON_MONITOR_SECONDS is 0: nobody looks at Docker's disk on a schedule.")
        return
    fix = (
        f"See the runs of {monitor_deployment(settings)} in Prefect, and whether its schedule is paused there; "
        "Prefect → Deployments → monitor-disk → Run looks once."
    )
    allowed = most_silence(settings.monitor_seconds)
    if looked is None:
        yield Item("disk monitor", "warning", "Docker's disk has not been looked at yet.", fix)
    elif facts.now - looked > allowed:
        yield Item(
            "disk monitor", "warning", f"Docker's disk was last looked at {format_span(facts.now - looked)} ago.", fix
        )
    else:
        yield Item("disk monitor", "ok", f"Docker's disk was looked at {format_span(facts.now - looked)} ago.")


def prunes(facts: HostFacts) -> Iterator[Item]:
    """Whether images are pruned, by what the monitor has told."""
    settings = facts.settings
    if not facts.service.api_url or facts.service.error:
        return
    if settings.prune_seconds == 0:
        yield Item("prunes", "ok", "CAISSON_PRUNE_SECONDS is 0: nobody prunes images on a schedule.")
    elif facts.prunes_overdue is not None:
        interval = format_span(timedelta(seconds=settings.prune_seconds))
        yield Item(
            "prunes",
            "warning",
            f"No prune has succeeded for twice its interval, which is {interval}.",
            f"See the runs of {prune_deployment(settings)} in Prefect, and whether its schedule is paused there.",
        )
    else:
        yield Item("prunes", "ok", "No prune is overdue.")
