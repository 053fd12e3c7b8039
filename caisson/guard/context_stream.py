"""The context on its way to the engine over ``/session``: only the heads of fsutil's packets are read. Sans I/O.

The engine's receiver (tonistiigi/fsutil ``receive.go``) trusts the order of what it gets: a file that is announced
after the last one is written to a channel that it has closed, and with that its whole process ends. So each packet is
one that a sender writes, and nothing is announced after the last file. What is in a file passes unread.
"""

from __future__ import annotations

from caisson.guard.grpc import PREFIX, message_size
from caisson.guard.verdict import Denied

# The longest head: type, the ID's number and data's length, each number in five bytes at most.
_HEAD = 2 + 1 + 5 + 1 + 5
_STAT, _TYPE, _ID, _DATA = 0x12, 0x08, 0x18, 0x22
_DATA_TYPE, _FIN_TYPE, _ERR_TYPE = 2, 3, 4


class ContextStream:
    """The builder's side of one call for the directory ``context``; ``limit`` is a packet's largest size in bytes."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._begun = b""
        self._left = 0
        self._listed = False

    def feed(self, data: memoryview) -> None:
        """Take the next bytes of the stream; raises ``Denied`` before a packet's head passes that can't be."""
        at = 0
        while at < len(data):
            if self._left:
                step = min(self._left, len(data) - at)
                self._left -= step
                at += step
                continue
            known = self._begun + data[at : at + PREFIX + _HEAD - len(self._begun)]
            size = message_size(known, self._limit)
            if size is None or len(known) < (head := PREFIX + min(size, _HEAD)):
                self._begun = known
                return
            self._check(known[PREFIX:head], size)
            self._left = size - (head - PREFIX)
            at += head - len(self._begun)
            self._begun = b""

    def _check(self, head: bytes, size: int) -> None:
        if not size or head[0] == _STAT:
            if self._listed:
                raise Denied("context-packet", "A file is announced after the last.")
            self._listed = not size
            at = _after(head, 0, size)
        elif head[0] == _TYPE and size > 1 and head[1] in (_DATA_TYPE, _FIN_TYPE, _ERR_TYPE):
            at = 2
            if head[1] == _DATA_TYPE and head[at : at + 1] == bytes((_ID,)):
                _, at = _varint(head, at + 1)
            if head[1] != _FIN_TYPE and head[at : at + 1] == bytes((_DATA,)):
                at = _after(head, at, size)
        else:
            at = -1
        if at != size:
            raise Denied("context-packet", "A packet is none that a builder sends with the context.")


def _after(head: bytes, at: int, size: int) -> int:
    """Where the field ends that begins there and has a length; the packet's end if there is none."""
    if not size:
        return 0
    length, at = _varint(head, at + 1)
    return at + length


def _varint(head: bytes, at: int) -> tuple[int, int]:
    value = 0
    for index, byte in enumerate(head[at : at + 5]):
        value |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            return value, at + index + 1
    raise Denied("context-packet", "A number in a packet ends nowhere.")
