"""Reads a build's context (a tar) while it streams by, and finds the Dockerfile that the engine will use. Pure.

The engine unpacks with Go's ``archive/tar`` and Docker's ``pkg/archive``; both are lenient. Here only that passes which
has one reading: ustar, PAX (POSIX.1-2001) and plain GNU headers with right checksums, no sparse files and no devices.

The Dockerfile is known for certain, because what could put another in its place is denied:

- a second entry of its name, a link or directory in its place, a name with ``..``, or from the root;
- an entry below a link: the engine would write it to where the link leads;
- a compressed context, also one whose first name reads like a compression's mark.

Memory is bounded: one header, one extended header, the Dockerfile, and the names of links.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from caisson.guard.verdict import Denied

BLOCK = 512
END_OF_ARCHIVE = bytes(2 * BLOCK)
MOST_DOCKERFILE = 1 << 20
_MOST_EXTENDED = 256 << 10
_MOST_LINK_NAMES = 16 << 20
# GNU tar fills its last record of 10 KiB with zeros; other writers know larger records.
_MOST_PADDING = 1 << 20

_OCTAL = re.compile(rb"[0-7]{1,12}[ \0]*")
_PAX_LENGTH = re.compile(rb"[1-9][0-9]{0,6}")
_PAX_KEYS = frozenset(
    {"path", "linkpath", "size", "uid", "gid", "uname", "gname", "mtime", "atime", "ctime", "comment"}
)
_PAX_SIZE = re.compile(r"[0-9]{1,15}")
# As in Docker's pkg/archive: gzip, bzip2, xz, zstd; zstd's skippable frames have 16 marks of their own.
_COMPRESSED = (b"\x1f\x8b\x08", b"BZh", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd")
_SKIPPABLE = re.compile(rb"[\x50-\x5f]\x2a\x4d\x18")

_FILE, _HARD_LINK, _SYMLINK, _DIRECTORY = b"0", b"1", b"2", b"5"
_PAX, _PAX_GLOBAL, _LONG_NAME, _LONG_LINK = b"x", b"g", b"L", b"K"
_EXTENDED = (_PAX, _PAX_GLOBAL, _LONG_NAME, _LONG_LINK)

Path = tuple[bytes, ...]


@dataclass
class TarScan:
    """Feed it the tar; it gives back what may be passed on, which never includes the archive's end.

    ``finish`` checks that the archive is whole, and gives its end; ``dockerfile_text`` is what the engine will read.
    Each method raises ``Denied`` by the rules ``context`` and ``context-dockerfile``.
    """

    dockerfile: str
    most_bytes: int = 64 << 30
    _header: bytearray = field(default_factory=bytearray, init=False)
    _skip: int = field(default=0, init=False)
    _keep: int = field(default=0, init=False)
    """Bytes of the entry's data that are still to come: to pass by, of which the first ``_keep`` are looked at."""
    _padding_size: int = field(default=0, init=False)
    """How many of them are only there to fill the last block."""
    _kept: bytearray = field(default_factory=bytearray, init=False)
    _kind: bytes = field(default=b"", init=False)
    _pax: dict[str, str] | None = field(default=None, init=False)
    _gnu: dict[bytes, bytes] = field(default_factory=dict, init=False)
    _links: set[Path] = field(default_factory=set, init=False)
    _spoiled: set[Path] = field(default_factory=set, init=False)
    _link_bytes: int = field(default=0, init=False)
    _found: dict[Path, bytes] = field(default_factory=dict, init=False)
    _current: Path | None = field(default=None, init=False)
    _total: int = field(default=0, init=False)
    _zeros: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        wanted = tuple(part.encode() for part in self.dockerfile.split("/"))
        # The engine takes dockerfile where there is no Dockerfile, and only at the top.
        self._wanted: tuple[Path, ...] = (wanted, (b"dockerfile",)) if wanted == (b"Dockerfile",) else (wanted,)

    def feed(self, data: bytes | memoryview) -> list[memoryview]:
        """What may be passed on now."""
        view = memoryview(data)
        self._total += len(view)
        if self._total > self.most_bytes:
            raise Denied("context", f"The context is larger than {self.most_bytes} bytes.")
        passed: list[memoryview] = []
        while view:
            if self._zeros:
                self._padding(view)
                break
            if self._skip:
                part, view = view[: self._skip], view[self._skip :]
                self._skip -= len(part)
                if self._keep:
                    looked = part[: self._keep]
                    self._kept += looked
                    self._keep -= len(looked)
                passed.append(part)
                if not self._skip:
                    self._entry_done()
                continue
            need = BLOCK - len(self._header)
            self._header += view[:need]
            view = view[need:]
            if len(self._header) == BLOCK:
                block = bytes(self._header)
                self._header.clear()
                if block == bytes(BLOCK):
                    self._zeros = BLOCK
                else:
                    self._read_header(block)
                    passed.append(memoryview(block))
        return passed

    def finish(self) -> bytes:
        """The tar has ended; what has to follow what was passed on, so that it is a whole archive.

        The docker client sends none of the end, nor of the last file's padding, when it has put a Dockerfile from
        elsewhere into the context (docker/cli ``AddDockerfileToBuildContext``). Go's reader takes that for the end.
        """
        missing = self._skip
        if missing and missing <= self._padding_size:
            self._skip = 0
            self._entry_done()
        if self._header or self._skip or 0 < self._zeros < len(END_OF_ARCHIVE):
            raise Denied("context", "The context ends within an entry, or within the end of an archive.")
        if self._pax is not None or self._gnu:
            raise Denied("context", "The context ends with an extended header that belongs to nothing.")
        self.dockerfile_text()
        return bytes(missing) + END_OF_ARCHIVE

    def dockerfile_text(self) -> bytes:
        """The content of the Dockerfile that the engine will use."""
        for path in self._wanted:
            if path in self._spoiled:
                raise Denied("context-dockerfile", self._why_spoiled())
            text = self._found.get(path)
            if text is not None:
                return text
        raise Denied("context-dockerfile", f"The context has no file {self.dockerfile[:200]!r}.")

    def _padding(self, view: memoryview) -> None:
        self._zeros += len(view)
        # bytes.count is fast, and any() over a view is not.
        if self._zeros > len(END_OF_ARCHIVE) + _MOST_PADDING or bytes(view).count(0) != len(view):
            raise Denied("context", "Something follows the end of the context's archive.")

    def _read_header(self, block: bytes) -> None:
        if not self._kind:
            _check_not_compressed(block)
        _check_form(block)
        kind, size = block[156:157], _number(block[124:136])
        self._kind = kind
        if kind in _EXTENDED:
            if size > _MOST_EXTENDED:
                raise Denied("context", "An extended header of the context is too large.")
            if (kind == _PAX and self._pax is not None) or kind in self._gnu:
                raise Denied("context", "An entry of the context has two extended headers of one kind.")
            if kind == _PAX_GLOBAL and (self._pax is not None or self._gnu):
                # Go forgets an extended header when a global one follows it.
                raise Denied("context", "A global header of the context comes between an entry and its own.")
            self._begin(size, keep=size)
            return
        name, link, size = self._extend(block, size)
        self._pax, self._gnu = None, {}
        if kind not in (_FILE, _HARD_LINK, _SYMLINK, _DIRECTORY):
            raise Denied("context", f"The context has an entry of the kind {kind!r}: neither file, directory nor link.")
        if kind != _FILE and size:
            raise Denied("context", "The context has a directory or link with data.")
        if kind == _FILE and name.endswith(b"/"):
            raise Denied("context", "The context has a file whose name ends with a slash.")
        if kind in (_HARD_LINK, _SYMLINK) and not link:
            raise Denied("context", "The context has a link that leads nowhere.")
        if kind == _HARD_LINK:
            # Where a symlink leads is read in the build; a hard link is made by the engine as it unpacks.
            self._check_parents(_path(link))
        path = _path(name)
        self._check_place(path, kind)
        is_dockerfile = path in self._wanted
        self._current = path if is_dockerfile else None
        if is_dockerfile and size > MOST_DOCKERFILE:
            raise Denied("context-dockerfile", f"The Dockerfile is larger than {MOST_DOCKERFILE} bytes.")
        self._begin(size, keep=size if is_dockerfile else 0)

    def _begin(self, size: int, *, keep: int) -> None:
        self._kept.clear()
        self._keep = keep
        self._padding_size = -size % BLOCK
        self._skip = size + self._padding_size
        if not self._skip:
            self._entry_done()

    def _entry_done(self) -> None:
        data = bytes(self._kept)
        self._kept.clear()
        if self._kind == _PAX:
            self._pax = _read_pax(data)
        elif self._kind == _PAX_GLOBAL:
            # Go applies global records to nothing, so that whatever is in them means nothing.
            return
        elif self._kind in (_LONG_NAME, _LONG_LINK):
            text = data.removesuffix(b"\0")
            if not text or b"\0" in text:
                raise Denied("context", "A long name in the context is empty or has a NUL in it.")
            self._gnu[self._kind] = text
        elif self._current is not None:
            self._found[self._current] = data
            self._current = None

    def _extend(self, block: bytes, size: int) -> tuple[bytes, bytes, int]:
        name, link = _text(block[0:100]), _text(block[157:257])
        if prefix := (_text(block[345:500]) if block[257:263] == b"ustar\0" else b""):
            name = prefix + b"/" + name
        if self._pax and self._gnu:
            raise Denied("context", "An entry of the context has extended headers of two kinds.")
        pax = self._pax or {}
        if "path" in pax:
            name = pax["path"].encode("utf-8", "surrogateescape")
        if "linkpath" in pax:
            link = pax["linkpath"].encode("utf-8", "surrogateescape")
        if "size" in pax:
            if not _PAX_SIZE.fullmatch(pax["size"]):
                raise Denied("context", "A size in the context is not a number.")
            size = int(pax["size"])
        return self._gnu.get(_LONG_NAME, name), self._gnu.get(_LONG_LINK, link), size

    def _check_parents(self, path: Path) -> None:
        if any(path[:depth] in self._links for depth in range(1, len(path))):
            raise Denied("context", "The context has an entry below a link, or a hard link to one.")

    def _check_place(self, path: Path, kind: bytes) -> None:
        self._check_parents(path)
        if not path and kind != _DIRECTORY:
            raise Denied("context", "The context has something else in the place of its own directory.")
        for wanted in self._wanted:
            expected = _FILE if path == wanted else _DIRECTORY
            if path == wanted[: len(path)] and (kind != expected or path in self._found):
                self._spoil(wanted)
        if kind in (_SYMLINK, _HARD_LINK):
            # A hard link to a symlink is one too.
            self._link_bytes += sum(len(part) for part in path) + 64 * (len(path) + 1)
            if self._link_bytes > _MOST_LINK_NAMES:
                raise Denied("context", "The context has too many links.")
            self._links.add(path)

    def _spoil(self, wanted: Path) -> None:
        # It matters at once for the first choice; for the second, only where there is no first.
        self._spoiled.add(wanted)
        if wanted == self._wanted[0]:
            raise Denied("context-dockerfile", self._why_spoiled())

    def _why_spoiled(self) -> str:
        name = self.dockerfile[:200]
        return f"{name!r} comes twice in the context, or is or leads through a link; give one plain file."


