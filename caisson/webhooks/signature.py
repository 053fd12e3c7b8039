"""Whether a delivery comes from whoever knows the hook's secret, and which delivery it is. Pure.

The signature is of the body as it arrived, byte by byte, and is checked before any of it is read. Which header counts
is decided by the rules and the secret, never by what a delivery brings.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from caisson.webhooks.event import Provider

# standard-webhooks, "Verifying signatures": five minutes, for clocks that differ.
TOLERANCE = timedelta(minutes=5)
SIGNING_TOKEN = "whsec_"  # noqa: S105
# GitLab's keys have 32 bytes, standard-webhooks asks for 24 at least.
_LEAST_KEY = 24
_ID = re.compile(r"[A-Za-z0-9_{}=+/-]{1,128}")
_EVENTS = {
    Provider.GITHUB: ("x-github-event",),
    Provider.GITLAB: ("x-gitlab-event",),
    Provider.GITEA: ("x-forgejo-event", "x-gitea-event"),
    Provider.BITBUCKET: ("x-event-key",),
}
_IDS = {
    Provider.GITHUB: ("x-github-delivery",),
    Provider.GITLAB: ("idempotency-key",),
    Provider.GITEA: ("x-forgejo-delivery", "x-gitea-delivery"),
    Provider.BITBUCKET: ("x-request-uuid",),
}
_SIGNATURES = {
    Provider.GITHUB: (("x-hub-signature-256",), "sha256="),
    Provider.GITEA: (("x-forgejo-signature", "x-gitea-signature"), ""),
    Provider.BITBUCKET: (("x-hub-signature",), "sha256="),
}


class NotAuthentic(ValueError):
    """The delivery is not signed with the hook's secret; the message tells nothing of that."""


@dataclass(frozen=True)
class Delivery:
    """An authentic delivery: its event by the provider's header, and what it is known by when it comes again.

    ``id`` is the provider's own, or stands for the body where there is none. ``digest`` is the body's where the
    signature does not cover the ID, so that one that was overheard can't come again under another; else it is empty.
    """

    event: str
    id: str
    digest: str


def authenticate(
    provider: Provider, headers: Mapping[str, str], body: bytes, secret: str, *, now: datetime
) -> Delivery:
    """The delivery, once its signature holds; ``headers`` have names in lower case. Raises ``NotAuthentic``."""
    if not secret:
        raise NotAuthentic("the hook's secret is empty")
    digest = hashlib.sha256(body).hexdigest()
    event = _first(headers, _EVENTS[provider])[1]
    if provider is Provider.GITLAB:
        if secret.startswith(SIGNING_TOKEN):
            return Delivery(event, _checked_id(_signed_by_gitlab(headers, body, secret, now)), "")
        _require(_digest(headers.get("x-gitlab-token", "")), _digest(secret), "x-gitlab-token")
        # Whoever has overheard one has the token, and with it any delivery.
        return Delivery(event, _id(provider, headers, digest), "")
    names, prefix = _SIGNATURES[provider]
    name, given = _first(headers, names)
    _require(given, prefix + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest(), name)
    return Delivery(event, _id(provider, headers, digest), digest)


def _signed_by_gitlab(headers: Mapping[str, str], body: bytes, secret: str, now: datetime) -> str:
    """The ID of a delivery by the signing token, in the form of standard-webhooks; it is part of what was signed."""
    given, sent = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    try:
        key = base64.b64decode(secret.removeprefix(SIGNING_TOKEN), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) < _LEAST_KEY:
        raise NotAuthentic(f"the hook's secret begins with {SIGNING_TOKEN} and is no signing token")
    mac = hmac.new(key, f"{given}.{sent}.".encode() + body, hashlib.sha256).digest()
    expected = f"v1,{base64.b64encode(mac).decode()}"
    # One for each key while a token is changed.
    offered = headers.get("webhook-signature", "").split(" ")[:8]
    if not any(_same(each, expected) for each in offered):
        raise NotAuthentic(_missing_or_wrong("webhook-signature", headers.get("webhook-signature", "")))
    if not re.fullmatch(r"[0-9]{1,12}", sent) or abs(now.timestamp() - int(sent)) > TOLERANCE.total_seconds():
        raise NotAuthentic("webhook-timestamp is more than five minutes from this host's clock")
    return given


def _require(given: str, expected: str, name: str) -> None:
    if not _same(given, expected):
        raise NotAuthentic(_missing_or_wrong(name, given))


def _same(given: str, expected: str) -> bool:
    return hmac.compare_digest(given.encode(errors="surrogatepass"), expected.encode())


def _digest(text: str) -> str:
    """Of one length for every token: the time of a comparison would tell the token's."""
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest() if text else ""


def _missing_or_wrong(name: str, given: str) -> str:
    return f"{name} does not match the body and the hook's secret" if given else f"{name} is missing"


def _first(headers: Mapping[str, str], names: tuple[str, ...]) -> tuple[str, str]:
    """Name and value of the first header that is there; where none is, the last name."""
    return next(((name, headers[name]) for name in names if headers.get(name)), (names[-1], ""))


def _id(provider: Provider, headers: Mapping[str, str], digest: str) -> str:
    given = _first(headers, _IDS[provider])[1]
    return _checked_id(given) if given else f"sha256={digest}"


def _checked_id(given: str) -> str:
    if not _ID.fullmatch(given):
        raise NotAuthentic("the delivery's ID is not one: letters, digits and dashes, 128 at most")
    return given
