"""One client's connection: who it is, then request after request, each judged, recorded, and only then acted upon."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from caisson.guard.audit import Audit, Entry, Event
from caisson.guard.build_ids import BuildIds
from caisson.guard.dockerfile_policy import as_dockerfile
from caisson.guard.dockerfile_stages import BuildInputs
from caisson.guard.exchange import EngineBroken, Exchange, read_answer_head
from caisson.guard.grpc_mediator import GrpcMediator
from caisson.guard.grpc_stream import Checks, deny_steps
from caisson.guard.held import Held
from caisson.guard.http1 import (
    NO_BODY,
    Headers,
    HeadReader,
    Malformed,
    RequestHead,
    parse_request,
    write_answer,
    write_request,
)
from caisson.guard.llb import Steps
from caisson.guard.peer import peer_container
from caisson.guard.policy import GuardPolicy
from caisson.guard.rules import ALLOWED, Answer, Decision, EngineFacts, Forward, Upgrade, answer_body, error_body, judge
from caisson.guard.session_mediator import SessionMediator
from caisson.guard.settling import settled
from caisson.guard.stream import MediatedStream, Mediator
from caisson.guard.tarscan import TarScan
from caisson.guard.verdict import Denied, Verdict
from caisson.guard.wire import Gone, Wire, connect

_DRAIN_SECONDS = 2.0

CheckDockerfile = Callable[[bytes, BuildInputs], None]
"""Judges the Dockerfile that the engine is about to use, with what the build is given; raises ``Denied``, and
``Unasked`` where names have to be asked for first. It waits for nothing."""

CheckSteps = Callable[[Steps], None]
"""Judges what BuildKit has made of a Dockerfile before it is done, likewise."""


@dataclass
class Service:
    """What all connections of a guard share. Only its event loop changes it, but for ``policy`` and ``container``."""

    policy: GuardPolicy
    engine: EngineFacts
    engine_socket: Path
    audit: Audit
    check_dockerfile: CheckDockerfile
    check_steps: CheckSteps = deny_steps
    container: str = ""
    """The only one that is served; empty: nobody."""
    serve_anyone: bool = False
    connections: int = 0
    active: dict[str, int] = field(default_factory=dict)
    """Builds and sessions that go on now, by their rule."""
    ids: BuildIds = field(default_factory=BuildIds)
    """What BuildKit's clients have named on this socket."""
    streams: set[MediatedStream] = field(default_factory=set)
    """``/grpc`` streams that go on now: their calls may wait for a session."""
    held: Held = field(default_factory=Held)
    spare: Wire | None = None
    """A connection with the engine that has answered all that it was asked: the next question needs no new one."""

    @property
    def checks(self) -> Checks:
        """Of a result of BuildKit's."""
        return Checks(self.check_trigger, self.check_steps)

    def check_trigger(self, trigger: str) -> None:
        """What an image would have after ONBUILD, as if its Dockerfile had it; raises ``Denied``."""
        try:
            self.check_dockerfile(as_dockerfile(trigger).encode(), BuildInputs("buildkit", (), self.engine.platform))
        except Denied as denied:
            reason = f"The image's configuration has ONBUILD {trigger[:80]!r}: {denied.reason}"
            raise Denied(denied.rule, reason) from None

    def admit(self, container: str) -> None:
        """Whether a client in that container (empty: in none that this process sees) is served; raises ``Denied``."""
        if self.connections > self.policy.limits.connections:
            raise Denied("connections", f"More than {self.policy.limits.connections} connections are open.")
        if self.serve_anyone:
            return
        if not self.container:
            raise Denied("peer", "The container that this socket is for is not known yet.")
        if not container:
            raise Denied(
                "peer",
                "Who connects is in no container that this process can see; "
                "the guard has to run in the host's own process namespace.",
            )
        if container != self.container:
            raise Denied("peer", "This socket is for another container.")

    def most_at_once(self, rule: str) -> int | None:
        """How many that this rule allows may go on at once; None: any number."""
        limits = self.policy.limits
        return {"build": limits.builds_at_once, "session": 1, "grpc": limits.grpc_at_once}.get(rule)

    def check_sent(self, dockerfile: bytes) -> None:
        """The Dockerfile that BuildKit is about to get, with the arguments that all builds on this socket have."""
        given = self.ids.settle_build_args()
        self.check_dockerfile(dockerfile, BuildInputs("buildkit", tuple(given.items()), self.engine.platform))

    @contextlib.contextmanager
    def one_at_a_time(self, rule: str) -> Iterator[None]:
        """One more of this rule goes on; raises ``Denied`` where that is one too many."""
        most = self.most_at_once(rule)
        if most is None:
            yield
            return
        if self.active.get(rule, 0) >= most:
            raise Denied(
                f"{rule}-busy", f"{most} of this kind ({rule}) goes on already; one build has no use for more."
            )
        self.active[rule] = self.active.get(rule, 0) + 1
        try:
            yield
        finally:
            self.active[rule] -= 1


