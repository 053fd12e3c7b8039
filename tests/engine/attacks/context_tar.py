"""A context of which guard and engine could read different Dockerfiles, and Dockerfiles that ask for too much."""

from __future__ import annotations

import bz2
import gzip
import io
import tarfile
from collections.abc import Callable

from tests.engine.attacks.build_query import built
from tests.engine.attacks.case import Attack, Effect, Http, Refuses, fetched, says
from tests.engine.attacks.lab import Answer, Case

_LABEL = "LABEL caisson.attack=<lab> case=<fresh>\n"
_GOOD = f"FROM scratch\nCOPY good /\n{_LABEL}"
_HIDDEN = f"FROM scratch\nCOPY good /\nLABEL hidden=<fresh>\n{_LABEL}"
_chosen = says("LABEL hidden=", "Successfully built")
_GOOD_FILE = ("good", "x")
_X_TAR = {"Content-Type": "application/x-tar"}

Entry = tuple[str, str] | tuple[str, str, bytes] | tuple[str, str, bytes, str]
"""Name, content, kind and where a link leads."""


def context(
    case: Case, entries: list[Entry], pax: dict[str, str] | None = None, kind: int = tarfile.PAX_FORMAT
) -> bytes:
    """A tar of these entries; ``pax`` is an extended header of the last one."""
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w", format=kind) as archive:
        for number, entry in enumerate(entries):
            name, text, *more = entry
            info = tarfile.TarInfo(case.fill_text(name))
            info.type = more[0] if more else tarfile.REGTYPE  # type: ignore[assignment]
            info.linkname = str(more[1]) if len(more) > 1 else ""
            data = case.fill_text(text).encode()
            info.size = len(data)
            if pax and number == len(entries) - 1:
                info.pax_headers = pax
            archive.addfile(info, io.BytesIO(data) if data else None)
    return written.getvalue()


def of(
    name: str,
    *entries: Entry,
    rule: str = "context-dockerfile",
    works: Effect | Refuses = _chosen,
    asked: str = "",
    change: Callable[[bytes], bytes] = bytes,
    pax: dict[str, str] | None = None,
    kind: int = tarfile.PAX_FORMAT,
    **more: object,
) -> Attack:
    """A build of these entries; ``change`` does something to the bytes."""

    def content(case: Case) -> bytes:
        return change(context(case, [_GOOD_FILE, *entries], pax, kind))

    more.setdefault("reaches", True)
    return Attack(name, Http("POST", f"/build?t=<own>{asked}", content, _X_TAR), rule, works, **more)  # type: ignore[arg-type]


def _header(data: bytes, index: int, offset: int, value: bytes) -> bytes:
    """Change a header, and make its sum right again."""
    changed = bytearray(data)
    start = index * 512
    changed[start + offset : start + offset + len(value)] = value
    changed[start + 148 : start + 156] = b" " * 8
    changed[start + 148 : start + 156] = b"%06o\0 " % sum(changed[start : start + 512])
    return bytes(changed)


