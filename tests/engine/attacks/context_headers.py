"""A context whose tar says one thing twice: by a header and an extended one, by a size and a kind, by two names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from tests.engine.attacks.build_query import built
from tests.engine.attacks.case import Attack, Effect, Http, Refuses, says
from tests.engine.attacks.lab import Case

_LABEL = "LABEL caisson.attack=<lab> case=<fresh>\n"
_GOOD = f"FROM scratch\nCOPY good /\n{_LABEL}"
_HIDDEN = f"FROM scratch\nCOPY good /\nLABEL hidden=<fresh>\n{_LABEL}"
_chosen = says("LABEL hidden=", "Successfully built")
_X_TAR = {"Content-Type": "application/x-tar"}
_BLOCK = 512

_WHY = "its reader takes it for no header"
_NO_HEADER = (Refuses("invalid tar header", _WHY), {"20.10": Refuses("unexpected EOF", _WHY)})

Content = Callable[[Case], bytes]


def entry(
    name: bytes,
    data: bytes = b"",
    *,
    kind: bytes = b"0",
    size: int | bytes | None = None,
    link: bytes = b"",
    prefix: bytes = b"",
) -> bytes:
    """A header in the form of ustar and its data, filled up; ``size`` is what the header says of the data."""
    header = bytearray(_BLOCK)
    said = len(data) if size is None else size
    for at, value in (
        (0, name), (100, b"0000644\0"), (108, b"0000000\0"), (116, b"0000000\0"),
        (124, said if isinstance(said, bytes) else b"%011o\0" % said), (136, b"00000000000\0"), (148, b" " * 8),
        (156, kind), (157, link), (257, b"ustar\x0000"), (345, prefix),
    ):  # fmt: skip
        header[at : at + len(value)] = value
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + data + bytes(-len(data) % _BLOCK)


def extended(*records: tuple[str, str], kind: bytes = b"x", name: bytes = b"extended") -> bytes:
    """An extended header of such records (POSIX.1-2001, pax)."""
    lines = b""
    for key, value in records:
        rest = f" {key}={value}\n".encode()
        length = len(rest) + 1
        while len(str(length)) + len(rest) != length:
            length += 1
        lines += str(length).encode() + rest
    return entry(name, lines, kind=kind)


def good(case: Case) -> bytes:
    """What each of them has: a file, and the Dockerfile that is to be judged."""
    return entry(b"good", b"x") + entry(b"Dockerfile", case.fill_text(_GOOD).encode())


def hidden(case: Case, name: bytes = b"Dockerfile", **more: bytes) -> bytes:
    """The other one."""
    return entry(name, case.fill_text(_HIDDEN).encode(), **more)


def of(
    name: str,
    more: Content,
    rule: str,
    works: Effect | Refuses = _chosen,
    works_on: Mapping[str, Effect | Refuses] = MappingProxyType({}),
) -> Attack:
    """A build of what each has, and of that behind it."""

    def content(case: Case) -> bytes:
        return good(case) + more(case) + bytes(2 * _BLOCK)

    return Attack(name, Http("POST", "/build?t=<own>", content, _X_TAR), rule, works, works_on, reaches=True)


ATTACKS = [
    of("a second Dockerfile by a prefix", lambda case: hidden(case, prefix=b"."), "context-dockerfile"),
    of("a second one whose name has a NUL in it", lambda case: hidden(case, b"Dockerfile\0x"), "context-dockerfile"),
    of(
        "a second one in a file that is said to be empty",
        lambda case: extended(("size", "0")) + entry(b"file", hidden(case), size=len(hidden(case))),
        "context-dockerfile",
    ),
    of("a second one in a link's data", lambda case: entry(b"file", hidden(case), kind=b"2", link=b"good"), "context"),
    of("a second one in a directory's data", lambda case: entry(b"file", hidden(case), kind=b"5"), "context"),
    of(
        "two names in one extended header",
        lambda case: extended(("path", "harmless"), ("path", "Dockerfile")) + hidden(case, b"harmless"),
        "context",
    ),
    of(
        "two extended headers",
        lambda case: extended(("path", "harmless")) + extended(("path", "Dockerfile")) + hidden(case, b"harmless"),
        "context",
    ),
    of(
        "two kinds of long names",
        lambda case: (
            extended(("path", "harmless")) + entry(b"long", b"Dockerfile\0", kind=b"L") + hidden(case, b"harmless")
        ),
        "context",
    ),
    of(
        "two long names",
        lambda case: (
            entry(b"long", b"harmless\0", kind=b"L")
            + entry(b"long", b"Dockerfile\0", kind=b"L")
            + hidden(case, b"harmless")
        ),
        "context",
    ),
    of(
        "a global header between an entry and its own",
        lambda case: extended(("path", "x")) + extended(("comment", "x"), kind=b"g") + hidden(case, b"harmless"),
        "context",
        built,
    ),
    of(
        "an extended header that belongs to nothing",
        lambda case: extended(("path", "x")),
        "context",
        built,
    ),
    of(
        "a size below zero",
        lambda case: entry(b"file", size=b"\xff" * 12),
        "context",
        *_NO_HEADER,
    ),
    of(
        "a size that is none, in an extended header",
        lambda case: extended(("size", "-1")) + entry(b"file"),
        "context",
        *_NO_HEADER,
    ),
    of("a coding of names", lambda case: extended(("hdrcharset", "BINARY")) + entry(b"file"), "context", built),
    of(
        "one archive in another's padding",
        lambda case: bytes(_BLOCK) + hidden(case),
        "context",
        *_NO_HEADER,
    ),
]

PASSED: dict[str, Content] = {
    "one in a file's data, by a larger size": lambda case: (
        extended(("size", str(len(hidden(case))))) + entry(b"file", hidden(case), size=0)
    ),
    "a global header of its name": lambda case: (
        hidden(case, b"dockerfile") + extended(("comment", "x"), kind=b"g", name=b"Dockerfile")
    ),
    "a global header that gives names": lambda case: (
        extended(("path", "Dockerfile"), kind=b"g") + hidden(case, b"harmless")
    ),
    "an extended header of its name": lambda case: (
        hidden(case, b"dockerfile") + extended(("path", "x"), name=b"Dockerfile") + entry(b"file")
    ),
}
"""What stands behind the Dockerfile in contexts that the guard lets through."""


def passed(case: Case, more: Content) -> bytes:
    """A build of one of them."""
    content = good(case) + more(case) + bytes(2 * _BLOCK)
    return Http("POST", "/build?t=<own>", lambda case: content, _X_TAR).encode(case)
