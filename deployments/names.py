"""The names under which this host is known to Prefect."""

from __future__ import annotations

from caisson.settings import Settings

BUILD_FLOW = "build-image"


def pool_name(settings: Settings) -> str:
    """The work pool of this host; each host has its own, since a build runs where its engine is."""
    return f"docker-{settings.host_name}"


def build_deployment(settings: Settings) -> str:
    """The deployment that builds on this host, as Prefect's API names it: ``flow/deployment``."""
    return f"{BUILD_FLOW}/{settings.host_name}"
