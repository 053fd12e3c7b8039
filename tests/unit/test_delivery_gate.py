"""How many deliveries are read at once, and how long they may take: on an application that reads them to the end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from deployments.api import delivery_gate
from deployments.api.delivery_gate import SMALL_BODY, DeliveryGate
from deployments.api.problems import Problem
from deployments.api.rate import RateLimit

LARGE = SMALL_BODY + 1


class Application:
    """Answers with the status in the query once it has the body and ``go`` is set; ``inside`` are those it reads."""

    def __init__(self) -> None:
        self.inside: list[str] = []
        self.go = asyncio.Event()
        self.go.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        self.inside.append(request.headers["x-name"])
        try:
            await request.body()
            await self.go.wait()
            await Response(status_code=int(request.query_params.get("status", "202")))(scope, receive, send)
        except Problem as problem:
            await problem(scope, receive, send)
        finally:
            self.inside.remove(request.headers["x-name"])


Deliver = Callable[..., Awaitable[int]]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery_gate, "WAIT_SECONDS", 0.2)
    monkeypatch.setattr(delivery_gate, "BODY_SECONDS", 0.2)
    monkeypatch.setattr(delivery_gate, "SUSPECTS_BODY_SECONDS", 0.1)


def make() -> tuple[Application, Deliver]:
    application = Application()
    limits = [RateLimit(rate=0.001, burst=burst, clock=lambda: 0.0) for burst in (3, 6)]
    gate = DeliveryGate(application, failures=limits[0], all_failures=limits[1])

    async def deliver(
        name: str = "x",
        *,
        size: int = 10,
        announced: bool = True,
        peer: str = "p",
        status: int = 202,
        slow: bool = False,
    ) -> int:
        headers = [(b"x-name", name.encode()), *([(b"content-length", b"%d" % size)] if announced else [])]
        scope = {
            **{"type": "http", "method": "POST", "path": "/webhooks/app", "query_string": b"status=%d" % status},
            **{"headers": headers, "client": (peer, 1)},
        }
        pieces = _pieces(size, slow)
        statuses: list[int] = []

        async def receive() -> Message:
            return await anext(pieces)

        async def send(message: Message) -> None:
            if message["type"] == "http.response.start":
                statuses.append(message["status"])

        await gate(scope, receive, send)
        (answered,) = statuses
        return answered

    return application, deliver


async def _pieces(size: int, slow: bool) -> AsyncIterator[Message]:
    while size > 0:
        piece = min(size, 64 << 10)
        size -= piece
        yield {"type": "http.request", "body": b"x" * piece, "more_body": True}
    if slow:
        await asyncio.sleep(3600)
    yield {"type": "http.request", "body": b"", "more_body": False}


def run(test: Callable[[Application, Deliver], Awaitable[Any]]) -> None:
    async def main() -> None:
        application, deliver = make()
        await asyncio.wait_for(test(application, deliver), 20)
        assert application.inside == []

    asyncio.run(main())


@pytest.mark.parametrize("announced", [True, False])
def test_few_large_bodies_are_here_at_once_and_small_ones_pass_them(announced: bool) -> None:
    async def test(application: Application, deliver: Deliver) -> None:
        application.go.clear()
        large = [asyncio.ensure_future(deliver("l", size=LARGE, announced=announced)) for _ in range(5)]
        small = [asyncio.ensure_future(deliver("s")) for _ in range(20)]
        await asyncio.wait(large, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.sleep(0.05)
        assert (application.inside.count("l"), application.inside.count("s")) == (3, 20)
        application.go.set()
        assert sorted(await asyncio.gather(*large)) == [202, 202, 202, 503, 503]
        assert set(await asyncio.gather(*small)) == {202}
        assert await deliver(size=LARGE) == 202

    run(test)


def test_what_is_read_at_once_is_bounded() -> None:
    async def test(application: Application, deliver: Deliver) -> None:
        application.go.clear()
        deliveries = [asyncio.ensure_future(deliver("s")) for _ in range(100)]
        await asyncio.wait(deliveries, return_when=asyncio.FIRST_COMPLETED)
        assert len(application.inside) == 64
        application.go.set()
        await asyncio.gather(*deliveries)

    run(test)


def test_a_body_that_does_not_come_in_is_not_waited_for() -> None:
    async def test(_: Application, deliver: Deliver) -> None:
        assert await deliver(slow=True) == 408

    run(test)


@pytest.mark.parametrize("failure", [{"status": 401}, {"status": 404}, {"slow": True}])
def test_who_keeps_failing_shares_two_places_and_is_not_locked_out(failure: dict[str, Any]) -> None:
    async def test(application: Application, deliver: Deliver) -> None:
        for _ in range(3):
            await deliver(**failure)
        application.go.clear()
        suspects = [asyncio.ensure_future(deliver("suspect")) for _ in range(4)]
        others = [asyncio.ensure_future(deliver("other", peer="q")) for _ in range(4)]
        await asyncio.sleep(0.1)
        assert (application.inside.count("suspect"), application.inside.count("other")) == (2, 4)
        application.go.set()
        assert set(await asyncio.gather(*suspects, *others)) == {202}

    run(test)


def test_many_who_fail_a_little_are_suspects_together() -> None:
    async def test(application: Application, deliver: Deliver) -> None:
        for number in range(6):
            await deliver(peer=f"{number}", status=401)
        application.go.clear()
        deliveries = [asyncio.ensure_future(deliver("s", peer=f"new-{number}")) for number in range(5)]
        await asyncio.sleep(0.1)
        assert len(application.inside) == 2
        application.go.set()
        await asyncio.gather(*deliveries)

    run(test)


def test_refusals_for_what_a_hooks_rules_say_are_no_failures() -> None:
    async def test(application: Application, deliver: Deliver) -> None:
        for status in (200, 202, 400, 409, 503):
            for _ in range(4):
                await deliver(status=status)
        application.go.clear()
        deliveries = [asyncio.ensure_future(deliver("s")) for _ in range(5)]
        await asyncio.sleep(0.1)
        assert len(application.inside) == 5
        application.go.set()
        await asyncio.gather(*deliveries)

    run(test)
