"""Keeps pages of other sites from using the server through somebody's browser. Deciding is pure.

Prefect's API takes what it is asked by whoever reaches its port, which is enough protection on loopback but for one:
the browser of a person on that host, which any page can have send requests there. Two rules, without tokens or state:

- What changes something, and every websocket, must not come from a page of another origin, by the browser's own word:
  ``Sec-Fetch-Site`` (https://www.w3.org/TR/fetch-metadata/), else ``Origin`` against ``Host`` (RFC 6454). Programs
  send neither. Reading across origins is CORS's to deny.
- On loopback the ``Host`` asked for has to be an address, or a name that is known to be this host's. A page whose own
  name was made to resolve to loopback (DNS rebinding) is of the same origin as what it asks, and has another name.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
"""RFC 9110, 9.2.1, without TRACE."""


@dataclass(frozen=True)
class Refusal:
    """Why a request is refused; ``status`` is HTTP's."""

    status: int
    reason: str


@dataclass(frozen=True)
class Origins:
    """What is ours: ``names`` are host names in lower case, ``None`` for any."""

    names: frozenset[str] | None

    @classmethod
    def of(cls, *, server_host: str, server_names: Collection[str], host_name: str) -> Origins:
        """Any name where the server listens beyond loopback and nobody said which names it has."""
        if not server_names and not is_loopback(server_host):
            return cls(None)
        return cls(frozenset(name.lower() for name in ("localhost", host_name, *server_names)))

    def refusal(self, method: str, *, is_websocket: bool, host: str, origin: str, fetch_site: str) -> Refusal | None:
        """Why this request is refused; ``None``: it is not. Headers that are missing are empty."""
        name = host_name(host)
        if self.names is not None and not _is_address(name) and name not in self.names:
            return Refusal(
                421, f"No server of the name {name[:80]!r} is here; CAISSON_SERVER_NAMES lists those that there are."
            )
        if method in _SAFE and not is_websocket:
            return None
        if _is_ours(host, origin, fetch_site):
            return None
        return Refusal(403, "A page of another origin must not use this server.")


class SameOrigin:
    """An ASGI app before another one: what ``origins`` refuses does not reach it."""

    def __init__(self, app: App, origins: Origins) -> None:
        self._app, self._origins = app, origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
            refusal = self._origins.refusal(
                scope.get("method", ""),
                is_websocket=scope["type"] == "websocket",
                host=headers.get("host", ""),
                origin=headers.get("origin", ""),
                fetch_site=headers.get("sec-fetch-site", ""),
            )
            if refusal is not None:
                await _refuse(scope, send, refusal)
                return
        await self._app(scope, receive, send)


async def _refuse(scope: Scope, send: Send, refusal: Refusal) -> None:
    if scope["type"] == "websocket":
        # Before it is accepted, this is a 403 to the client (ASGI, websocket close).
        await send({"type": "websocket.close", "code": 1008, "reason": refusal.reason})
        return
    body = json.dumps({"title": "Refused", "status": refusal.status, "detail": refusal.reason}).encode()
    headers = [(b"content-type", b"application/problem+json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def is_loopback(address: str) -> bool:
    """Whether nobody beyond this host reaches a server at that address.

    >>> is_loopback("127.0.0.1"), is_loopback("::1"), is_loopback("localhost"), is_loopback("0.0.0.0"), is_loopback("")
    (True, True, True, False, False)
    """
    if address.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


def _is_ours(host: str, origin: str, fetch_site: str) -> bool:
    if fetch_site:
        return fetch_site in ("same-origin", "none")
    return not origin or _place(origin) == host.lower()


def host_name(header: str) -> str:
    """The name or address in a Host header (RFC 9110, 7.2), without the port; "" where it is none.

    >>> host_name("LocalHost:4280"), host_name("[::1]:4280"), host_name("caisson.example.com."), host_name("[::1")
    ('localhost', '[::1]', 'caisson.example.com', '')
    """
    name = header.strip().lower()
    if name.startswith("["):
        return name[: name.find("]") + 1]
    return name.partition(":")[0].removesuffix(".")


def _place(origin: str) -> str:
    """Host and port of an origin, as ``Host`` has them; "" for one that is none."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True
