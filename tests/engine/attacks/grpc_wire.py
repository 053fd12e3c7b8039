"""Frames and messages that two readers of HTTP/2, gRPC or protobuf take for different things, and too many of them."""

from __future__ import annotations

from collections.abc import Callable

from caisson.guard.grpc import with_prefix
from caisson.guard.http2 import (
    END_HEADERS,
    END_STREAM,
    Frame,
    Type,
    frame_head,
    window_update,
    write_settings,
)
from tests.buildkit_client import CONTROL, Client, headers, pb, rst_stream, varint
from tests.engine.attacks.case import Effect, Refuses
from tests.engine.attacks.grpc import GREETING, GrpcAttack, status

_WORKERS = f"{CONTROL}ListWorkers"
_ANSWERED = status("0")


def wire(
    name: str, frames: Callable[[Client], bytes], rule: str, works: Effect | Refuses = _ANSWERED, **more: object
) -> GrpcAttack:
    """Frames of one's own making."""
    return GrpcAttack(name, lambda case: GREETING + frames(Client()), rule, works, **more)  # type: ignore[arg-type]


def _with(client: Client, **changed: str) -> bytes:
    fields = [(key, changed.pop(key.replace(":", "").replace("-", "_"), value)) for key, value in headers(_WORKERS)]
    fields += [(key.replace("_", "-"), value) for key, value in changed.items()]
    client.stream = 1
    return Frame(Type.HEADERS, END_HEADERS, 1, client.block(fields)).encode() + client.data(bytes(5))


def _raw(client: Client, message: bytes) -> bytes:
    return client.open(_WORKERS) + client.data(message)


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """Also of a kind that there is not."""
    return frame_head(len(payload), kind, flags, stream) + payload  # type: ignore[arg-type]


def _headers(client: Client, flag: int, before: bytes, after: bytes = b"") -> bytes:
    """A call whose HEADERS have a flag, and what it says is there."""
    client.stream = 1
    payload = before + client.block(headers(_WORKERS)) + after
    return _frame(Type.HEADERS, END_HEADERS | flag, 1, payload) + client.data(bytes(5))


