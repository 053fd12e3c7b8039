"""One h2c stream of BuildKit's between a client and the engine, as far as its mediator lets it through."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from caisson.guard.grpc_mediator import Passed
from caisson.guard.verdict import Denied, Verdict
from caisson.guard.wire import Wire

_DRAIN_SECONDS = 2.0


class Mediator(Protocol):
    """Judges one h2c stream: what a side sent goes in, what is to be sent comes out; raises ``Denied``."""

    def client_bytes(self, data: bytes) -> Passed: ...
    def server_bytes(self, data: bytes) -> Passed: ...
    def verdicts(self) -> list[tuple[str, Verdict]]:
        """What was decided since it was last asked, with the path of each call."""

    def goodbye(self, denied: Denied) -> bytes:
        """What the client is to be sent before its connection is closed for that reason; empty where nothing is."""


class MediatedStream:
    """Passes both ways what the mediator lets through, until one side ends or is denied something.

    ``record`` gets each decision before what it allows is sent. With ``only_report`` everything is passed on as it
    came, and the mediator looks on.
    """

    def __init__(
        self,
        client: Wire,
        engine: Wire,
        mediator: Mediator,
        *,
        record: Callable[[Verdict, str], None],
        only_report: bool,
    ) -> None:
        self._client, self._engine, self._mediator = client, engine, mediator
        self._record, self._only_report = record, only_report
        self._locks = {client: asyncio.Lock(), engine: asyncio.Lock()}
        self._watched = True
        self.bytes_in = 0
        """What was sent to the engine."""
        self.bytes_out = 0
        """What was sent to the client."""

    async def run(self, first: bytes) -> None:
        """Serve it; ``first`` is what the engine has sent already."""
        ways = [
            asyncio.create_task(self._one_way(self._client, self._engine, self._mediator.client_bytes, b"")),
            asyncio.create_task(self._one_way(self._engine, self._client, self._mediator.server_bytes, first)),
        ]
        try:
            done, _ = await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            for way in done:
                error = way.exception()
                if isinstance(error, Denied):
                    # It is HTTP/2 by now, where no answer of HTTP/1.1 can be given.
                    self._record(error.verdict, "")
                    await self._client.drain(_DRAIN_SECONDS)
                elif isinstance(error, OSError):
                    # The audit can't be written: the connection that asks next is told.
                    raise error
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)

    async def resume(self) -> None:
        """Send what has waited for a session that is open now."""
        if self._watched and not self._only_report:
            await self._pass(self._judge(self._mediator.client_bytes, b""))

    async def _one_way(self, source: Wire, target: Wire, judged: Callable[[bytes], Passed], data: bytes) -> None:
        data = data or await source.receive()
        while data:
            if self._watched:
                try:
                    passed = self._judge(judged, data)
                except Denied as denied:
                    if not self._only_report:
                        await self._send(self._client, self._mediator.goodbye(denied))
                        raise
                    self._watched = False
                    self._record(denied.verdict, "")
            if self._only_report:
                await self._send(target, data)
            else:
                await self._pass(passed)
            data = await source.receive()

    def _judge(self, judged: Callable[[bytes], Passed], data: bytes) -> Passed:
        try:
            return judged(data)
        finally:
            for path, verdict in self._mediator.verdicts():
                self._record(verdict, path)

    async def _pass(self, passed: Passed) -> None:
        await self._send(self._engine, passed.to_daemon)
        await self._send(self._client, passed.to_client)

    async def _send(self, target: Wire, data: bytes) -> None:
        if data:
            async with self._locks[target]:
                if target is self._client:
                    self.bytes_out += len(data)
                else:
                    self.bytes_in += len(data)
                await target.send(data)
