"""HTTP/2 (RFC 9113) as frames and header lists, sans I/O: strict in what is read, plain in what is written.

Rules of this module:

- A frame that gRPC has no use for is denied: padding, priorities, pushes, unknown types, flags and settings.
- Nothing is buffered before its size is known to be within the limits.
- A header list is decoded once and, where it goes on, encoded anew without compression: its bytes never travel, so two
  decoders can't read it differently, and nothing of one side's compression state is the other's.

Raises ``Denied`` with a rule that begins with ``http2-``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from enum import IntEnum
from typing import NamedTuple

from hpack import Decoder
from hpack.exceptions import HPACKError

from caisson.guard.verdict import Denied

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
FRAME_HEAD = 9
FRAME_LIMIT = 16_384
"""Bytes in a frame: the least that everyone must take, and all that gRPC uses (RFC 9113, 4.2)."""

LARGEST_WINDOW = (1 << 31) - 1
DEFAULT_WINDOW = 65_535

HeaderList = tuple[tuple[bytes, bytes], ...]


class Type(IntEnum):
    DATA = 0
    HEADERS = 1
    PRIORITY = 2
    RST_STREAM = 3
    SETTINGS = 4
    PUSH_PROMISE = 5
    PING = 6
    GOAWAY = 7
    WINDOW_UPDATE = 8
    CONTINUATION = 9


END_STREAM = ACK = 0x1
END_HEADERS = 0x4

# What may be set. PADDED and PRIORITY are not in it: nobody needs them here, and they hide lengths.
_FLAGS = {
    Type.DATA: END_STREAM,
    Type.HEADERS: END_STREAM | END_HEADERS,
    Type.RST_STREAM: 0,
    Type.SETTINGS: ACK,
    Type.PING: ACK,
    Type.GOAWAY: 0,
    Type.WINDOW_UPDATE: 0,
    Type.CONTINUATION: END_HEADERS,
}
_OF_CONNECTION = (Type.SETTINGS, Type.PING, Type.GOAWAY)
_OF_STREAM = (Type.DATA, Type.HEADERS, Type.CONTINUATION, Type.RST_STREAM)
_SIZES = {Type.RST_STREAM: (4, 4), Type.WINDOW_UPDATE: (4, 4), Type.PING: (8, 8), Type.GOAWAY: (8, 1024)}
_MOST_SETTINGS = 16


class Setting(IntEnum):
    HEADER_TABLE_SIZE = 1
    ENABLE_PUSH = 2
    MAX_CONCURRENT_STREAMS = 3
    INITIAL_WINDOW_SIZE = 4
    MAX_FRAME_SIZE = 5
    MAX_HEADER_LIST_SIZE = 6
    ENABLE_CONNECT_PROTOCOL = 8  # RFC 8441; Go's server announces it
    NO_RFC7540_PRIORITIES = 9  # RFC 9218; Go's server announces it


class Frame(NamedTuple):
    """One frame. ``payload`` is what follows its head."""

    type: Type
    flags: int
    stream: int
    payload: bytes

    @property
    def ends_stream(self) -> bool:
        return self.type in (Type.DATA, Type.HEADERS) and bool(self.flags & END_STREAM)

    @property
    def is_ack(self) -> bool:
        return self.type in (Type.SETTINGS, Type.PING) and bool(self.flags & ACK)

    @property
    def number(self) -> int:
        """The payload of a WINDOW_UPDATE or RST_STREAM."""
        return int.from_bytes(self.payload[:4], "big")

    def encode(self) -> bytes:
        return frame_head(len(self.payload), self.type, self.flags, self.stream) + self.payload


def frame_head(length: int, kind: Type, flags: int, stream: int) -> bytes:
    """The nine bytes before a payload of that length."""
    return length.to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big")


def read_head(head: bytes) -> tuple[int, Type, int, int]:
    """Length, type, flags and stream of the frame with these nine bytes, if it is one that may be."""
    length, kind, flags = int.from_bytes(head[:3], "big"), head[3], head[4]
    stream = int.from_bytes(head[5:FRAME_HEAD], "big")
    if length > FRAME_LIMIT:
        raise Denied("http2-frame", f"A frame of {length} bytes is larger than {FRAME_LIMIT}.")
    if kind not in _FLAGS:
        raise Denied("http2-frame", f"Frames of type {kind} have no use here.")
    kind = Type(kind)
    if flags & ~_FLAGS[kind]:
        raise Denied("http2-frame", f"A {kind.name} frame has flags 0x{flags:02x}, some of which have no use here.")
    # The highest bit is reserved: with it set, a stream's number is none.
    if stream > LARGEST_WINDOW or (stream and kind in _OF_CONNECTION) or (not stream and kind in _OF_STREAM):
        raise Denied("http2-frame", f"A {kind.name} frame is on stream {stream}, where it can't be.")
    least, most = _SIZES.get(kind, (0, FRAME_LIMIT))
    if kind is Type.SETTINGS:
        most = 0 if flags & ACK else 6 * _MOST_SETTINGS
    if not least <= length <= most or (kind is Type.SETTINGS and length % 6):
        raise Denied("http2-frame", f"A {kind.name} frame can't have {length} bytes.")
    return length, kind, flags, stream


class PrefaceReader:
    """Takes the client's preface from the beginning of a stream (RFC 9113, 3.4)."""

    def __init__(self) -> None:
        self._rest = PREFACE

    def feed(self, data: bytes) -> bytes:
        """What follows the preface in ``data``."""
        if not self._rest:
            return data
        expected, self._rest = self._rest[: len(data)], self._rest[len(data) :]
        if data[: len(expected)] != expected:
            raise Denied("http2-preface", "The connection does not begin as one of HTTP/2.")
        return data[len(expected) :]


