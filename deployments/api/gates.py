"""What every request passes before a route sees it, and before its body is read: name, size, kind, token, rate.

Plain ASGI: FastAPI reads the body before it asks who sends it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from datetime import UTC, datetime
from http import HTTPStatus

from anyio import to_thread
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from caisson.errors import CaissonError
from caisson.tokens import TokenRecord
from deployments.api.problems import Problem, of_failure
from deployments.api.rate import RateLimit
from deployments.same_origin import host_name

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")
MOST_BODY = 256 << 10
"""Bytes of a build request; the largest that its schema allows in its fixed fields is a fraction of it."""
MOST_WEBHOOK_BODY = 25 << 20
"""Bytes of a webhook's delivery: GitHub's own limit."""
OPEN_PATHS = ("/healthz", "/readyz", "/api/openapi.json")
"""Paths that tell nothing about builds or hosts, and need no token."""
WEBHOOKS = "/webhooks/"
"""Below it each delivery proves itself by its signature."""
_BEARER = "bearer "


class KnownHost:
    """Refuses a Host header of another: a page elsewhere must not reach the loopback by a name of its own (DNS
    rebinding)."""

    def __init__(self, app: ASGIApp, names: Collection[str]) -> None:
        """``names`` empty: any."""
        self._app = app
        self._names = frozenset(name.lower() for name in names)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and self._names:
            headers = Headers(scope=scope)
            if host_name(headers.get("host", "")) not in self._names:
                problem = Problem(
                    HTTPStatus.MISDIRECTED_REQUEST,
                    "This host is not known by that name; CAISSON_GATEWAY_NAMES lists more of its names.",
                )
                await problem(scope, receive, send)
                return
        await self._app(scope, receive, send)


class PlainHeaders:
    """Says with every answer that it is to be kept nowhere and taken for what it is."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.setdefault("Cache-Control", "no-store")
                headers["X-Content-Type-Options"] = "nosniff"
                headers["Content-Security-Policy"] = "default-src 'none'; frame-ancestors 'none'"
                headers["Referrer-Policy"] = "no-referrer"
            await send(message)

        await self._app(scope, receive, with_headers if scope["type"] == "http" else send)


class BodyLimit:
    """Refuses a body that is too large, by its announced length or as soon as it is, and one that is not JSON."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        webhook = scope["path"].startswith(WEBHOOKS)
        most = MOST_WEBHOOK_BODY if webhook else MOST_BODY
        problem = _length_problem(headers.get("content-length"), most)
        if problem is None and not webhook and _has_body(headers) and not _is_json(headers.get("content-type", "")):
            problem = Problem(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "The body is to be application/json.")
        if problem is not None:
            await problem(scope, receive, send)
            return
        seen = 0

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > most:
                raise _too_large(most)
            return message

        await self._app(scope, counted, send)


def _length_problem(text: str | None, most: int) -> Problem | None:
    if text is None:
        return None
    # What is no number never comes this far: the server refuses it.
    return _too_large(most) if not text.isdigit() or int(text) > most else None


def _too_large(most: int) -> Problem:
    return Problem(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        f"The body is larger than {most:,} bytes.",
        # The rest of it is not read.
        headers={"Connection": "close"},
    )


def _has_body(headers: Headers) -> bool:
    return headers.get("content-length", "0") != "0" or "transfer-encoding" in headers


def _is_json(content_type: str) -> bool:
    return content_type.partition(";")[0].strip().lower() == "application/json"


class Authentication:
    """Lets pass who shows a token and is not too fast; leaves its record in ``scope["state"]["token"]``."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        find: Callable[[str, datetime], TokenRecord | None],
        rate: RateLimit,
        failures: RateLimit,
    ) -> None:
        """``rate`` is a token's, ``failures`` that of an address which shows tokens that are none."""
        self._app = app
        self._find = find
        self._rate = rate
        self._failures = failures

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not is_open(scope["path"]):
            try:
                scope.setdefault("state", {})["token"] = await self._authenticate(scope)
            except Problem as problem:
                await problem(scope, receive, send)
                return
            except CaissonError as error:
                await of_failure(error)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    async def _authenticate(self, scope: Scope) -> TokenRecord:
        peer = (scope.get("client") or ("", 0))[0]
        header = Headers(scope=scope).get("authorization", "")
        token = header[len(_BEARER) :].strip() if header.lower().startswith(_BEARER) else ""
        record = await to_thread.run_sync(self._find, token, datetime.now(UTC)) if token else None
        if record is None:
            # Not before the token is known: behind a proxy all are one peer, and who guesses locks nobody out.
            if self._failures.is_spent(peer):
                raise _too_fast(1)
            self._failures.wait_seconds(peer)
            raise Problem(
                HTTPStatus.UNAUTHORIZED,
                "This needs a valid token: `Authorization: Bearer TOKEN`; `caisson tokens create` makes one.",
                headers={"WWW-Authenticate": 'Bearer realm="caisson"' + (', error="invalid_token"' if token else "")},
            )
        if seconds := self._rate.wait_seconds(record.id):
            raise _too_fast(seconds)
        return record


def is_open(path: str) -> bool:
    return path in OPEN_PATHS or path.startswith(WEBHOOKS)


def _too_fast(seconds: float) -> Problem:
    return Problem(
        HTTPStatus.TOO_MANY_REQUESTS,
        f"Too many requests; try again in {seconds:.1f} s.",
        headers={"Retry-After": str(max(1, math.ceil(seconds)))},
    )
