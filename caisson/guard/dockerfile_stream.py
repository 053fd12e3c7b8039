"""The directory of the Dockerfile on its way to the engine over ``/session``, read as it passes. Sans I/O.

The engine asks for two directories by their names (moby/buildkit ``frontend/dockerui``, v0.8 to HEAD): ``dockerfile``,
with the Dockerfile and its own ignore file, and ``context``. It reads the Dockerfile from the first alone, unless the
frontend's attributes say otherwise, and ``buildkit_rules`` lets through none that does.

What is sent are packets of tonistiigi/fsutil (``send.go``, ``receive.go``): a STAT for each file, which is numbered in
that order; an empty STAT; for each file that the engine asks for by its number, its DATA, and an empty DATA at its end;
a FIN, without which the engine takes the whole for failed.

Rules of this module:

- Whatever the engine could take for the Dockerfile is judged before the packet that ends the file is whole: each file
  but ``<Dockerfile>.dockerignore``, and that one too once there is a link, which could stand for anything.
- FIN comes when each file that was announced has been judged. An engine that does not ask for one has it from an
  earlier build (20.10 does so, by size and time), and nobody knows what that one was.
- A packet is read by its schema. What fsutil's sender does not send (hard links, devices, a request) is denied, and
  what its receiver has no defence against (a STAT after the last) as well.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import unquote_plus

from caisson.guard.grpc import MessageReader
from caisson.guard.http2 import HeaderList
from caisson.guard.protobuf import Field, Message, ProtobufError, Schema, encode, parse
from caisson.guard.verdict import Denied

CONTEXT = "context"
DOCKERFILE = "dockerfile"

MOST_BYTES = 1 << 20
"""In all files of one call."""
MOST_FILES = 64
"""Files and directories: the Dockerfile's path, what it links to, and its ignore file."""
_LARGEST_PACKET = 64 << 10
_LONGEST_REASON = 4 << 10

# The mode is that of Go's io/fs: whatever is set in _TYPE makes it something else than a regular file.
_TYPE = 0x8F28_0000
_IS_DIRECTORY, _IS_SYMLINK = 1 << 31, 1 << 27

_STAT = Schema(
    "Stat",
    {
        1: Field("path", "text"),
        2: Field("mode", "number"),
        3: Field("uid", "number"),
        4: Field("gid", "number"),
        5: Field("size", "number"),
        6: Field("modTime", "number"),
        7: Field("linkname", "text"),
        8: Field("devmajor", "number"),
        9: Field("devminor", "number"),
        10: Field("xattrs", "bytes", key=True),
    },
)
_PACKET = Schema(
    "Packet",
    {
        1: Field("type", "number"),
        2: Field("stat", "message", _STAT),
        3: Field("ID", "number"),
        4: Field("data", "bytes"),
    },
)
_STAT_TYPE, _DATA_TYPE, _FIN_TYPE, _ERR_TYPE = 0, 2, 3, 4
# What a packet of each type can have; a sender leaves out what is zero or empty.
_HAS = {_STAT_TYPE: {"stat"}, _DATA_TYPE: {"type", "ID", "data"}, _FIN_TYPE: {"type"}, _ERR_TYPE: {"type", "data"}}

CheckDockerfile = Callable[[bytes], None]
"""Judges the Dockerfile that the engine is about to get; raises ``Denied``, and ``Unasked`` where names have to be
asked for first."""


@dataclass(frozen=True)
class Asked:
    """What the engine asks for in ``FileSync/DiffCopy``: a directory, and in it the files of these paths, and whatever
    they link to."""

    directory: str
    paths: tuple[str, ...] = ()

    @property
    def ignore_file(self) -> str:
        """The path of the Dockerfile's own ignore file; empty if it can't be told from the Dockerfile."""
        if len(self.paths) < 2 or self.paths[1] != f"{self.paths[0]}.dockerignore":
            return ""
        path, others = posixpath.normpath(self.paths[1]), (self.paths[0], *self.paths[2:])
        return "" if path in {posixpath.normpath(other) for other in others} else path


def read_asked(fields: HeaderList) -> Asked:
    """What the engine's headers ask for; raises ``Denied`` for a directory that no build needs.

    >>> read_asked(((b"dir-name", b"dockerfile"), (b"followpaths", b"a"), (b"followpaths", b"a.dockerignore")))
    Asked(directory='dockerfile', paths=('a', 'a.dockerignore'))
    """
    names = [value for name, value in fields if name == b"dir-name"]
    if names not in ([CONTEXT.encode()], [DOCKERFILE.encode()]):
        shown = b", ".join(names).decode("ascii", "replace")[:80]
        raise Denied("session-directory", f"The engine asks for the directory {shown!r}, which no build needs.")
    # Header values that are not ASCII are sent so (filesync.encodeOpts).
    encoded = (b"followpaths-encoded", b"1") in fields
    paths = [value.decode("ascii") for name, value in fields if name == b"followpaths"]
    return Asked(names[0].decode(), tuple(unquote_plus(path) if encoded else path for path in paths))


