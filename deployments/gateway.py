"""How Caisson's own API is started: its command, its environment, and whether it may listen where it is to."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from datetime import UTC, datetime

from caisson.errors import SettingsInvalid
from caisson.settings import Settings
from deployments.same_origin import is_loopback
from deployments.server import (
    DATABASE,
    FOREIGN,
    check_listening,
    is_there,
    settings_environment,
    url_of,
    without_build_secrets,
)


def gateway_url(settings: Settings) -> str:
    """Where this host reaches it; empty where it is off."""
    return url_of(settings.gateway_host, settings.gateway_port) if settings.gateway_port else ""


def gateway_command() -> list[str]:
    return [sys.executable, "-m", "deployments.api.main"]


def gateway_environment(settings: Settings, inherited: Mapping[str, str]) -> dict[str, str]:
    """Its environment: none of the builds' secrets but what the webhooks need themselves, no way into the database."""
    env = {name: value for name, value in inherited.items() if name not in (*FOREIGN, *DATABASE)}
    env = without_build_secrets(env | settings_environment(settings))
    if settings.webhooks_file:
        # Not imported where it is not needed: `caisson up` waits for it.
        from deployments.webhook_rules import webhook_environment

        env |= webhook_environment(settings, inherited)
    return env


def answers(url: str) -> bool:
    """Whether Caisson's own API answers there."""
    return is_there(f"{url}/healthz")


def check_gateway(settings: Settings) -> None:
    """Raise ``SettingsInvalid`` when it can't listen where the settings say, or must not: it would be reached from
    elsewhere, and there is no token yet, so that nobody has thought of who may.

    Without a token nobody gets in anywhere.
    """
    if not settings.gateway_port:
        return
    check_listening(
        "GATEWAY", settings.gateway_host, settings.gateway_port, or_else=", or to 0 for no API of Caisson's own"
    )
    if not is_loopback(settings.gateway_host) and not _has_token(settings):
        raise SettingsInvalid(
            f"CAISSON_GATEWAY_HOST: {settings.gateway_host or 'every address'} is reached from other hosts, and there "
            "is no token.",
            hint="Make one with `caisson tokens create`, or listen on 127.0.0.1.",
        )


def _has_token(settings: Settings) -> bool:
    # Not imported where it is not needed: `caisson up` waits for it.
    from deployments.token_store import TokenStore

    now = datetime.now(UTC)
    return any(not token.expired(now) for token in TokenStore.of(settings).all())
