"""A socket before an engine's, on which BuildKit's two streams go through the guard's mediators and all else passes.

What HTTP is on that socket is not looked at: that is the guard's server's.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from caisson.guard.buildkit_rules import BuildIds
from caisson.guard.grpc_mediator import GrpcMediator
from caisson.guard.policy import GuardPolicy
from caisson.guard.session_mediator import SessionMediator
from caisson.guard.verdict import Denied, Verdict

_SESSION = re.compile(rb"(?i)\r\nX-Docker-Expose-Session-Uuid: ([^\r]+)")


@dataclass
class Tap:
    """The socket, and what was decided on it, by method. ``denied`` are connections that were ended."""

    socket: Path
    verdicts: list[tuple[str, Verdict]] = field(default_factory=list)
    denied: list[Denied] = field(default_factory=list)

    @property
    def host(self) -> str:
        return f"unix://{self.socket}"

    def refused(self) -> dict[str, str]:
        """Rule by method, of what was refused."""
        return {method: verdict.rule for method, verdict in self.verdicts if not verdict.allowed}


@dataclass(eq=False)
class _Relay:
    tap: Tap
    mediator: GrpcMediator | SessionMediator
    client: asyncio.StreamWriter
    engine: asyncio.StreamWriter

    async def pump(self, reader: asyncio.StreamReader, *, from_client: bool) -> None:
        while data := await reader.read(256 << 10):
            self.take(data, from_client=from_client)
            await self.client.drain()
            await self.engine.drain()

    def take(self, data: bytes, *, from_client: bool) -> None:
        passed = self.mediator.client_bytes(data) if from_client else self.mediator.server_bytes(data)
        self.tap.verdicts += self.mediator.verdicts()
        self.engine.write(passed.to_daemon)
        self.client.write(passed.to_client)


class _Server:
    def __init__(self, tap: Tap, engine: Path, policy: GuardPolicy) -> None:
        self._tap, self._engine, self._policy = tap, engine, policy
        self._ids = BuildIds()
        self._grpc: set[_Relay] = set()

    async def connected(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        engine_reader, engine = await asyncio.open_unix_connection(str(self._engine))
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            head = await reader.readuntil(b"\r\n\r\n")
            engine.write(head)
            path = head.split(b" ")[1]
            if path in (b"/grpc", b"/session"):
                answer = await engine_reader.readuntil(b"\r\n\r\n")
                assert answer.startswith(b"HTTP/1.1 101"), answer
                client.write(answer)
                await self._mediate(path, head, (reader, client), (engine_reader, engine))
            else:
                await asyncio.gather(_copy(reader, engine), _copy(engine_reader, client))
        client.close()
        engine.close()

    async def _mediate(
        self,
        path: bytes,
        head: bytes,
        client: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        engine: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> None:
        mediator: GrpcMediator | SessionMediator = (
            GrpcMediator(self._policy, self._ids) if path == b"/grpc" else SessionMediator()
        )
        relay = _Relay(self._tap, mediator, client[1], engine[1])
        if path == b"/grpc":
            self._grpc.add(relay)
        else:
            match = _SESSION.search(head)
            assert match
            self._ids.open_session(match[1].decode())
            for waiting in self._grpc:
                waiting.take(b"", from_client=True)
        sides = [
            asyncio.create_task(relay.pump(client[0], from_client=True)),
            asyncio.create_task(relay.pump(engine[0], from_client=False)),
        ]
        try:
            done, _ = await asyncio.wait(sides, return_when=asyncio.FIRST_COMPLETED)
            for side in done:
                side.result()
        except Denied as denied:
            self._tap.verdicts += mediator.verdicts()
            self._tap.denied.append(denied)
            if isinstance(mediator, GrpcMediator):
                client[1].write(mediator.goodbye(denied))
                await client[1].drain()
        finally:
            self._grpc.discard(relay)
            for side in sides:
                side.cancel()
            await asyncio.gather(*sides, return_exceptions=True)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(64 << 10):
            writer.write(data)
            await writer.drain()
    finally:
        writer.close()


@contextlib.contextmanager
def buildkit_tap(directory: Path, engine: Path, policy: GuardPolicy) -> Iterator[Tap]:
    """The tap as long as the block lasts, in a thread of its own."""
    tap = Tap(directory / "tap.sock")
    loop = asyncio.new_event_loop()
    started = threading.Event()

    async def serve() -> None:
        server = await asyncio.start_unix_server(_Server(tap, engine, policy).connected, tap.socket, limit=1 << 20)
        async with server:
            started.set()
            await server.serve_forever()

    async def run() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await serve()

    task = loop.create_task(run())
    thread = threading.Thread(target=loop.run_until_complete, args=(task,), daemon=True)
    thread.start()
    assert started.wait(10)
    try:
        yield tap
    finally:
        loop.call_soon_threadsafe(lambda: [each.cancel() for each in asyncio.all_tasks(loop)])
        thread.join(10)
        for left in asyncio.all_tasks(loop):
            with contextlib.suppress(asyncio.CancelledError, Denied, OSError):
                loop.run_until_complete(left)
        loop.close()