def error_packet(reason: str) -> bytes:
    """The packet by which a sender says that it failed; the engine ends the call and repeats the text."""
    data = reason.encode()[:_LONGEST_REASON].decode(errors="ignore").encode()
    return encode(Message(_PACKET, {"type": _ERR_TYPE, "data": data}))


@dataclass
class _File:
    path: str
    content: bytearray = field(default_factory=bytearray)
    ended: bool = False


class DockerfileStream:
    """The builder's side of one call for the directory ``dockerfile``; ``check`` judges each file.

    ``judged`` counts the files that it has let through.
    """

    def __init__(self, asked: Asked, check: CheckDockerfile) -> None:
        self._ignore_file = asked.ignore_file
        self._check = check
        self._messages = MessageReader(_LARGEST_PACKET)
        self._files: dict[int, _File] = {}
        self._count = self._bytes = 0
        self._linked = self._listed = self._finished = False
        self._unjudged: list[bytes] = []
        self.judged = 0

    @property
    def at_message(self) -> bool:
        """Whether all messages are whole that have begun."""
        return not len(self._messages)

    def feed(self, data: memoryview) -> None:
        """Take the next bytes of the stream; raises ``Denied`` before those that would end what is denied pass.

        After ``Unasked``, none of these bytes may pass yet: once the names were asked for, no bytes make it go on.
        """
        self._settle()
        for message in self._messages.feed(data):
            try:
                packet = parse(_PACKET, message)
            except ProtobufError as error:
                raise Denied("dockerfile-packet", f"{error}.") from error
            self._take(packet)
            self._settle()

    def _take(self, packet: Message) -> None:
        kind = packet.number("type")
        if kind not in _HAS or packet.values.keys() - _HAS[kind] or self._finished:
            raise Denied("dockerfile-packet", "A packet is none that a builder sends with the Dockerfile there.")
        if kind == _STAT_TYPE:
            self._announced(packet.message("stat"))
        elif kind == _DATA_TYPE:
            data = packet.values.get("data", b"")
            assert isinstance(data, bytes)
            self._data(packet.number("ID"), data)
        elif kind == _FIN_TYPE:
            self._finish()

    def _announced(self, stat: Message | None) -> None:
        if self._listed:
            raise Denied("dockerfile-packet", "A file is announced after the last.")
        if stat is None:
            self._listed = True
            return
        number, path, mode = self._count, stat.text("path"), stat.number("mode")
        self._count += 1
        if self._count > MOST_FILES:
            raise Denied("dockerfile-files", f"The Dockerfile comes with more than {MOST_FILES} files.")
        kind = mode & _TYPE
        if mode > 0xFFFF_FFFF or kind not in (0, _IS_DIRECTORY, _IS_SYMLINK):
            raise Denied("dockerfile-kind", f"{path[:200]!r}, which comes with the Dockerfile, is no regular file.")
        if not kind and stat.text("linkname"):
            raise Denied("dockerfile-kind", f"{path[:200]!r}, which comes with the Dockerfile, is a hard link.")
        if kind == _IS_SYMLINK:
            self._linked = True
            for file in self._files.values():
                if file.ended and file.path == self._ignore_file:
                    self._judge(file)
        elif not kind:
            self._files[number] = _File(path)

    def _data(self, number: int, data: bytes) -> None:
        file = self._files.get(number)
        if file is None or file.ended:
            raise Denied("dockerfile-packet", "Data comes for no file, or after a file's end.")
        self._bytes += len(data)
        if self._bytes > MOST_BYTES:
            raise Denied("dockerfile-size", f"The Dockerfile and its ignore file have more than {MOST_BYTES} bytes.")
        file.content += data
        if not data:
            file.ended = True
            if self._linked or file.path != self._ignore_file:
                self._judge(file)

    def _judge(self, file: _File) -> None:
        self._unjudged.append(bytes(file.content))

    def _settle(self) -> None:
        while self._unjudged:
            self._check(self._unjudged[0])
            del self._unjudged[0]
            self.judged += 1

    def _finish(self) -> None:
        self._finished = True
        if not self._listed or not all(file.ended for file in self._files.values()):
            raise Denied(
                "dockerfile-unseen", "The engine uses a Dockerfile that an earlier build has sent, and not this one."
            )