D = "Dockerfile"
SECOND = [
    of("a second Dockerfile", (D, _GOOD), (D, _HIDDEN)),
    of("a second one by a dot", (D, _GOOD), ("./Dockerfile", _HIDDEN)),
    of("a second one by slashes", (D, _GOOD), (".//./Dockerfile", _HIDDEN)),
    of("a second one by two dots", (D, _GOOD), ("a/../Dockerfile", _HIDDEN), rule="context"),
    of("a second one from the root", (D, _GOOD), ("/Dockerfile", _HIDDEN), rule="context"),
    of("a symbolic link over it", (D, _GOOD), ("other", _HIDDEN), (D, "", tarfile.SYMTYPE, "other")),
    of("a symbolic link in its place", ("other", _HIDDEN), (D, "", tarfile.SYMTYPE, "other")),
    of("a hard link over it", (D, _GOOD), ("other", _HIDDEN), (D, "", tarfile.LNKTYPE, "other")),
    of("a hard link in its place", ("other", _HIDDEN), (D, "", tarfile.LNKTYPE, "other")),
    of(
        "a symbolic link to the host's file",
        (D, "", tarfile.SYMTYPE, "/etc/passwd"),
        works=Refuses("Cannot locate specified Dockerfile", "it is not there for the engine"),
    ),
    of(
        "a second one through a link",
        (D, _GOOD),
        ("here", "", tarfile.SYMTYPE, "."),
        ("here/Dockerfile", _HIDDEN),
        rule="context",
    ),
    of(
        "a directory in its place",
        (D, "", tarfile.DIRTYPE),
        works=Refuses("is a directory", "the engine can't read it"),
    ),
    of("a directory over it, and then another", (D, _GOOD), (D, "", tarfile.DIRTYPE), (D, _HIDDEN)),
    of(
        "none",
        ("other", _HIDDEN),
        works=Refuses("HTTP/1.1 500", "there is no Dockerfile"),
        works_on={"26.1": Refuses("Dockerfile", "there is none")},
    ),
    of(
        "another by its name, through a link",
        ("real/x", _GOOD),
        ("real", "", tarfile.SYMTYPE, "elsewhere"),
        ("elsewhere/x", _HIDDEN),
        asked="&dockerfile=real/x",
    ),
    of(
        "below a link", ("elsewhere/x", _HIDDEN), ("real", "", tarfile.SYMTYPE, "elsewhere"), asked="&dockerfile=real/x"
    ),
    of("a small dockerfile that is a link", ("other", _HIDDEN), ("dockerfile", "", tarfile.SYMTYPE, "other")),
    of("a second one by an extended header", (D, _GOOD), ("harmless", _HIDDEN), pax={"path": D}),
    of(
        "a second one by a global header and its own",
        (D, _GOOD),
        ("harmless", _HIDDEN),
        pax={"GNU.sparse.name": D, "GNU.sparse.major": "1", "GNU.sparse.minor": "0"},
        rule="context",
        works=Refuses("unexpected EOF", "it is no whole archive"),
    ),
    of("a longer name than fits", (D, _GOOD), ("./" * 80 + D, _HIDDEN), kind=tarfile.GNU_FORMAT),
]

FORMS = [
    of("compressed by gzip", (D, _HIDDEN), rule="context", change=gzip.compress),
    of("compressed by bzip2", (D, _HIDDEN), rule="context", change=bz2.compress),
    of("a device", (D, _HIDDEN), ("null", "", tarfile.CHRTYPE), rule="context"),
    of("a block device", (D, _HIDDEN), ("disk", "", tarfile.BLKTYPE), rule="context"),
    of("a pipe", (D, _HIDDEN), ("pipe", "", tarfile.FIFOTYPE), rule="context"),
    of("a name with two dots", (D, _HIDDEN), ("../../planted", "x"), rule="context", works=says("Successfully built")),
    of(
        "an entry through a link to the host",
        (D, _HIDDEN),
        ("out", "", tarfile.SYMTYPE, "/"),
        ("out/<fresh>", "x"),
        rule="context",
        works=says("Successfully built"),
    ),
    of(
        "a hard link to the host",
        (D, _HIDDEN),
        ("out", "", tarfile.LNKTYPE, "/etc/passwd"),
        rule="context",
        works=Refuses("no such file or directory", "a link's source is below the context"),
    ),
    of(
        "a hard link to above",
        (D, _HIDDEN),
        ("out", "", tarfile.LNKTYPE, "../../etc/passwd"),
        rule="context",
        works=Refuses("500", "a link's source is below the context"),
    ),
    of(
        "a hard link through a link to the host",
        (D, _HIDDEN),
        ("out", "", tarfile.SYMTYPE, "/etc"),
        ("x", "", tarfile.LNKTYPE, "out/passwd"),
        rule="context",
        works=Refuses("no such file or directory", "the engine unpacks where the context is all that there is"),
    ),
    of("an old kind of file", (D, _HIDDEN), ("x", "x", tarfile.AREGTYPE), rule="context"),
    of(
        "a kind that is not known",
        (D, _HIDDEN),
        ("x", "x", b"Z"),
        rule="context",
        works=Refuses("unhandled tar header type", "the engine unpacks what it knows"),
    ),
    of(
        "a wrong sum",
        (D, _HIDDEN),
        rule="context",
        change=lambda data: b"X" + data[1:],
        works=Refuses("invalid tar header", "its reader looks too"),
    ),
    of(
        "another end",
        (D, _HIDDEN),
        rule="context",
        change=lambda data: data.rstrip(b"\0") + bytes(512),
        works=Refuses("unexpected EOF", "the sum of the data is not whole"),
    ),
    of("something behind the end", (D, _HIDDEN), rule="context", change=lambda data: data + b"x" * 512),
    of("a second archive behind the end", (D, _GOOD), rule="context", works=built, change=lambda data: data + data),
    of(
        "half an archive",
        (D, _GOOD),
        ("large", "x" * 4096),
        rule="context",
        works=Refuses("unexpected EOF", "it is no whole archive"),
        change=lambda data: data[:4096],
    ),
    of(
        "a size that is none",
        (D, _HIDDEN),
        rule="context",
        works=Refuses("invalid tar header", "its reader looks too"),
        change=lambda data: _header(data, 0, 124, b"99999999999\0"),
    ),
    of(
        "a file with a slash at its end",
        (D, _HIDDEN),
        rule="context",
        works=Refuses("trailing slash", "the engine can't write it"),
        change=lambda data: _header(data, 0, 0, b"good/\0"),
    ),
    of(
        "a form that star writes",
        (D, _HIDDEN),
        rule="context",
        change=lambda data: _header(data, 0, 508, b"tar\0"),
        works=says("Successfully built"),
    ),
    of("the oldest form", (D, _HIDDEN), rule="context", change=lambda data: _header(data, 0, 257, bytes(8))),
    of("an unknown extended header", (D, _HIDDEN), rule="context", pax={"SCHILY.realsize": "1"}),
    of("a Dockerfile of 2 MiB", (D, _HIDDEN + "#\n" * (1 << 20))),
    of(
        "text",
        (D, _HIDDEN),
        rule="context",
        change=lambda data: b"FROM scratch\n",
        works=Refuses("unexpected EOF", "it is no whole archive"),
    ),
    of(
        "nothing",
        (D, _HIDDEN),
        rule="context-dockerfile",
        change=lambda data: b"",
        works=Refuses("Cannot locate specified Dockerfile", "it is not there for the engine"),
    ),
]


