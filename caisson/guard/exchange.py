"""One request with the engine: the guard's own request out, the body streamed, the answer back.

Back-pressure is the sockets' own: nothing is read before what came before it was sent on.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from caisson.guard.held import Held
from caisson.guard.http1 import (
    LAST_CHUNK,
    AnswerHead,
    BodyReader,
    HeadReader,
    Malformed,
    RequestHead,
    chunk,
    parse_answer,
    write_answer,
    write_request,
)
from caisson.guard.policy import GuardLimits, GuardPolicy
from caisson.guard.rules import Forward
from caisson.guard.tarscan import TarScan
from caisson.guard.wire import Gone, Wire

_OWN_HEADERS = (("Host", "docker"), ("User-Agent", "caisson-guard"))
# Most answers come within it; only beyond is the client watched meanwhile.
_AT_ONCE_SECONDS = 0.05
# A client's next request may come a moment before the guard knows that its answer was the whole one.
_PIPELINE_GRACE_SECONDS = 0.5
_CONTENT_TYPE = re.compile(r"[a-z]+/[a-z0-9.+-]+(?:; ?charset=[a-z0-9-]+)?", re.IGNORECASE)

Approve = Callable[[bytes], Awaitable[None]]
"""Judges the Dockerfile of a context; raises ``Denied``."""


class EngineBroken(Exception):
    """The engine ended the connection, or answered with what is no answer."""


async def read_answer_head(engine: Wire, limits: GuardLimits) -> tuple[AnswerHead, bytes]:
    """The head of the engine's answer, and the first bytes after it; raises ``EngineBroken``."""
    reader = HeadReader(limits.head_bytes)
    while data := await engine.receive():
        try:
            if (found := reader.feed(data)) is not None:
                return parse_answer(found[0]), found[1]
        except Malformed as error:
            raise EngineBroken(str(error)) from None
    raise EngineBroken("The engine closed the connection without an answer.")


