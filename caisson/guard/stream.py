"""One h2c stream of BuildKit's between a client and the engine, as far as its mediator lets it through."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from caisson.guard.dockerfile_names import Unasked
from caisson.guard.grpc_mediator import Passed
from caisson.guard.settling import MOST_ROUNDS, ask_all, never_ends
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

    @property
    def unasked(self) -> list[Unasked]:
        """What has to be asked for before more can be taken of the client; then ``client_bytes(b"")`` goes on."""

    @property
    def unfinished(self) -> bool:
        """Whether the client has begun something that only it can bring to its end, in a short time."""

    def close(self) -> None:
        """Let go of what is held."""


class MediatedStream:
    """Passes both ways what the mediator lets through, until one side ends or is denied something.

    ``record`` gets each decision before what it allows is sent. ``whole_seconds`` is how long the client may take for
    what it has begun.
    """

    def __init__(
        self,
        client: Wire,
        engine: Wire,
        mediator: Mediator,
        *,
        record: Callable[[Verdict, str], None],
        whole_seconds: float,
    ) -> None:
        self._client, self._engine, self._mediator = client, engine, mediator
        self._record, self._whole_seconds = record, whole_seconds
        self._locks = {client: asyncio.Lock(), engine: asyncio.Lock()}
        self._whole_by: float | None = None
        self.bytes_in = 0
        """What was sent to the engine."""
        self.bytes_out = 0
        """What was sent to the client."""

    async def run(self, first: bytes) -> None:
        """Serve it; ``first`` is what the engine has sent already."""
        ways = [
            asyncio.create_task(self._from_client()),
            asyncio.create_task(self._from_engine(first)),
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
        await self._pass(self._judge(self._mediator.client_bytes, b""))

    async def _from_client(self) -> None:
        while data := await self._receive():
            await self._take(self._mediator.client_bytes, data)
            await self._settle()

    async def _from_engine(self, data: bytes) -> None:
        data = data or await self._engine.receive()
        while data:
            await self._take(self._mediator.server_bytes, data)
            data = await self._engine.receive()

    async def _settle(self) -> None:
        """Ask for what can't be judged without it; until then nothing more is read from the client."""
        for _ in range(MOST_ROUNDS):
            if not (unasked := self._mediator.unasked):
                return
            await ask_all([*unasked])
            await self._take(self._mediator.client_bytes, b"")
        denied = never_ends()
        await self._send(self._client, self._mediator.goodbye(denied))
        raise denied

    async def _receive(self) -> bytes:
        """What the client sends next; what it has begun has to be whole in time, however often something comes."""
        clock = asyncio.get_running_loop().time
        while True:
            if not self._mediator.unfinished:
                self._whole_by = None
            elif self._whole_by is None:
                self._whole_by = clock() + self._whole_seconds
            left = None if self._whole_by is None else self._whole_by - clock()
            if left is None or (left > 0 and await self._client.readable(left)):
                return await self._client.receive()
            if self._mediator.unfinished:
                denied = Denied("http2-slow", f"What was begun was not whole within {self._whole_seconds:g} seconds.")
                await self._send(self._client, self._mediator.goodbye(denied))
                raise denied

    async def _take(self, judged: Callable[[bytes], Passed], data: bytes) -> None:
        try:
            passed = self._judge(judged, data)
        except Denied as denied:
            await self._send(self._client, self._mediator.goodbye(denied))
            raise
        await self._pass(passed)

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