def says_in(name: str, dockerfile: str, rule: str, works: Effect | Refuses = built, asked: str = "") -> Attack:
    """A plain context with that Dockerfile."""
    return of(name, (D, dockerfile.replace("LABELS", _LABEL)), rule=rule, works=works, asked=asked)


_ADD = "FROM scratch\nLABELSADD {} /x\n"
DOCKERFILES = [
    says_in("ADD from a host inside", _ADD.format("http://<server>/x"), "add-private-host", fetched),
    says_in("ADD with a name before the host", _ADD.format("http://1.1.1.1@<server>/x"), "add-private-host", fetched),
    says_in(
        "ADD from a host that an argument gives",
        "ARG HOST\nFROM scratch\nARG HOST\nLABELSADD http://$HOST/x /x\n",
        "add-private-host",
        fetched,
        "&buildargs=%7B%22HOST%22:%22<server>%22%7D",
    ),
    says_in(
        "ADD from a host that a default gives",
        "FROM scratch\nARG HOST=<server>\nLABELSADD http://${HOST:-1.1.1.1}/x /x\n",
        "add-private-host",
        fetched,
    ),
    says_in("ADD in small letters", "FROM scratch\nLABELSadd http://<server>/x /x\n", "add-private-host", fetched),
    says_in("ADD over two lines", "FROM scratch\nLABELSAD\\\nD http://<server>/x /x\n", "add-private-host", fetched),
    says_in("ADD as a list", 'FROM scratch\nLABELSADD ["http://<server>/x", "/x"]\n', "add-private-host", fetched),
    says_in(
        "ADD with another escape",
        "# escape=`\nFROM scratch\nLABELSADD htt`\np://<server>/x /x\n",
        "add-private-host",
        fetched,
    ),
    says_in(
        "ADD from the host itself", _ADD.format("http://127.0.0.1:1/x"), "add-private-host", says("connection refused")
    ),
    says_in("ADD from the host by its name", _ADD.format("http://localhost:1/x"), "add-private-host", says("refused")),
    says_in(
        "ADD from the cloud's metadata",
        _ADD.format("http://169.254.169.254/latest/"),
        "add-private-host",
        Refuses("169.254.169.254", "no metadata are here"),
    ),
    says_in(
        "ADD from IPv6 that is IPv4", _ADD.format("http://[::ffff:127.0.0.1]:1/x"), "add-private-host", says("refused")
    ),
    says_in(
        "ADD from a number",
        _ADD.format("http://2130706433:1/x"),
        "add-private-host",
        Refuses("no such host", "Go takes it for a name; other resolvers don't"),
    ),
    says_in(
        "ADD from a hexadecimal number",
        _ADD.format("http://0x7f.1:1/x"),
        "add-private-host",
        Refuses("no such host", "Go takes it for a name; other resolvers don't"),
    ),
    says_in("ADD from the host's zero", _ADD.format("http://0.0.0.0:1/x"), "add-private-host", says("refused")),
    says_in("FROM a registry inside", "FROM <server>/x\nLABELS", "image-private-registry", fetched),
    says_in(
        "FROM a registry inside, by an argument",
        "ARG R\nFROM $R/team/app:1\nLABELS",
        "image-private-registry",
        fetched,
        "&buildargs=%7B%22R%22:%22<server>%22%7D",
    ),
    says_in(
        "FROM a registry inside, by a digest",
        f"FROM <server>/x@sha256:{'a' * 64}\nLABELS",
        "image-private-registry",
        fetched,
    ),
    says_in(
        "COPY from a registry inside",
        "FROM scratch\nLABELSCOPY --from=<server>/x / /\n",
        "image-private-registry",
        fetched,
    ),
    says_in(
        "RUN with a mount from a registry inside",
        "FROM debian:trixie-slim\nLABELSRUN --mount=type=bind,from=<server>/x,target=/x true\n",
        "image-private-registry",
        Refuses("--mount option requires BuildKit", "the classic builder has no such flag"),
    ),
    says_in(
        "FROM a registry on the host itself",
        "FROM localhost:1/x\nLABELS",
        "image-private-registry",
        says("refused"),
    ),
    says_in("FROM one of Caisson's own", "FROM <reserved>\nLABELS", "image-reserved"),
    says_in("FROM one of Caisson's own, by an argument", "ARG R=<reserved>\nFROM $R\nLABELS", "image-reserved"),
    says_in("COPY from one of Caisson's own", "FROM scratch\nLABELSCOPY --from=<reserved> / /\n", "image-reserved"),
    says_in("FROM another image, by its ID", "FROM <image-id>\nLABELS", "image-id"),
    says_in("COPY from another image, by its ID", "FROM scratch\nLABELSCOPY --from=<image-id> / /\n", "image-id"),
    says_in(
        "COPY from another image, by the start of its ID",
        "FROM scratch\nLABELSCOPY --from=<image-hex> / /\n",
        "image-id",
    ),
    says_in(
        "FROM another image, by an argument",
        "ARG I\nFROM $I\nLABELS",
        "image-id",
        asked="&buildargs=%7B%22I%22:%22<image-hex>%22%7D",
    ),
    says_in("FROM another repository's", "FROM <image>\nLABELS", "image-foreign"),
    says_in("COPY from another repository's", "FROM scratch\nLABELSCOPY --from=<image> / /\n", "image-foreign"),
    says_in(
        "RUN in the host's network",
        "FROM debian:trixie-slim\nLABELSRUN --network=host true\n",
        "run-host-network",
        Refuses("network", "the classic builder has no such flag"),
    ),
    says_in(
        "RUN without confinement",
        "FROM debian:trixie-slim\nLABELSRUN --security=insecure true\n",
        "run-insecure",
        Refuses("security", "the classic builder has no such flag"),
    ),
]
ATTACKS = [*SECOND, *FORMS, *DOCKERFILES]