@dataclass
class Exchange:
    """One request and its answer. ``answered`` tells whether the answer's head has gone to the client."""

    client: Wire
    engine: Wire
    head: RequestHead
    forward: Forward
    policy: GuardPolicy
    held: Held
    scan: TarScan | None = None
    answered: bool = field(default=False, init=False)
    uploaded: bool = field(default=False, init=False)
    reusable: bool = field(default=False, init=False)
    """Whether the engine's connection can take another request: its answer was whole, and nothing followed."""
    bytes_in: int = field(default=0, init=False)
    bytes_out: int = field(default=0, init=False)

    async def run(self, rest: bytes, approve: Approve) -> bool:
        """Until the answer is whole; False when the connection can't be used again.

        ``rest`` are the first bytes of the body; ``approve`` judges the context before its end is sent. Raises
        ``Gone`` when the client is gone, ``Denied``, ``Malformed``, ``EngineBroken``.
        """
        await self._send_head()
        if self.scan is None:
            self.uploaded = True
            if await self.engine.readable(_AT_ONCE_SECONDS):
                await self._download()
                return self.head.keeps_alive
        up = asyncio.create_task(self._upload(rest, approve))
        down = asyncio.create_task(self._download())
        try:
            await asyncio.wait({up, down}, return_when=asyncio.FIRST_COMPLETED)
            if not down.done() and isinstance(up.exception(), EngineBroken):
                # It may have answered before it has read everything, and then stopped reading.
                await asyncio.wait({down}, timeout=self.policy.limits.engine_seconds)
            if not down.done():
                up.result()
                raise Gone("the client closed the connection")
            down.result()
            return self.uploaded and self.head.keeps_alive
        finally:
            up.cancel()
            down.cancel()
            await asyncio.gather(up, down, return_exceptions=True)

    async def _send_head(self) -> None:
        headers = [*_OWN_HEADERS, *self.forward.headers]
        if self.forward.build is not None:
            headers += [("Connection", "close"), ("Transfer-Encoding", "chunked")]
        await self._to_engine(write_request(self.forward.method, self.forward.target, headers))

    async def _upload(self, rest: bytes, approve: Approve) -> None:
        if self.scan is not None:
            await self._send_body(self.scan, rest, approve)
        self.uploaded = True
        await self._watch()

    async def _send_body(self, scan: TarScan, rest: bytes, approve: Approve) -> None:
        limits, clock = self.policy.limits, asyncio.get_running_loop().time
        reader = BodyReader(self.head.framing)
        data, waited = rest, 0.0
        while True:
            parts = reader.feed(data) if data else []
            size = sum(len(part) for part in parts)
            self.bytes_in += size
            await self._to_engine(chunk([piece for part in parts for piece in scan.feed(part)]))
            if reader.done:
                break
            begun = clock()
            data = await self.client.receive(limits.body_seconds)
            waited += clock() - begun
            if not data:
                raise Gone("the client closed the connection within the body")
            if waited > limits.wait_seconds + self.bytes_in / limits.least_rate:
                raise Malformed(f"The body comes more slowly than {limits.least_rate} bytes a second.")
        if reader.rest:
            raise Malformed("Something follows the request before its answer.")
        end = scan.finish()
        await approve(scan.dockerfile_text())
        await self._to_engine(chunk([memoryview(end)]) + LAST_CHUNK)

    async def _to_engine(self, data: bytes) -> None:
        if not data:
            return
        try:
            await self.engine.send(data)
        except Gone as error:
            raise EngineBroken(str(error)) from None

    async def _watch(self) -> None:
        """Return when the client is gone; it has nothing to say before its answer is whole."""
        if await self.client.says_more():
            await asyncio.sleep(_PIPELINE_GRACE_SECONDS)
            raise Malformed("Something follows the request before its answer.")

    async def _download(self) -> None:
        answer, data = await read_answer_head(self.engine, self.policy.limits)
        if answer.status < 200:
            raise EngineBroken("The engine answered with an upgrade that was not asked for.")
        try:
            reader = BodyReader(answer.framing(self.head.method))
            if self.forward.rewrite is not None and answer.status == 200:
                await self._rewritten(answer, reader, data)
            else:
                await self._streamed(answer, reader, data)
        except Malformed as error:
            raise EngineBroken(str(error)) from None
        self.reusable = reader.framing.kind != "close" and not reader.rest and answer.keeps_alive

    async def _streamed(self, answer: AnswerHead, reader: BodyReader, data: bytes) -> None:
        is_chunked = reader.framing.kind != "length"
        framing = [("Content-Length", str(reader.framing.length))]
        if self.head.method == "HEAD" or answer.status in (204, 304):
            framing = []
        elif is_chunked:
            framing = [("Transfer-Encoding", "chunked")]
        # What is there already goes out in one piece: the head with the body's beginning, its end with the last part.
        waiting = write_answer(answer.status, [*self._answer_headers(answer), *framing])
        while True:
            parts = reader.feed(data) if data else []
            self.bytes_out += sum(len(part) for part in parts)
            waiting += chunk(parts) if is_chunked else b"".join(parts)
            if reader.done:
                break
            await self._to_client(waiting)
            waiting, data = b"", await self.engine.receive()
            if not data:
                reader.end()
                break
        await self._to_client(waiting + (LAST_CHUNK if is_chunked else b""))

    async def _rewritten(self, answer: AnswerHead, reader: BodyReader, data: bytes) -> None:
        assert self.forward.rewrite is not None
        taken = 0
        try:
            whole = bytearray()
            while not reader.done:
                for part in reader.feed(data):
                    self.held.take(len(part))
                    taken += len(part)
                    whole += part
                if len(whole) > self.policy.limits.answer_bytes:
                    raise EngineBroken("The engine's answer is too long to be read whole.")
                if not reader.done:
                    data = await self.engine.receive()
                    if not data:
                        reader.end()
            try:
                body = self.forward.rewrite(bytes(whole), self.policy)
            except ValueError as error:
                raise EngineBroken(str(error)) from None
            del whole
            self.bytes_out += len(body)
            headers = [*self._answer_headers(answer), ("Content-Length", str(len(body)))]
            await self._to_client(write_answer(answer.status, headers) + body)
        finally:
            self.held.give(taken)

    async def _to_client(self, data: bytes) -> None:
        self.answered = True
        if data:
            await self.client.send(data)

    def _answer_headers(self, answer: AnswerHead) -> list[tuple[str, str]]:
        kind = answer.get("content-type") or ""
        return [
            ("Api-Version", self.policy.api),
            ("Ostype", "linux"),
            ("Docker-Experimental", "false"),
            ("Builder-Version", "2" if answer.get("builder-version") == "2" else "1"),
            ("Cache-Control", "no-cache"),
            *([("Content-Type", kind)] if _CONTENT_TYPE.fullmatch(kind) else []),
            *([] if self.head.keeps_alive else [("Connection", "close")]),
        ]
