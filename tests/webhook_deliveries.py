"""Deliveries for tests: the documented payloads, signed as each provider signs."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from caisson.webhooks.event import Event, Ignored, Provider
from caisson.webhooks.providers import parse_events
from caisson.webhooks.rules import Hook, Rules, read_rules

DATA = Path(__file__).parent / "unit" / "data" / "webhooks"
NOW = datetime(2026, 5, 15, 12, 0, tzinfo=UTC)
SECRET = "It's a Secret to Everybody"
SIGNING_TOKEN = f"whsec_{base64.b64encode(bytes(range(32))).decode()}"
_EVENT_HEADERS = {
    Provider.GITHUB: "x-github-event",
    Provider.GITLAB: "x-gitlab-event",
    Provider.GITEA: "x-gitea-event",
    Provider.BITBUCKET: "x-event-key",
}


def payload(name: str) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((DATA / f"{name}.json").read_text())
    return value


def events(provider: Provider, event: str, name: str) -> tuple[Event | Ignored, ...]:
    return parse_events(provider, event, (DATA / f"{name}.json").read_bytes())


def one_event(provider: Provider, event: str, name: str) -> Event:
    (found,) = events(provider, event, name)
    assert isinstance(found, Event), found
    return found


def changed(
    provider: Provider, event: str, name: str, change: Callable[[dict[str, Any]], None]
) -> tuple[Event | Ignored, ...]:
    """The events of a documented payload after a change to it."""
    value = payload(name)
    change(value)
    return parse_events(provider, event, json.dumps(value).encode())


def signed_headers(
    provider: Provider,
    event: str,
    body: bytes,
    secret: str = SECRET,
    *,
    delivery: str = "f6266f16-1bf3-46a5-9ea4-602e06ead473",
    now: datetime = NOW,
) -> dict[str, str]:
    """The headers with which a provider would send the body."""
    mac = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    headers = {_EVENT_HEADERS[provider]: event}
    if provider is Provider.GITHUB:
        return headers | {"x-hub-signature-256": f"sha256={mac}", "x-github-delivery": delivery}
    if provider is Provider.GITEA:
        return headers | {"x-gitea-signature": mac, "x-gitea-delivery": delivery}
    if provider is Provider.BITBUCKET:
        return headers | {"x-hub-signature": f"sha256={mac}", "x-request-uuid": delivery}
    if not secret.startswith("whsec_"):
        return headers | {"x-gitlab-token": secret, "idempotency-key": delivery}
    stamp = str(int(now.timestamp()))
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signature = base64.b64encode(hmac.new(key, f"{delivery}.{stamp}.".encode() + body, hashlib.sha256).digest())
    return headers | {
        "webhook-id": delivery,
        "webhook-timestamp": stamp,
        "webhook-signature": f"v1,{signature.decode()}",
        "idempotency-key": delivery,
    }


def rules_of(*rules: str, provider: str = "github", repository: str = "https://github.com/team/app.git") -> Rules:
    """A file of one hook with these rules, each the lines of its table."""
    head = f'[[hook]]\nname = "app"\nprovider = "{provider}"\nsecret = "app-hook"\nrepository = "{repository}"\n'
    return read_rules(head + "".join(f"[[hook.rule]]\n{rule}\n" for rule in rules), "webhooks.toml")


def hook_of(*rules: str, provider: str = "github", repository: str = "https://github.com/team/app.git") -> Hook:
    return rules_of(*rules, provider=provider, repository=repository).hook[0]