class Connection:
    """Serves one client until it is gone, is denied something, or has sent what is no request."""

    def __init__(self, service: Service, client: Wire) -> None:
        self._service, self._client = service, client
        self._container = ""
        self._head: RequestHead | None = None

    @property
    def _policy(self) -> GuardPolicy:
        # As it is now: it changes while clients are connected.
        return self._service.policy

    async def run(self) -> None:
        """Serve it, and close it whatever happens."""
        try:
            self._container = peer_container(self._client.socket)
            try:
                self._service.admit(self._container)
            except Denied:
                # Whoever looks whether a guard still listens connects, asks nothing and goes.
                if await self._client.receive(self._policy.limits.header_seconds):
                    raise
                return
            while await self._one_request():
                pass
        except Denied as denied:
            await self._refuse(403, denied.verdict)
        except Malformed as error:
            await self._refuse(400, Verdict("deny", "http", str(error)))
        except EngineBroken as error:
            self._note_end(Verdict("deny", "engine", str(error)))
            await self._say(502, f"The Docker engine does not answer as it should: {error}")
        except OSError:
            # The audit can't be written: then nothing is done at all.
            await self._say(503, "The guard can't write its audit, and so allows nothing.")
        except Gone:
            pass
        finally:
            self._client.close()

    async def _one_request(self) -> bool:
        self._head = None
        found = await self._read_head()
        if found is None:
            return False
        raw, rest = found
        self._head = head = parse_request(raw, most_headers=self._policy.limits.headers)
        rule, decision = judge(head, self._policy, self._service.engine)
        if rest and head.framing == NO_BODY:
            raise Malformed("Something follows the request before its answer.")
        self._record(ALLOWED[rule])
        return await self._act(rule, head, decision, rest)

    async def _act(self, rule: str, head: RequestHead, decision: Decision, rest: bytes) -> bool:
        if isinstance(decision, Answer):
            await self._send_answer(200, answer_body(decision), keep=head.keeps_alive, headers=decision.headers)
            return head.keeps_alive
        if isinstance(decision, Upgrade):
            with self._service.one_at_a_time(rule):
                await self._upgrade(rule, decision)
            return False
        with self._service.one_at_a_time(rule):
            return await self._forward(rule, head, decision, rest)

    async def _read_head(self) -> tuple[bytes, bytes] | None:
        limits = self._policy.limits
        reader = HeadReader(limits.head_bytes)
        data = await self._client.receive(limits.idle_seconds)
        if not data or (found := reader.feed(data)) is not None:
            return found if data else None
        try:
            async with asyncio.timeout(limits.header_seconds):
                while data := await self._client.receive():
                    if (found := reader.feed(data)) is not None:
                        return found
        except TimeoutError:
            raise Malformed("The head of the request did not come in time.") from None
        raise Malformed("The connection ended within the head of a request.")

    async def _forward(self, rule: str, head: RequestHead, forward: Forward, rest: bytes) -> bool:
        service = self._service
        if head.framing != NO_BODY and head.get("expect") is not None and not rest:
            await self._client.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        scan = None
        if forward.build is not None:
            scan = TarScan(forward.build.dockerfile, self._policy.limits.context_bytes)
        engine = await self._connect() if scan else self._take_spare() or await self._connect()
        exchange = Exchange(self._client, engine, head, forward, self._policy, service.held, scan=scan)

        async def approve(dockerfile: bytes) -> None:
            assert forward.build is not None
            inputs = forward.build.inputs(service.engine.platform)
            await settled(lambda: service.check_dockerfile(dockerfile, inputs))
            self._record(Verdict("allow", "context", "The context and its Dockerfile may be built."))

        ended = ALLOWED[rule]
        try:
            return await exchange.run(rest, approve)
        except (Denied, Malformed, EngineBroken, Gone) as error:
            ended = Verdict("deny", rule, str(error))
            if exchange.answered and not isinstance(error, Gone):
                # Its answer has begun, so that nothing can be said any more but that it ends here.
                if isinstance(error, Denied):
                    self._record(error.verdict)
                raise Gone(str(error)) from None
            raise
        finally:
            if exchange.reusable and service.spare is None:
                service.spare = engine
            else:
                engine.close()
            if scan is not None or not ended.allowed:
                self._note_end(ended, exchange.bytes_in, exchange.bytes_out)

    def _take_spare(self) -> Wire | None:
        spare, self._service.spare = self._service.spare, None
        if spare is not None and not spare.is_quiet():
            # The engine has closed it, or says what it was not asked.
            spare.close()
            return None
        return spare

    async def _connect(self) -> Wire:
        try:
            return await connect(self._service.engine_socket, self._policy.limits.engine_seconds)
        except Gone as error:
            raise EngineBroken(str(error)) from None

    async def _upgrade(self, rule: str, upgrade: Upgrade) -> None:
        mediator = self._mediator(upgrade)
        engine = await self._connect()
        stream = MediatedStream(
            self._client,
            engine,
            mediator,
            record=lambda verdict, path: self._record(verdict, path=path),
            whole_seconds=self._policy.limits.body_seconds,
        )
        try:
            own = (("Host", "docker"), ("Connection", "Upgrade"), ("Upgrade", "h2c"), ("Content-Length", "0"))
            await engine.send(
                write_request("POST", upgrade.target, (*own, *self._session_headers(upgrade), *upgrade.headers))
            )
            async with asyncio.timeout(self._policy.limits.engine_seconds):
                answer, first = await read_answer_head(engine, self._policy.limits)
            if answer.status != 101:
                raise EngineBroken(f"It answered {answer.status} to an upgrade.")
            if upgrade.session:
                self._service.ids.open_session(upgrade.session)
            await self._client.send(write_answer(101, (("Connection", "Upgrade"), ("Upgrade", "h2c"))))
            if upgrade.session:
                for waiting in [*self._service.streams]:
                    await waiting.resume()
            else:
                self._service.streams.add(stream)
            await stream.run(first)
        except TimeoutError:
            raise EngineBroken("It did not answer in time.") from None
        finally:
            self._service.streams.discard(stream)
            mediator.close()
            engine.close()
            self._note_end(ALLOWED[rule], stream.bytes_in, stream.bytes_out)

    def _session_headers(self, upgrade: Upgrade) -> Headers:
        if not upgrade.session:
            return ()
        return self._service.ids.session_headers(upgrade.session)

    def _mediator(self, upgrade: Upgrade) -> Mediator:
        if upgrade.kind == "grpc":
            service = self._service
            return GrpcMediator(lambda: self._policy, service.ids, service.held, service.checks)
        return SessionMediator(self._service.check_sent)

    def _record(self, verdict: Verdict, *, path: str = "") -> None:
        self._service.audit.record(self._entry("decision", verdict, path=path))

    def _note_end(self, verdict: Verdict, bytes_in: int = 0, bytes_out: int = 0) -> None:
        # That something has ended allows nothing, so it may go unrecorded where the audit is full.
        with contextlib.suppress(Denied, OSError):
            self._service.audit.record(self._entry("end", verdict, bytes_in=bytes_in, bytes_out=bytes_out))

    def _entry(
        self,
        event: Event,
        verdict: Verdict,
        *,
        path: str = "",
        bytes_in: int = 0,
        bytes_out: int = 0,
    ) -> Entry:
        head = self._head
        return Entry(
            event,
            verdict,
            method=head.method if head else "",
            path=path or (head.target.partition("?")[0] if head else ""),
            container=self._container,
            bytes_in=bytes_in,
            bytes_out=bytes_out,
        )

    async def _refuse(self, status: int, verdict: Verdict) -> None:
        with contextlib.suppress(Denied, OSError):
            self._record(verdict)
        await self._say(status, verdict.reason)

    async def _say(self, status: int, reason: str) -> None:
        with contextlib.suppress(Gone):
            await self._send_answer(status, error_body(reason), keep=False)
            await self._client.drain(_DRAIN_SECONDS)

    async def _send_answer(self, status: int, body: bytes, *, keep: bool, headers: Headers = ()) -> None:
        kind = "text/plain; charset=utf-8" if headers else "application/json"
        own = [*headers, ("Content-Type", kind), ("Content-Length", str(len(body)))]
        if not keep:
            own.append(("Connection", "close"))
        is_head = self._head is not None and self._head.method == "HEAD"
        await self._client.send(write_answer(status, own) + (b"" if is_head else body))
