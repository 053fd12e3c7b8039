"""Looks on where denials are reported and not enforced: every byte passes as it came, in both directions.

Rules of this module:

- What is seen is read with the guard's own readers and recorded before it passes. It decides nothing: neither what
  can't be read nor what can't be recorded holds up a byte.
- After what would be denied it reads on as far as the bytes can still be told apart. Where they can't (no HTTP/1.1, an
  upgrade that is none of BuildKit's, compressed headers that were lost), it says so once, and the rest of the
  connection passes unread.
- What the guard would deny a client for being slow, or after it had denied it something else, is not told.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from functools import partial

from caisson.guard.audit import Entry, Event
from caisson.guard.build_query import BuildQuery
from caisson.guard.connection import Service
from caisson.guard.dockerfile_names import Unasked
from caisson.guard.dockerfile_stages import BuildInputs
from caisson.guard.grpc_mediator import GrpcMediator
from caisson.guard.http1 import NO_BODY, BodyReader, HeadReader, Malformed, RequestHead, parse_answer, parse_request
from caisson.guard.peer import peer_container
from caisson.guard.rules import ALLOWED, Decision, Forward, Upgrade, judge
from caisson.guard.session_mediator import SessionMediator
from caisson.guard.settling import MOST_ROUNDS, ask_all
from caisson.guard.stream import Mediator
from caisson.guard.tarscan import TarScan
from caisson.guard.verdict import Denied, Verdict
from caisson.guard.wire import Gone, Wire, connect

# So often what would end a stream is told of it; then its bytes can hardly be told apart any more.
_MOST_LOST = 16

_LOST = Verdict("deny", "unread", "What follows on this connection can't be told apart, and passes unread.")

Record = Callable[[Verdict, str, RequestHead | None], None]


class Watch:
    """Reads one connection. ``record`` gets each verdict, with the path of a call of BuildKit's, and the request."""

    def __init__(self, service: Service, record: Record) -> None:
        self._service, self._record = service, record
        self._stack = contextlib.ExitStack()
        self._rest = b""
        self._again: Callable[[], None] | None = None
        self.unasked: list[Unasked] = []
        """What has to be asked for before more can be seen of the client; then ``go_on``."""
        self._head: RequestHead | None = None
        self._reader: Callable[[bytes], bytes] = self._read_head
        self._begin_head()

    def client_bytes(self, data: bytes) -> None:
        """See what the client sends."""
        data, self._rest = self._rest + data, b""
        while data:
            if self.unasked:
                self._rest = data
                return
            try:
                data = self._reader(data)
            except Denied as denied:
                self._tell(denied.verdict)
                self.lose()
                return
            except (Malformed, ValueError) as error:
                self._tell(Verdict("deny", "http", str(error)))
                self.lose()
                return

    def go_on(self) -> None:
        """What had to be asked for is known."""
        again, self._again, self.unasked = self._again, None, []
        if again is not None:
            again()
        self.client_bytes(b"")

    def engine_bytes(self, data: bytes) -> None:
        """See what the engine answers; it matters in the streams of BuildKit only."""
        if self._mediator is None:
            return
        if not self._upgraded:
            try:
                found = self._answer.feed(data)
                if found is None:
                    return
                is_upgrade = parse_answer(found[0]).status == 101
            except Malformed:
                is_upgrade = False
            if found is None or not is_upgrade:
                self.lose()
                return
            self._upgraded, data = True, found[1]
        if data:
            self._follow(self._mediator.server_bytes, data)

    def close(self) -> None:
        """Nothing more comes."""
        self._stack.close()

    def _tell(self, verdict: Verdict, path: str = "") -> None:
        self._record(verdict, path, self._head)

    def lose(self) -> None:
        """Read nothing more of this connection."""
        self._reader, self._mediator = self._read_nothing, None
        self._again, self.unasked = None, []
        self._tell(_LOST)

    def _read_nothing(self, data: bytes) -> bytes:
        return data[:0]

    def _begin_head(self) -> None:
        self._heads = HeadReader(self._service.policy.limits.head_bytes)
        self._answer = HeadReader(self._service.policy.limits.head_bytes)
        self._reader, self._mediator, self._upgraded = self._read_head, None, False

    _mediator: Mediator | None
    _upgraded: bool

    def _read_head(self, data: bytes) -> bytes:
        if (found := self._heads.feed(data)) is None:
            return b""
        # Of what goes on on this connection, what came before is over.
        self._stack.close()
        self._head = head = parse_request(found[0], most_headers=self._service.policy.limits.headers)
        decision = self._judge(head)
        self._begin_head()
        if isinstance(decision, Upgrade):
            self._reader = self._read_stream
            self._mediator = self._looker_on(decision)
            self._stack.callback(self._mediator.close)
        elif head.get("upgrade") is not None:
            self.lose()
        elif head.framing != NO_BODY:
            self._begin_body(head, decision.build if isinstance(decision, Forward) else None)
        return found[1]

    def _judge(self, head: RequestHead) -> Decision | None:
        service = self._service
        decision = None
        try:
            rule, decision = judge(head, service.policy, service.engine)
            self._stack.enter_context(service.one_at_a_time(rule))
            self._tell(ALLOWED[rule])
        except Denied as denied:
            self._tell(denied.verdict)
        return decision

    def _begin_body(self, head: RequestHead, build: BuildQuery | None) -> None:
        self._body = BodyReader(head.framing)
        self._build = build
        self._scan = TarScan(build.dockerfile, self._service.policy.limits.context_bytes) if build else None
        self._reader = self._read_body

    def _read_body(self, data: bytes) -> bytes:
        parts = self._body.feed(data)
        try:
            if self._scan is not None:
                for part in parts:
                    for _ in self._scan.feed(part):
                        pass
                if self._body.done:
                    self._approve(self._scan)
        except Denied as denied:
            self._scan = None
            self._tell(denied.verdict)
        if not self._body.done:
            return b""
        rest = self._body.rest
        self._begin_head()
        return rest

    def _approve(self, scan: TarScan) -> None:
        assert self._build is not None
        scan.finish()
        self._judge_context(scan.dockerfile_text(), self._build.inputs(self._service.engine.platform))

    def _judge_context(self, dockerfile: bytes, inputs: BuildInputs) -> None:
        try:
            self._service.check_dockerfile(dockerfile, inputs)
        except Unasked as unasked:
            self.unasked, self._again = [unasked], partial(self._judge_context, dockerfile, inputs)
        except Denied as denied:
            self._tell(denied.verdict)
        else:
            self._tell(Verdict("allow", "context", "The context and its Dockerfile may be built."))

    def _looker_on(self, upgrade: Upgrade) -> Mediator:
        service = self._service
        self._lost = 0
        if upgrade.kind == "session":
            try:
                service.ids.open_session(upgrade.session)
            except Denied as denied:
                self._tell(denied.verdict)
            return SessionMediator(service.check_sent)
        return GrpcMediator(lambda: service.policy, service.ids, service.held, service.checks, looks_on=True)

    def _read_stream(self, data: bytes) -> bytes:
        assert self._mediator is not None
        self._follow(self._mediator.client_bytes, data)
        return b""

    def _follow(self, take: Callable[[bytes], object], data: bytes) -> None:
        """What is denied would end the stream; it is told, and what follows is read on."""
        while self._mediator is not None:
            mediator = self._mediator
            lost: Denied | None = None
            try:
                take(data)
            except Denied as denied:
                lost = denied
            for path, verdict in mediator.verdicts():
                self._tell(verdict, path)
            if mediator.unasked:
                self.unasked, self._again = mediator.unasked, partial(self._follow, mediator.client_bytes, b"")
            if lost is None:
                return
            data = b""
            self._tell(lost.verdict)
            self._lost += 1
            if self._lost >= _MOST_LOST:
                self.lose()


