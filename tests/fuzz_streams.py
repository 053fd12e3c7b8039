"""The targets of ``tests.fuzz_targets`` that are streams: HTTP/2, BuildKit's calls, files that pass over a session."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from caisson.guard.audit import Audit
from caisson.guard.buildkit_schema import BRIDGE_SOLVE, CONTROL_SOLVE, RETURN, STATUS
from caisson.guard.connection import Service
from caisson.guard.context_stream import ContextStream
from caisson.guard.dockerfile_stream import Asked, DockerfileStream
from caisson.guard.grpc import MessageSizes, with_prefix
from caisson.guard.grpc_mediator import GrpcMediator, Passed
from caisson.guard.http2 import (
    END_HEADERS,
    Frame,
    FrameReader,
    HeaderList,
    HeaderReader,
    Type,
    write_headers,
    write_settings,
)
from caisson.guard.protobuf import ProtobufError, encode, parse
from caisson.guard.rules import EngineFacts
from caisson.guard.session_mediator import SessionMediator
from caisson.guard.verdict import Denied, Verdict
from caisson.guard.watching import Watch
from tests.buildkit_client import (
    BRIDGE,
    CONTROL,
    GREETING,
    POLICY,
    SESSION,
    Client,
    mediator,
    pb,
    read_calls,
    solve,
)
from tests.in_pieces import pieces

Outcome = tuple[bytes, str]

_ENGINE = EngineFacts("26.1.5")
STEPS = (1, 2, 3, 5, 8, 13, 64, 511)
_METHODS = ("ListWorkers", "Status", "Solve", "Prune", "ListenBuildHistory")


def first(data: bytes) -> tuple[int, bytes]:
    """What the first byte decides, and the rest."""
    return (data[0] if data else 0), data[1:]


def _mediated(data: bytes, step: int) -> Outcome:
    guard, passed = mediator(), b""
    try:
        for piece in pieces(data, step):
            passed += guard.client_bytes(piece).to_daemon
    except Denied as denied:
        return passed, denied.rule
    return passed, ""


def _same(data: bytes, step: int) -> None:
    whole, inpieces = _mediated(data, len(data) or 1), _mediated(data, step)
    assert whole[1] == inpieces[1]
    if not whole[1]:
        assert len(whole[0]) == len(inpieces[0])


def fuzz_grpc(data: bytes) -> None:
    """A client's stream is judged alike in any pieces; a daemon's is passed or refused."""
    choice, data = first(data)
    _same((GREETING if choice & 128 else b"") + data, STEPS[choice % 8])
    guard = mediator()
    try:
        client, frontend = Client(), pb((2, "dockerfile.v0"))
        calls = client.call(f"{CONTROL}Solve", solve()) + client.call(f"{BRIDGE}Solve", frontend)
        passed = Passed(*guard.client_bytes(GREETING + calls))
        assert read_calls(passed.to_daemon)
        for piece in pieces(data, STEPS[choice % 8]):
            guard.server_bytes(piece)
    except Denied:
        pass


def fuzz_call(data: bytes) -> None:
    """A call's message is denied, or what the daemon gets of it is what was understood."""
    choice, data = first(data)
    paths = [*(f"{CONTROL}{name}" for name in _METHODS), f"{BRIDGE}Ping", f"{BRIDGE}Solve", f"{BRIDGE}Return"]
    guard = GrpcMediator(lambda: POLICY)
    guard.ids.open_session(SESSION)
    path = paths[choice % len(paths)]
    try:
        passed = guard.client_bytes(GREETING + Client().call(path, data))
    except Denied:
        return
    allowed = [verdict.allowed for _, verdict in guard.verdicts()]
    calls = read_calls(passed.to_daemon)
    assert not calls or allowed == [True]
    for _, message in calls:
        text = message.decode("latin-1")
        assert "network.host" not in text or path != f"{CONTROL}Solve" or not parse_entitlements(message[5:])


def parse_entitlements(message: bytes) -> bool:
    """Whether a Solve that was written asks for any."""
    return parse(CONTROL_SOLVE, message).has("Entitlements")


def fuzz_protobuf(data: bytes) -> None:
    """A message is refused, or written again it reads the same."""
    choice, data = first(data)
    schema = (CONTROL_SOLVE, BRIDGE_SOLVE, RETURN, STATUS)[choice % 4]
    try:
        message = parse(schema, data)
    except ProtobufError:
        return
    assert parse(schema, encode(message)) == message


def fuzz_session(data: bytes) -> None:
    """What passes of a session is a beginning of what was sent, in any pieces."""
    choice, data = first(data)
    daemon = Client()
    asked = GREETING + daemon.ask(directory="context") + daemon.open("/grpc.health.v1.Health/Check")

    def passed(step: int) -> Outcome:
        session, found = SessionMediator(lambda _: None), b""
        session.server_bytes(asked)
        try:
            for piece in pieces(write_settings({}) + data, step):
                found += session.client_bytes(piece).to_daemon
        except Denied as denied:
            return found, denied.rule
        return found, ""

    whole, inpieces = passed(len(data) + 64), passed(STEPS[choice % 8])
    assert whole[1] == inpieces[1]
    assert (write_settings({}) + data).startswith(inpieces[0])
    sizes = MessageSizes(1 << 20)
    try:
        sizes.feed(memoryview(data))
        SessionMediator(lambda _: None).server_bytes(data)
    except Denied:
        pass


_ASKED = Asked("dockerfile", ("Dockerfile", "Dockerfile.dockerignore", "dockerfile"))