class FrameReader:
    """Bytes in any pieces → whole frames. The first has to be SETTINGS."""

    def __init__(self) -> None:
        self._held = bytearray()
        self._skip = 0
        self._begun = False

    def feed(self, data: bytes) -> Iterator[Frame]:
        """The frames that ``data`` completes, one after the other, so that each is judged before the next is read."""
        self._held += data
        # Whoever only looks on goes on after what is denied: with the frame that follows.
        at = min(self._skip, len(self._held))
        self._skip -= at
        try:
            while len(self._held) - at >= FRAME_HEAD:
                head = bytes(self._held[at : at + FRAME_HEAD])
                try:
                    length, kind, flags, stream = read_head(head)
                except Denied:
                    end = FRAME_HEAD + int.from_bytes(head[:3], "big")
                    self._skip = max(0, at + end - len(self._held))
                    at = min(at + end, len(self._held))
                    raise
                if len(self._held) - at < FRAME_HEAD + length:
                    break
                frame = Frame(kind, flags, stream, bytes(self._held[at + FRAME_HEAD : at + FRAME_HEAD + length]))
                at += FRAME_HEAD + length
                if not self._begun and (kind is not Type.SETTINGS or frame.is_ack):
                    raise Denied("http2-preface", "The first frame is not SETTINGS.")
                self._begun = True
                yield frame
        finally:
            del self._held[:at]


def window_update(stream: int, more: int) -> bytes:
    return Frame(Type.WINDOW_UPDATE, 0, stream, more.to_bytes(4, "big")).encode()


def goaway(code: int, text: str) -> bytes:
    """The last frame of a connection; Go's gRPC client prints the text."""
    return Frame(
        Type.GOAWAY, 0, 0, LARGEST_WINDOW.to_bytes(4, "big") + code.to_bytes(4, "big") + text.encode()
    ).encode()


def check_window_update(frame: Frame) -> int:
    """By how much the window grows."""
    if not 0 < frame.number <= LARGEST_WINDOW:
        raise Denied("http2-window", "A window is made larger by nothing, or by more than can be.")
    return frame.number


def read_settings(frame: Frame) -> dict[int, int]:
    """The settings of a frame; one that comes twice has its last value (RFC 9113, 6.5.3)."""
    settings: dict[int, int] = {}
    for at in range(0, len(frame.payload), 6):
        key = int.from_bytes(frame.payload[at : at + 2], "big")
        settings[key] = int.from_bytes(frame.payload[at + 2 : at + 6], "big")
    unknown = settings.keys() - set(Setting)
    if unknown:
        raise Denied("http2-settings", f"The setting {min(unknown)} is not known.")
    if settings.get(Setting.INITIAL_WINDOW_SIZE, 0) > LARGEST_WINDOW:
        raise Denied("http2-settings", "A window can't be that large.")
    return settings


