"""The names under which this host is known to Prefect."""

from __future__ import annotations

from caisson.settings import Settings

BUILD_FLOW = "build-image"
MONITOR_FLOW = "monitor-disk"
PRUNE_FLOW = "prune-images"
CARE_QUEUE = "care"
"""The work queue of what must not wait behind builds: a full disk is seen and pruned while builds fill it."""


def pool_name(settings: Settings) -> str:
    """The work pool of this host; each host has its own, since a build runs where its engine is."""
    return f"docker-{settings.host_name}"


def monitor_deployment(settings: Settings) -> str:
    """The deployment that looks at this host's disks."""
    return f"{MONITOR_FLOW}/{settings.host_name}"


def prune_deployment(settings: Settings) -> str:
    """The deployment that prunes this host's images."""
    return f"{PRUNE_FLOW}/{settings.host_name}"


def build_deployment(settings: Settings) -> str:
    """The deployment that builds on this host, as Prefect's API names it: ``flow/deployment``."""
    return f"{BUILD_FLOW}/{settings.host_name}"
