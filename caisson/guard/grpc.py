"""gRPC over HTTP/2 (grpc.io, ``PROTOCOL-HTTP2.md``): what a call's headers say, its messages, and how one is refused.

Rules of this module:

- A call's headers are read into a ``Call``; those that the guard writes to the daemon come from that, and nothing else.
- A message is not compressed (there is nothing to judge in what can't be read), and its size is known to be within
  the limit before its bytes are waited for.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import quote

from caisson.guard.http2 import HeaderList, write_headers
from caisson.guard.verdict import Denied

PREFIX = 5
"""Bytes before a message: whether it is compressed, and its length."""

PERMISSION_DENIED = 7
UNIMPLEMENTED = 12

_LONGEST_REASON = 1_000

BUILD_ID = "buildkit-controlapi-buildid"

_PATH = re.compile(r"(?:/[A-Za-z0-9_.]{1,128}){2}")
# Each header that a client sends, and what it has to be. Those that mean something to the daemon go on; the others
# (a trace's identity, the client's name, an answer's compression) are left out.
_HEADERS = {
    ":method": re.compile("POST"),
    ":scheme": re.compile("http"),
    ":path": _PATH,
    ":authority": re.compile(".{0,256}"),
    "content-type": re.compile(r"application/grpc(?:\+proto)?"),
    "te": re.compile("trailers"),
    "user-agent": re.compile(".{0,256}"),
    "grpc-timeout": re.compile("[0-9]{1,8}[HMSmun]"),
    "grpc-accept-encoding": re.compile("[a-z0-9, -]{0,128}"),
    "traceparent": re.compile("[0-9a-f-]{55}"),
    "tracestate": re.compile(".{0,512}"),
    BUILD_ID: re.compile("[0-9a-z]{1,64}"),
}
_NEEDED = frozenset({":method", ":scheme", ":path", "content-type", "te"})


@dataclass(frozen=True)
class Call:
    """A call, as its headers say. ``path`` is the method; ``build_id`` names the build that it belongs to."""

    path: str
    timeout: str = ""
    build_id: str = ""

    def headers(self) -> tuple[tuple[bytes, bytes], ...]:
        """The headers that the guard writes for this call."""
        fields = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", self.path),
            (":authority", "localhost"),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
            ("user-agent", "caisson-guard"),
            ("grpc-timeout", self.timeout),
            (BUILD_ID, self.build_id),
        ]
        return tuple((name.encode(), value.encode()) for name, value in fields if value)


def read_call(fields: HeaderList) -> Call:
    """The call of these headers. Raises ``Denied`` for one that is unknown, comes twice, is missing or has a value
    that it can't have."""
    values: dict[str, str] = {}
    for raw_name, raw_value in fields:
        name, value = raw_name.decode("ascii"), raw_value.decode("ascii")
        if name not in _HEADERS:
            raise Denied("grpc-header", f"The header {name} has no use here.")
        if name in values or not _HEADERS[name].fullmatch(value):
            raise Denied("grpc-header", f"The header {name} comes twice, or has a value that it can't have.")
        if name.startswith(":") and any(not other.startswith(":") for other in values):
            raise Denied("grpc-header", f"The header {name} comes after others.")
        values[name] = value
    if missing := _NEEDED - values.keys():
        raise Denied("grpc-header", f"The header {min(missing)} is missing.")
    return Call(values[":path"], values.get("grpc-timeout", ""), values.get(BUILD_ID, ""))


def message_size(begun: bytes | bytearray, limit: int) -> int | None:
    """The size of the message that begins so; None while its prefix is not whole. Raises ``Denied`` for one that is
    compressed, or larger than ``limit``."""
    if begun and begun[0]:
        raise Denied("grpc-message", "A message is compressed, or begins as none does.")
    if len(begun) < PREFIX:
        return None
    size = int.from_bytes(begun[1:PREFIX], "big")
    if size > limit:
        raise Denied("grpc-message", f"A message of {size} bytes is larger than {limit}.")
    return size


class RequestReader:
    """The one message of a unary request, in any pieces; ``limit`` is its largest size in bytes."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held = bytearray()

    def __len__(self) -> int:
        return len(self._held)

    def feed(self, data: bytes) -> None:
        self._held += data
        size = message_size(self._held, self._limit)
        if size is not None and len(self._held) > PREFIX + size:
            raise Denied("grpc-message", "A request has more than one message.")

    def finish(self) -> bytes:
        """The message: the client has ended its side."""
        if len(self._held) < PREFIX or len(self._held) != PREFIX + int.from_bytes(self._held[1:PREFIX], "big"):
            raise Denied("grpc-message", "A request ends without a whole message.")
        return bytes(self._held[PREFIX:])


class MessageSizes:
    """Follows the messages of one direction of a stream by their prefixes, without keeping their bytes."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._prefix = b""
        self._left = 0

    def feed(self, data: memoryview) -> None:
        at = 0
        while at < len(data):
            if self._left:
                step = min(self._left, len(data) - at)
                self._left -= step
                at += step
                continue
            taken = bytes(data[at : at + PREFIX - len(self._prefix)])
            self._prefix += taken
            at += len(taken)
            if (size := message_size(self._prefix, self._limit)) is not None:
                self._left, self._prefix = size, b""


class MessageReader:
    """The messages of one direction of a stream, in any pieces; ``limit`` is the largest size in bytes."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held = bytearray()

    def __len__(self) -> int:
        """How many bytes wait for the rest of their message."""
        return len(self._held)

    def feed(self, data: bytes | memoryview) -> Iterator[bytes]:
        """The messages that ``data`` completes, one after the other, so that each is judged before the next is read."""
        self._held += data
        while (size := message_size(self._held, self._limit)) is not None:
            if len(self._held) < PREFIX + size:
                return
            message = bytes(self._held[PREFIX : PREFIX + size])
            del self._held[: PREFIX + size]
            yield message


def with_prefix(message: bytes) -> bytes:
    return b"\x00" + len(message).to_bytes(4, "big") + message


def refusal(stream: int, status: int, reason: str, *, begun: bool = False) -> bytes:
    """The end of a call that is refused, which clients print as an error; ``begun`` says that its answer has begun.

    Else it is the whole answer: gRPC's *Trailers-Only*.
    """
    head = () if begun else ((b":status", b"200"), (b"content-type", b"application/grpc"))
    message = quote(reason[:_LONGEST_REASON], safe=" !\"#$&'()*+,/:;<=>?@[\\]^`{|}")
    fields = (*head, (b"grpc-status", str(status).encode()), (b"grpc-message", message.encode()))
    return write_headers(stream, fields, ends_stream=True)