def _check_not_compressed(block: bytes) -> None:
    if block.startswith(_COMPRESSED) or _SKIPPABLE.match(block):
        raise Denied("context", "The context is compressed, or begins as if it were; send a plain tar.")


def _check_form(block: bytes) -> None:
    magic = block[257:265]
    unsigned = sum(block[:148]) + sum(block[156:]) + 8 * 0x20
    if not _OCTAL.fullmatch(block[148:156].lstrip(b" ")) or _number(block[148:156].lstrip(b" ")) != unsigned:
        raise Denied("context", "The context is not a tar, or a header of it is damaged.")
    if magic == b"ustar\x0000":
        # The same magic with this at the end is the form of star, whose fields are elsewhere.
        is_plain = block[508:512] != b"tar\0"
    else:
        # Some readers take what is there for a prefix of the name, others for times or a map of a sparse file.
        is_plain = magic == b"ustar  \0" and not any(block[345:])
    if not is_plain:
        raise Denied("context", "The context is a tar of an old or unusual form; use ustar, PAX or GNU tar.")


def _number(field_: bytes) -> int:
    if field_[:1] == b"\x80":
        value = int.from_bytes(field_[1:], "big")
    elif not field_.strip(b" \0"):
        value = 0
    elif _OCTAL.fullmatch(field_):
        value = int(field_.rstrip(b" \0"), 8)
    else:
        raise Denied("context", "A number in the context's tar is not one.")
    if value >= 1 << 62:
        raise Denied("context", "A number in the context's tar is too large.")
    return value