def write_settings(settings: dict[int, int]) -> bytes:
    payload = b"".join(key.to_bytes(2, "big") + value.to_bytes(4, "big") for key, value in settings.items())
    return Frame(Type.SETTINGS, 0, 0, payload).encode()


def cap_settings(settings: dict[int, int], caps: dict[Setting, int]) -> dict[int, int]:
    """The settings with no value above its cap; a cap is announced though nothing was."""
    return {**settings, **{key: min(settings.get(key, most), most) for key, most in caps.items()}}


class HeaderBlock(NamedTuple):
    """A whole header list, as it was understood."""

    stream: int
    fields: HeaderList
    ends_stream: bool


_NAME = re.compile(rb":?[a-z0-9_.-]{1,128}")
_VALUE = re.compile(rb"[\x20-\x7e]*")
# Enough for a block of the largest size in full frames; more is a flood (CVE-2024-27316, CVE-2023-45288).
_MOST_CONTINUATIONS = 8


class HeaderReader:
    """HEADERS and CONTINUATION frames → header lists, within limits (bytes, before and after decompression)."""

    def __init__(self, block_limit: int, list_limit: int) -> None:
        self._limit = min(block_limit, FRAME_LIMIT * (_MOST_CONTINUATIONS + 1))
        self._decoder = Decoder(max_header_list_size=list_limit)
        self._block = bytearray()
        self._first: Frame | None = None
        self._frames = 0

    @property
    def expected_on(self) -> int:
        """The stream whose header list is not yet whole; 0 for none. Until it is, no other frame may come."""
        return self._first.stream if self._first else 0

    def add(self, frame: Frame) -> HeaderBlock | None:
        """The header list that this frame completes."""
        if (frame.type is Type.CONTINUATION) != bool(self._first):
            raise Denied("http2-headers", "A header list is cut off, or goes on without a beginning.")
        if self._first is None:
            self._first, self._frames = frame, 0
            self._block.clear()
        elif frame.stream != self._first.stream:
            raise Denied("http2-headers", "A header list goes on, on another stream.")
        self._frames += 1
        if self._frames > _MOST_CONTINUATIONS + 1 or len(self._block) + len(frame.payload) > self._limit:
            raise Denied("http2-headers", f"A header list has more than {self._limit} bytes, or too many pieces.")
        self._block += frame.payload
        if not frame.flags & END_HEADERS:
            return None
        first, self._first = self._first, None
        return HeaderBlock(first.stream, self._decode(bytes(self._block)), first.ends_stream)

    def _decode(self, block: bytes) -> HeaderList:
        try:
            fields = tuple((bytes(name), bytes(value)) for name, value in self._decoder.decode(block, raw=True))
        except HPACKError as error:
            raise Denied("http2-headers", "A header list can't be decompressed, or becomes too large.") from error
        for name, value in fields:
            if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
                raise Denied("http2-headers", "A header has a name or a value that can't be.")
        return fields


def write_headers(stream: int, fields: Iterable[tuple[bytes, bytes]], *, ends_stream: bool) -> bytes:
    """A HEADERS frame whose fields are literals that are never indexed (RFC 7541, 6.2.3).

    So it neither needs nor changes the compression state of its direction, and can stand between others' frames.
    """
    block = b"".join(b"\x10" + _string(name) + _string(value) for name, value in fields)
    assert len(block) <= FRAME_LIMIT
    return Frame(Type.HEADERS, END_HEADERS | (END_STREAM if ends_stream else 0), stream, block).encode()


def _string(text: bytes) -> bytes:
    if len(text) < 127:
        return bytes((len(text),)) + text
    length, written = len(text) - 127, bytearray((127,))
    while length > 0x7F:
        written.append(length & 0x7F | 0x80)
        length >>= 7
    written.append(length)
    return bytes(written) + text
