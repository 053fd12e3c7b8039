"""The one place that knows which provider's payload is read by which parser. Pure."""

from __future__ import annotations

from caisson.webhooks import bitbucket, gitea, github, gitlab
from caisson.webhooks.event import Event, Ignored, Provider, read_payload

_PARSERS = {
    Provider.GITHUB: github.parse,
    Provider.GITLAB: gitlab.parse,
    Provider.GITEA: gitea.parse,
    Provider.BITBUCKET: bitbucket.parse,
}


def parse_events(provider: Provider, event: str, body: bytes) -> tuple[Event | Ignored, ...]:
    """What an authentic delivery tells; raises ``Malformed``."""
    return _PARSERS[provider](event, read_payload(body))