def _text(field_: bytes) -> bytes:
    return field_.split(b"\0", 1)[0]


def _path(name: bytes) -> Path:
    parts = tuple(part for part in name.split(b"/") if part not in (b"", b"."))
    if name.startswith(b"/") or b".." in parts or b"\0" in name:
        raise Denied("context", "The context has a name from the root or with '..' in it.")
    if not name:
        raise Denied("context", "The context has an entry without a name.")
    return parts


def _read_pax(data: bytes) -> dict[str, str]:
    records: dict[str, str] = {}
    while data:
        length_text, space, _ = data.partition(b" ")
        if not space or not _PAX_LENGTH.fullmatch(length_text) or int(length_text) > len(data):
            raise Denied("context", "An extended header of the context is damaged.")
        record, data = data[len(length_text) + 1 : int(length_text)], data[int(length_text) :]
        key_bytes, equals, value = record.removesuffix(b"\n").partition(b"=")
        key = key_bytes.decode("utf-8", "replace")
        if not equals or not record.endswith(b"\n") or key in records:
            raise Denied("context", "An extended header of the context is damaged, or says one thing twice.")
        if key not in _PAX_KEYS and not key.startswith("SCHILY.xattr."):
            raise Denied("context", f"The context has an extended header {key[:80]!r}, which is not known.")
        if key in ("path", "linkpath", "size") and (not value or b"\0" in value):
            raise Denied("context", "A name in the context is empty or has a NUL in it.")
        records[key] = value.decode("utf-8", "surrogateescape")
    return records
