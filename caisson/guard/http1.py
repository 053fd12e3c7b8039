"""HTTP/1.1 without I/O: a strict reader of heads and bodies, and the writer of new ones.

Stricter than RFC 9112 wherever two readers can disagree (request smuggling): no bare LF or CR, no folded line, no
header twice, no Content-Length beside Transfer-Encoding, no coding but ``chunked``, no chunk extension and no trailer.
What the Docker clients send passes. Bytes after the end of a message are given back, never read as part of it.
"""

from __future__ import annotations

import http
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

Headers = tuple[tuple[str, str], ...]


class Malformed(Exception):
    """What was received is no HTTP message of the strict kind; the text is a sentence for the client."""


@dataclass(frozen=True)
class Framing:
    """How long a body is: ``length`` bytes, chunked, or until the connection's end (answers only)."""

    kind: Literal["length", "chunked", "close"]
    length: int = 0


NO_BODY = Framing("length", 0)
CHUNKED = Framing("chunked")

# Docker's clients name each gRPC method of a session in a header of its own.
REPEATABLE = frozenset({"x-docker-expose-session-grpc-method"})

_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, section 5.6.2
_REQUEST_LINE = re.compile(rb"([A-Z]{1,16}) ([\x21-\x7e]+) HTTP/1\.1")
_STATUS_LINE = re.compile(rb"HTTP/1\.1 ([1-5][0-9]{2})(?: [\t\x20-\x7e]*)?")
_VALUE = re.compile(rb"[\t\x20-\x7e]*")
_LENGTH = re.compile(r"[0-9]{1,15}")
_CHUNK_SIZE = re.compile(rb"[0-9A-Fa-f]{1,8}")
_LONGEST_CHUNK_LINE = 10


@dataclass(frozen=True)
class Head:
    """What a request's and an answer's head have in common. Names of headers are in lower case."""

    headers: Headers

    def get(self, name: str) -> str | None:
        """A header's value; None where it was not sent."""
        return next((value for key, value in self.headers if key == name), None)

    def all(self, name: str) -> tuple[str, ...]:
        """The values of a header that may be repeated."""
        return tuple(value for key, value in self.headers if key == name)

    @property
    def keeps_alive(self) -> bool:
        """Whether the connection may be used again after it."""
        return (self.get("connection") or "").lower() != "close"


@dataclass(frozen=True)
class RequestHead(Head):
    """A request's head; ``framing`` is that of the body that follows."""

    method: str
    target: str
    framing: Framing = NO_BODY


@dataclass(frozen=True)
class AnswerHead(Head):
    """An answer's head."""

    status: int

    def framing(self, method: str) -> Framing:
        """Of the body that follows the answer to a request of that method."""
        if method == "HEAD" or self.status in (101, 204, 304):
            return NO_BODY
        return _framing(self.headers, otherwise=Framing("close"))


class HeadReader:
    """Collects bytes until a head is whole; raises ``Malformed`` for one that is longer than ``limit`` bytes."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._buffer = bytearray()

    @property
    def started(self) -> bool:
        return bool(self._buffer)

    def feed(self, data: bytes) -> tuple[bytes, bytes] | None:
        """The head without its end, and what came after it; None while it is not whole."""
        searched = max(0, len(self._buffer) - 3)
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n", searched)
        # Three bytes more may be the beginning of its end.
        if end > self._limit or (end < 0 and len(self._buffer) > self._limit + 3):
            raise Malformed(f"The head of the request is longer than {self._limit} bytes.")
        if end < 0:
            return None
        return bytes(self._buffer[:end]), bytes(self._buffer[end + 4 :])


def parse_request(head: bytes, *, most_headers: int = 64) -> RequestHead:
    """Read a request's head, without the empty line at its end; raises ``Malformed``."""
    first, headers = _split(head, most_headers)
    match = _REQUEST_LINE.fullmatch(first)
    if match is None:
        raise Malformed("The first line of the request is not METHOD TARGET HTTP/1.1.")
    if not any(name == "host" for name, _ in headers):
        raise Malformed("The request has no Host header.")
    framing = _framing(headers, otherwise=NO_BODY)
    return RequestHead(headers, match[1].decode(), match[2].decode(), framing)


def parse_answer(head: bytes, *, most_headers: int = 64) -> AnswerHead:
    """Read an answer's head likewise."""
    first, headers = _split(head, most_headers)
    match = _STATUS_LINE.fullmatch(first)
    if match is None:
        raise Malformed("The first line of the answer is not HTTP/1.1 STATUS.")
    return AnswerHead(headers, int(match[1]))


def _split(head: bytes, most_headers: int) -> tuple[bytes, Headers]:
    first, *lines = head.split(b"\r\n")
    if len(lines) > most_headers:
        raise Malformed(f"The request has more than {most_headers} headers.")
    headers = []
    seen: set[str] = set()
    for line in lines:
        key, colon, value = line.partition(b":")
        # A bare CR or LF is neither in a token nor in a value, and a folded line does not begin with a token.
        if not colon or not _TOKEN.fullmatch(key) or not _VALUE.fullmatch(value):
            raise Malformed("A header of the request is not NAME: VALUE.")
        name = key.decode().lower()
        if name in seen and name not in REPEATABLE:
            raise Malformed(f"The header {name[:80]} is sent twice.")
        seen.add(name)
        headers.append((name, value.strip(b" \t").decode()))
    return first, tuple(headers)