class WatchedConnection:
    """Passes one client's bytes to a connection with the engine of its own and back, until both have ended."""

    def __init__(self, service: Service, client: Wire) -> None:
        self._service, self._client = service, client
        self._container = ""
        self._head: RequestHead | None = None
        self._watch = Watch(service, self._record)
        self._bytes_in = self._bytes_out = 0

    async def run(self) -> None:
        """Serve it, and close it whatever happens."""
        service = self._service
        try:
            self._container = peer_container(self._client.socket)
            try:
                service.admit(self._container)
            except Denied as denied:
                self._record(denied.verdict, "", None)
            engine = await connect(service.engine_socket, service.policy.limits.engine_seconds)
            try:
                await self._pass_both_ways(engine)
            finally:
                engine.close()
        except Gone:
            pass
        finally:
            self._watch.close()
            self._note_end()
            self._client.close()

    async def _pass_both_ways(self, engine: Wire) -> None:
        ways = [asyncio.create_task(self._pass_in(engine)), asyncio.create_task(self._pass_out(engine))]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_EXCEPTION)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)

    async def _pass_in(self, engine: Wire) -> None:
        while data := await self._client.receive():
            self._watch.client_bytes(data)
            await self._settle()
            self._bytes_in += len(data)
            try:
                await engine.send(data)
            except Gone:
                # It may have answered before it has read everything.
                return
        # The engine, as without a guard, is told that nothing more comes.
        with contextlib.suppress(OSError):
            engine.socket.shutdown(socket.SHUT_WR)

    async def _settle(self) -> None:
        for _ in range(MOST_ROUNDS):
            if not self._watch.unasked:
                return
            await ask_all(self._watch.unasked)
            self._watch.go_on()
        self._watch.lose()

    async def _pass_out(self, engine: Wire) -> None:
        while data := await engine.receive():
            self._watch.engine_bytes(data)
            self._bytes_out += len(data)
            await self._client.send(data)
        # The engine closes whole connections, and no halves: nobody reads what the client would still send.
        raise Gone("the engine has closed the connection")

    def _record(self, verdict: Verdict, path: str, head: RequestHead | None) -> None:
        self._head = head or self._head
        # Where the audit is full or can't be written, what is told of bytes is lost, and they pass all the same.
        with contextlib.suppress(Denied, OSError):
            self._service.audit.record(self._entry("decision", verdict, path))

    def _note_end(self) -> None:
        if self._head is not None:
            ended = Verdict("allow", "watched", "It passed as it came.")
            with contextlib.suppress(Denied, OSError):
                self._service.audit.record(self._entry("end", ended, ""))

    def _entry(self, event: Event, verdict: Verdict, path: str) -> Entry:
        head, ended = self._head, event == "end"
        return Entry(
            event,
            verdict,
            method=head.method if head else "",
            path=path or (head.target.partition("?")[0] if head else ""),
            container=self._container,
            would_deny=not verdict.allowed,
            bytes_in=self._bytes_in if ended else 0,
            bytes_out=self._bytes_out if ended else 0,
        )
