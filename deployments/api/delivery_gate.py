"""How many deliveries of webhooks are read at once, and how long each may take to come.

Anybody may send one, and whether it is authentic shows only when all of it is here. So what is read at once is bounded,
large bodies are few, and callers whose deliveries keep failing share two places. Those are slow, and lock nobody out:
behind a proxy all callers have one address.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from http import HTTPStatus

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deployments.api.gates import WEBHOOKS
from deployments.api.problems import Problem
from deployments.api.rate import RateLimit

SMALL_BODY = 256 << 10
"""Bytes; nearly every delivery is a tenth of it."""
_AT_ONCE, _LARGE_AT_ONCE, _SUSPECTS_AT_ONCE = 64, 3, 2
# As long as the git hosts themselves wait for an answer.
WAIT_SECONDS = 10.0
BODY_SECONDS = 10.0
SUSPECTS_BODY_SECONDS = 2.0
_FAILED = frozenset(
    {
        HTTPStatus.UNAUTHORIZED,
        HTTPStatus.NOT_FOUND,
        HTTPStatus.REQUEST_TIMEOUT,
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    }
)


class DeliveryGate:
    """Lets deliveries in as there is room; refuses those for which there is none for ten seconds."""

    def __init__(self, app: ASGIApp, *, failures: RateLimit, all_failures: RateLimit) -> None:
        """``failures`` is what an address may fail before it counts as suspect, ``all_failures`` what all may."""
        self._app = app
        self._failures, self._all_failures = failures, all_failures
        self._any = asyncio.Semaphore(_AT_ONCE)
        self._large = asyncio.Semaphore(_LARGE_AT_ONCE)
        self._suspects = asyncio.Semaphore(_SUSPECTS_AT_ONCE)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith(WEBHOOKS):
            await self._app(scope, receive, send)
            return
        peer = (scope.get("client") or ("", 0))[0]
        suspect = self._failures.is_spent(peer) or self._all_failures.is_spent("")

        async def counting(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] in _FAILED:
                self._failures.wait_seconds(peer)
                self._all_failures.wait_seconds("")
            await send(message)

        async with AsyncExitStack() as places:
            body = _Body(receive, places, self._large, BODY_SECONDS if not suspect else SUSPECTS_BODY_SECONDS)
            try:
                await _enter(places, self._suspects if suspect else self._any)
                await body.announced(Headers(scope=scope).get("content-length", ""))
            except Problem as problem:
                await problem(scope, receive, counting)
                return
            await self._app(scope, body.receive, counting)


class _Body:
    """One delivery's body as it comes in."""

    def __init__(self, receive: Receive, places: AsyncExitStack, large: asyncio.Semaphore, seconds: float) -> None:
        self._receive, self._places, self._large, self._seconds = receive, places, large, seconds
        self._seen, self._is_large, self._is_whole = 0, False, False
        self._deadline: float | None = None

    async def announced(self, length: str) -> None:
        await self._grow(int(length) if length.isdigit() else 0)

    async def receive(self) -> Message:
        if self._is_whole:
            return await self._receive()
        if self._deadline is None:
            self._deadline = asyncio.get_running_loop().time() + self._seconds
        try:
            async with asyncio.timeout_at(self._deadline):
                message = await self._receive()
        except TimeoutError:
            raise Problem(
                HTTPStatus.REQUEST_TIMEOUT,
                f"The delivery took longer than {self._seconds:.0f} s to come in.",
                headers={"Connection": "close"},
            ) from None
        self._seen += len(message.get("body", b""))
        await self._grow(self._seen)
        self._is_whole = not message.get("more_body", False)
        return message

    async def _grow(self, size: int) -> None:
        if size > SMALL_BODY and not self._is_large:
            self._is_large = True
            await _enter(self._places, self._large)


async def _enter(places: AsyncExitStack, room: asyncio.Semaphore) -> None:
    try:
        async with asyncio.timeout(WAIT_SECONDS):
            await places.enter_async_context(room)
    except TimeoutError:
        raise Problem(
            HTTPStatus.SERVICE_UNAVAILABLE,
            "Too many deliveries come in at once; try again in a moment.",
            headers={"Retry-After": "10", "Connection": "close"},
        ) from None