def fuzz_dockerfile_stream(data: bytes) -> None:
    """When the daemon takes the directory for whole, each file in it but the ignore file has been judged as it is."""
    judged: list[bytes] = []

    def check(content: bytes) -> None:
        judged.append(content)
        if b"BAD" in content:
            raise Denied("bad", "It is bad.")

    stream = DockerfileStream(_ASKED, check)
    received: dict[str, bytes] = {}
    paths: list[str] = []
    finished = False
    at = 0
    # Each packet is its length in a byte, and itself.
    while at < len(data):
        packet = data[at + 1 : at + 1 + data[at]]
        at += 1 + data[at]
        try:
            stream.feed(memoryview(with_prefix(packet)))
        except Denied:
            return
        assert not finished
        kind, stat, number, content = _packet(packet)
        if kind == 0 and stat is not None:
            paths.append(stat)
        elif kind == 2:
            received[paths[number]] = received.get(paths[number], b"") + content
        finished = kind == 3
    if finished:
        assert all(content in judged for path, content in received.items() if path != "Dockerfile.dockerignore")
        assert not any(b"BAD" in content for path, content in received.items() if path != "Dockerfile.dockerignore")


def _fields(packet: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The fields of a packet that was understood, each by its tag, by another reader: in any order, and over no end."""
    at = 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = packet[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(packet):
        tag, value = varint(), varint()
        if tag & 7 == 2:
            assert at + value <= len(packet)
            yield tag, packet[at : at + value]
            at += value
        else:
            yield tag, value


def _packet(packet: bytes) -> tuple[int, str | None, int, bytes]:
    """Type, path, ID and data of a packet."""
    found = dict(_fields(packet))
    kind, stat, number, content = (found.get(tag) for tag in (0x08, 0x12, 0x18, 0x22))
    path = None
    if isinstance(stat, bytes):
        path = stat[2 : 2 + stat[1]].decode() if stat[:1] == b"\x0a" else ""
    return _number(kind), path, _number(number), content if isinstance(content, bytes) else b""


def _number(value: int | bytes | None) -> int:
    return value if isinstance(value, int) else 0


_UPGRADES = tuple(
    f"POST /{kind} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n{more}\r\n".encode()
    for kind, more in (("grpc", ""), ("session", f"X-Docker-Expose-Session-Uuid: {SESSION}\r\n"))
)
_SWITCHING = b"HTTP/1.1 101 x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"


def fuzz_watch(data: bytes) -> None:
    """Whoever only looks on raises nothing, whatever passes, and tells of it a bounded number of times for a stream."""
    choice, data = first(data)
    told: list[Verdict] = []
    service = Service(POLICY, _ENGINE, Path("/none"), Audit(), lambda *_: None, serve_anyone=True)
    watch = Watch(service, lambda verdict, *_: told.append(verdict))
    if choice & 64:
        watch.client_bytes(_UPGRADES[choice >> 7])
        watch.engine_bytes(_SWITCHING)
    for number, piece in enumerate(pieces(data, STEPS[choice % 8])):
        if choice & 32 and number % 2:
            watch.engine_bytes(piece)
        else:
            watch.client_bytes(piece)
    watch.close()
    assert service.held.bytes == 0
    assert not any(service.active.values())
    assert all(verdict.rule for verdict in told)


def _framed(data: bytes) -> bytes:
    """Packets that are each a length in a byte and themselves, as messages."""
    messages, at = b"", 0
    while at < len(data):
        messages += with_prefix(data[at + 1 : at + 1 + data[at]])
        at += 1 + data[at]
    return messages


def fuzz_context_stream(data: bytes) -> None:
    """A context is judged alike in any pieces; in one that passes nothing is announced after the last file."""
    choice, data = first(data)
    sent = _framed(data) if choice & 128 else data

    def judged(step: int) -> str:
        stream = ContextStream(1 << 16)
        try:
            for piece in pieces(sent, step):
                stream.feed(memoryview(piece))
        except Denied as denied:
            return denied.rule
        return ""

    whole = judged(len(sent) or 1)
    assert judged(STEPS[choice % 8]) == whole
    listed = False
    at = 0
    while not whole and at + 5 <= len(sent):
        packet = sent[at + 5 : at + 5 + int.from_bytes(sent[at + 1 : at + 5], "big")]
        if at + 5 + int.from_bytes(sent[at + 1 : at + 5], "big") > len(sent):
            break
        at += 5 + len(packet)
        numbers = [tag >> 3 for tag, _ in _fields(packet)]
        assert not (listed and (2 in numbers or not packet))
        listed = listed or not packet


def fuzz_headers(data: bytes) -> None:
    """Header lists are the same in any frames, one after the other, and are read as they are written anew."""
    choice, data = first(data)
    half = len(data) * (choice >> 4) // 15

    def read(step: int) -> list[HeaderList] | str:
        reader, found = HeaderReader(1 << 11, 1 << 12), []
        for number, block in ((1, data[:half]), (3, data[half:])):
            cut = [*pieces(block, step)] or [b""]
            for index, piece in enumerate(cut):
                kind = Type.CONTINUATION if index else Type.HEADERS
                frame = Frame(kind, END_HEADERS if index == len(cut) - 1 else 0, number, piece)
                try:
                    read_block = reader.add(frame)
                except Denied as denied:
                    return denied.rule
                if read_block is not None:
                    found.append(read_block.fields)
        return found

    whole = read(1 << 12)
    # In few enough pieces: a list in more of them than it needs is refused.
    assert read(max(1, -(-len(data) // (1 + choice % 8)))) == whole
    for fields in [] if isinstance(whole, str) else whole:
        _, frame = FrameReader().feed(write_settings({}) + write_headers(1, fields, ends_stream=False))
        again = HeaderReader(1 << 14, 1 << 14).add(frame)
        assert again is not None
        assert again.fields == fields