def _in_pieces(client: Client, count: int) -> bytes:
    """A call whose header list comes in so many frames."""
    client.stream, block = 1, client.block(headers(_WORKERS))
    size = -(-len(block) // count)
    pieces = [block[at : at + size] for at in range(0, len(block), size)]
    kinds = [Type.HEADERS, *[Type.CONTINUATION] * (len(pieces) - 1)]
    flags = [*[0] * (len(pieces) - 1), END_HEADERS]
    frames = (_frame(kind, flag, 1, piece) for kind, flag, piece in zip(kinds, flags, pieces, strict=True))
    return b"".join(frames) + client.data(bytes(5))


def _more(client: Client, *fields: tuple[str, str]) -> bytes:
    """A call with more headers."""
    return client.open(_WORKERS, more=fields) + client.data(bytes(5))


_CLOSED = Refuses("closed", "the engine ends the connection")
_SILENT = Refuses("no answer", "the engine ends the stream, and at times the connection")
_NO_GRPC = Refuses(":status: ", "gRPC is asked for by POST, and has a type of its own")
ATTACKS = [
    wire(
        "a message that is compressed",
        lambda client: _raw(client, b"\x01" + bytes(4)),
        "grpc-message",
        Refuses("grpc-status: 13", "no coding was named"),
    ),
    wire("two messages in one call", lambda client: _raw(client, bytes(10)), "grpc-message", status("0", "13")),
    wire(
        "half a message",
        lambda client: _raw(client, bytes(3)),
        "grpc-message",
        Refuses("unexpected EOF", "gRPC looks too"),
    ),
    wire(
        "a longer message than there is",
        lambda client: _raw(client, b"\0\x7f\xff\xff\xff"),
        "grpc-message",
        status("8", "13"),
    ),
    wire("another method of HTTP", lambda client: _with(client, method="GET"), "grpc-header", _NO_GRPC, waits=1),
    wire(
        "another type of content",
        lambda client: _with(client, content_type="application/json"),
        "grpc-header",
        _NO_GRPC,
        waits=1,
    ),
    wire("a header that is not known", lambda client: _with(client, x_other="1"), "grpc-header"),
    wire(
        "a build's name where none is",
        lambda client: _with(client, buildkit_controlapi_buildid="b" * 25),
        "buildkit-method",
    ),
    wire("an authorization", lambda client: _with(client, authorization="Bearer x"), "grpc-header"),
    wire(
        "a stream of the server's",
        lambda client: Frame(Type.HEADERS, END_HEADERS, 2, client.block(headers(_WORKERS))).encode(),
        "http2-stream",
        _CLOSED,
    ),
    wire(
        "a stream that is closed",
        lambda client: client.call(_WORKERS) + client.data(b"x"),
        "http2-stream",
        _SILENT,
        waits=1,
        passed=1,
    ),
    wire(
        "data on no stream",
        lambda client: Frame(Type.DATA, END_STREAM, 7, b"x").encode() + client.call(_WORKERS),
        "http2-stream",
        _CLOSED,
    ),
    wire(
        "a promise",
        lambda client: Frame(Type.PUSH_PROMISE, END_HEADERS, 1, bytes(4)).encode() + client.call(_WORKERS),
        "http2-frame",
        _CLOSED,
    ),
    wire("a flood of settings", lambda client: write_settings({}) * 2000 + client.call(_WORKERS), "http2-flood"),
    wire(
        "a flood of resets",
        lambda client: b"".join(client.open(_WORKERS) + rst_stream(client.stream, 8) for _ in range(600)),
        "http2-flood",
        _SILENT,
        waits=1,
    ),
    wire("headers that are too long", lambda client: _with(client, x_other="x" * 12_000), "http2-headers", status("0")),
    wire(
        "a number of a field that is too long",
        lambda client: _raw(client, b"\0\0\0\0\x0b" + b"\x80" * 10 + b"\x01"),
        "buildkit-message",
        Refuses("grpc-status: 13", "protobuf looks too"),
    ),
    wire("a group", lambda client: _raw(client, b"\0\0\0\0\x02\x0b\x0c"), "buildkit-message", status("0", "13")),
    wire(
        "a field of another kind",
        lambda client: _raw(client, b"\0\0\0\0\x02" + varint(1 << 3) + b"\x01"),
        "buildkit-message",
        status("0", "13"),
    ),
    wire(
        "a field by a longer number",
        lambda client: _raw(client, b"\0\0\0\0\x05\x8a\x80\x80\x00\x00"),
        "buildkit-message",
        status("0", "13"),
    ),
    wire(
        "a message with padding",
        lambda client: client.open(_WORKERS) + Frame(Type.DATA, END_STREAM | 0x8, 1, b"\3" + bytes(8)).encode(),
        "http2-frame",
    ),
    wire("headers with padding", lambda client: _headers(client, 0x8, b"\2", bytes(2)), "http2-frame"),
    wire("headers with a priority", lambda client: _headers(client, 0x20, b"\0\0\0\0\x10"), "http2-frame"),
    wire(
        "a priority", lambda client: _frame(Type.PRIORITY, 0, 3, b"\0\0\0\0\x10") + client.call(_WORKERS), "http2-frame"
    ),
    wire(
        "a frame that is not known", lambda client: _frame(0x42, 0xFF, 9, b"x") + client.call(_WORKERS), "http2-frame"
    ),
    wire(
        "a frame that is larger than gRPC's",
        lambda client: _raw(client, with_prefix(pb((99, "x" * 20_000)))),
        "http2-frame",
    ),
    wire(
        "a setting that is not known", lambda client: write_settings({99: 1}) + client.call(_WORKERS), "http2-settings"
    ),
    wire(
        "a window that is too large",
        lambda client: write_settings({4: 1 << 31}) + client.call(_WORKERS),
        "http2-settings",
        _CLOSED,
    ),
    wire(
        "a window that grows by nothing",
        lambda client: window_update(0, 0) + client.call(_WORKERS),
        "http2-window",
        _CLOSED,
    ),
    wire(
        "a larger table of headers",
        lambda client: _frame(Type.HEADERS, END_HEADERS, 1, b"\x3f\xe1\x7f" + client.block(headers(_WORKERS))),
        "http2-headers",
        _CLOSED,
    ),
    wire("headers in many pieces", lambda client: _in_pieces(client, 12), "http2-headers"),
    wire(
        "data within a header list",
        lambda client: _frame(Type.HEADERS, 0, 1, client.block(headers(_WORKERS))) + _frame(Type.DATA, 1, 1, bytes(5)),
        "http2-headers",
        _CLOSED,
    ),
    wire(
        "a header list that goes on elsewhere",
        lambda client: _frame(Type.HEADERS, 0, 1, b"") + _frame(Type.CONTINUATION, END_HEADERS, 3, b""),
        "http2-headers",
        _CLOSED,
    ),
    wire(
        "a flood of pings",
        lambda client: _frame(Type.PING, 0, 0, bytes(8)) * 600 + client.call(_WORKERS),
        "http2-flood",
    ),
    wire(
        "a reset of no stream",
        lambda client: rst_stream(7, 8) + client.call(_WORKERS),
        "http2-stream",
        _CLOSED,
    ),
    wire(
        "headers behind the message",
        lambda client: (
            client.open(_WORKERS)
            + client.data(bytes(5), end=False)
            + _frame(Type.HEADERS, END_HEADERS | END_STREAM, 1, client.block([("x-other", "1")]))
        ),
        "http2-stream",
    ),
    wire("a header in capitals", lambda client: _more(client, ("X-Other", "1")), "http2-headers", _SILENT, waits=1),
    wire(
        "a header with a line in it", lambda client: _more(client, ("x", "a\r\nb")), "http2-headers", _SILENT, waits=1
    ),
    wire("a path twice", lambda client: _more(client, (":path", _WORKERS)), "grpc-header", _SILENT, waits=1),
    wire(
        "a protocol within", lambda client: _more(client, (":protocol", "websocket")), "grpc-header", _SILENT, waits=1
    ),
]