def _framing(headers: Headers, *, otherwise: Framing) -> Framing:
    by_name = dict(headers)
    length, coding = by_name.get("content-length"), by_name.get("transfer-encoding")
    if length is not None and coding is not None:
        raise Malformed("Content-Length and Transfer-Encoding are both sent.")
    if coding is not None:
        if coding.lower() != "chunked":
            raise Malformed("Transfer-Encoding is not chunked.")
        return CHUNKED
    if length is None:
        return otherwise
    if not _LENGTH.fullmatch(length):
        raise Malformed("Content-Length is not a number.")
    return Framing("length", int(length))


@dataclass
class BodyReader:
    """Reads one body: ``feed`` gives its bytes without the framing; ``rest`` is what came after its end."""

    framing: Framing
    done: bool = field(default=False, init=False)
    rest: bytes = field(default=b"", init=False)
    _left: int = field(default=0, init=False)
    """Bytes of the body or chunk that are still to come."""
    _line: bytearray = field(default_factory=bytearray, init=False)
    """A chunk's line, or the line end after a chunk, that is not whole yet."""
    _state: Literal["data", "size", "data-end", "last"] = field(default="data", init=False)

    def __post_init__(self) -> None:
        self._left = self.framing.length
        if self.framing.kind == "chunked":
            self._state = "size"
        self.done = self.framing == NO_BODY

    def feed(self, data: bytes) -> list[memoryview]:
        """The parts of the body in these bytes; raises ``Malformed``."""
        view = memoryview(data)
        if self.done:
            self.rest += data
            return []
        if self.framing.kind == "close":
            return [view] if data else []
        return self._feed_length(view) if self.framing.kind == "length" else self._feed_chunks(view)

    def end(self) -> None:
        """The connection has ended; raises ``Malformed`` unless the body has too."""
        if self.framing.kind == "close":
            self.done = True
        if not self.done:
            raise Malformed("The connection ended within a body.")

    def _feed_length(self, view: memoryview) -> list[memoryview]:
        part, rest = view[: self._left], view[self._left :]
        self._left -= len(part)
        if self._left == 0:
            self._finish(rest)
        return [part] if part else []

    def _finish(self, rest: memoryview) -> None:
        self.done, self.rest = True, bytes(rest)

    def _feed_chunks(self, view: memoryview) -> list[memoryview]:
        parts: list[memoryview] = []
        while view and not self.done:
            if self._state == "data":
                part, view = view[: self._left], view[self._left :]
                parts.append(part)
                self._left -= len(part)
                if self._left == 0:
                    self._state = "data-end"
                continue
            line, view = self._take_line(view)
            if line is not None:
                self._after_line(line)
        if self.done:
            self._finish(view)
        return parts

    def _take_line(self, view: memoryview) -> tuple[bytes | None, memoryview]:
        most = _LONGEST_CHUNK_LINE if self._state == "size" else 2
        start = bytes(view[: most - len(self._line)])
        end = start.find(b"\n")
        taken = start if end < 0 else start[: end + 1]
        self._line += taken
        view = view[len(taken) :]
        if end < 0:
            if len(self._line) >= most:
                raise Malformed("A chunk does not begin with its size alone, or does not end with its line.")
            return None, view
        line = bytes(self._line)
        self._line.clear()
        if not line.endswith(b"\r\n"):
            raise Malformed("A chunk's line does not end with CR LF.")
        return line[:-2], view

    def _after_line(self, line: bytes) -> None:
        if self._state == "size":
            if not _CHUNK_SIZE.fullmatch(line):
                raise Malformed("A chunk's size is not a hexadecimal number alone.")
            self._left = int(line, 16)
            self._state = "data" if self._left else "last"
        elif line:
            raise Malformed("A chunk is longer than its size, or a trailer follows the body.")
        elif self._state == "last":
            self.done = True
        else:
            self._state = "size"


def write_request(method: str, target: str, headers: Iterable[tuple[str, str]]) -> bytes:
    """A request's head. Everything in it is the caller's own; raises ``ValueError`` for what would break a line."""
    return _write(f"{method} {target} HTTP/1.1", headers)


def write_answer(status: int, headers: Iterable[tuple[str, str]]) -> bytes:
    """An answer's head likewise."""
    return _write(f"HTTP/1.1 {status} {http.HTTPStatus(status).phrase}", headers)


def _write(first: str, headers: Iterable[tuple[str, str]]) -> bytes:
    lines = [first, *(f"{name}: {value}" for name, value in headers)]
    text = "\r\n".join(lines)
    if not text.isascii() or any(not line or not line.replace("\t", " ").isprintable() for line in lines):
        raise ValueError("a head of a message can't have such a character in it")
    return f"{text}\r\n\r\n".encode()


LAST_CHUNK = b"0\r\n\r\n"


def chunk(parts: list[memoryview]) -> bytes:
    """One chunk with all the parts; nothing where there is nothing, since an empty chunk ends a body."""
    size = sum(len(part) for part in parts)
    return b"".join([b"%x\r\n" % size, *parts, b"\r\n"]) if size else b""