PASSED = {
    # The engine removes a link before it writes, so that these don't reach what the link was made to.
    "a file in the place of a hard link to it": [(D, _GOOD), ("x", "", tarfile.LNKTYPE, D), ("x", _HIDDEN)],
    "a file in the place of a symbolic link to it": [(D, _GOOD), ("x", "", tarfile.SYMTYPE, D), ("x", _HIDDEN)],
    "a directory in the place of a link to all": [
        (D, _GOOD),
        ("x", "", tarfile.SYMTYPE, "."),
        ("x", "", tarfile.DIRTYPE),
    ],
    "its name in small letters, after it": [(D, _GOOD), ("dockerfile", _HIDDEN)],
    "its name in small letters, before it": [("dockerfile", _HIDDEN), (D, _GOOD)],
    "a link in small letters": [(D, _GOOD), ("other", _HIDDEN), ("dockerfile", "", tarfile.SYMTYPE, "other")],
    "an ignored Dockerfile": [(D, _GOOD), (".dockerignore", "Dockerfile\n"), ("other", _HIDDEN)],
}
"""Contexts that the guard lets through: the engine has to read the Dockerfile that was judged."""


def passed(case: Case, entries: list[Entry]) -> bytes:
    """A build of one of them."""
    content = context(case, [_GOOD_FILE, *entries])
    return Http("POST", "/build?t=<own>", lambda case: content, _X_TAR).encode(case)


def chose_the_hidden_one(case: Case, answer: Answer) -> bool:
    """Whether the engine has built another Dockerfile than the one that was judged."""
    return _chosen(case, answer)
