"""What ``tests.fuzz_guard`` feeds with bytes: each target takes any, and raises only what breaks a promise.

A target's first byte decides how the rest is taken (in which pieces, by which schema, for which method).
"""

from __future__ import annotations

import contextlib
import io
import json
import tarfile
from collections.abc import Callable

from caisson.guard.build_query import read_build_query
from caisson.guard.dockerfile_lines import Dialect
from caisson.guard.dockerfile_policy import DockerfilePolicy, check_dockerfile, check_steps, check_trigger
from caisson.guard.dockerfile_stages import BuildInputs, Kind
from caisson.guard.dockerfile_words import Budget, Word, expand
from caisson.guard.grpc import with_prefix
from caisson.guard.http1 import (
    CHUNKED,
    BodyReader,
    Framing,
    Malformed,
    parse_answer,
    parse_request,
    write_request,
)
from caisson.guard.http2 import (
    Frame,
    Type,
    write_settings,
)
from caisson.guard.image_config import check_labels, triggers_in
from caisson.guard.llb import read_answer
from caisson.guard.query import parse_json, parse_query, write_query
from caisson.guard.registry_header import check_registry_config
from caisson.guard.rules import EngineFacts, Forward, judge
from caisson.guard.tarscan import BLOCK, END_OF_ARCHIVE, TarScan
from caisson.guard.verdict import Denied
from tests.buildkit_client import (
    CONTROL,
    GREETING,
    POLICY,
    Client,
    answer_of,
    headers,
    pb,
    solve,
    source,
)
from tests.fuzz_streams import (
    STEPS,
    Outcome,
    first,
    fuzz_call,
    fuzz_context_stream,
    fuzz_dockerfile_stream,
    fuzz_grpc,
    fuzz_headers,
    fuzz_protobuf,
    fuzz_session,
    fuzz_watch,
)
from tests.in_pieces import pieces, read_head

Target = Callable[[bytes], None]

_ENGINE = EngineFacts("26.1.5")


def fuzz_head(data: bytes) -> None:
    """A head is the same in any pieces, and what is written of it is read as it was."""
    choice, data = first(data)

    assert read_head(data, STEPS[choice % 8], 300) == read_head(data, len(data) or 1, 300)
    with contextlib.suppress(Malformed):
        parse_answer(data).framing("GET")
    try:
        head = parse_request(data)
        written = write_request(head.method, head.target, head.headers)
        assert parse_request(written.removesuffix(b"\r\n\r\n")) == head
        _, decision = judge(head, POLICY, _ENGINE)
        if isinstance(decision, Forward):
            own = write_request(decision.method, decision.target, (("Host", "docker"), *decision.headers))
            assert parse_request(own.removesuffix(b"\r\n\r\n")).target == decision.target
    except (Malformed, Denied):
        pass


def fuzz_body(data: bytes) -> None:
    """A body is the same in any pieces."""
    choice, data = first(data)
    framing = (CHUNKED, Framing("length", choice), Framing("close"))[choice % 3]

    def read(step: int) -> object:
        reader, body = BodyReader(framing), b""
        try:
            for piece in pieces(data, step):
                body += b"".join(reader.feed(piece))
        except Malformed:
            return None
        return body, reader.rest, reader.done

    assert read(STEPS[choice % 8]) == read(len(data) or 1)


def fuzz_query(data: bytes) -> None:
    """A query is read as it is written, and a build's is asked as it was judged."""
    try:
        pairs = parse_query(data.decode("latin-1"))
        assert parse_query(write_query(pairs)) == pairs
        asked = read_build_query(pairs, POLICY)
        sent = parse_query(write_query(asked.to_query(POLICY)))
        again = read_build_query(sent, POLICY)
        assert (again.dockerfile, again.target) == (asked.dockerfile, asked.target)
        assert (again.build_args or {}) == (asked.build_args or {})
        assert dict(sent)["t"] == str(POLICY.image)
        assert 0 < int(dict(sent)["memory"]) <= POLICY.memory
    except Denied:
        pass


def fuzz_json(data: bytes) -> None:
    """JSON, an image's configuration and a registry header are read or refused."""
    text = data.decode("utf-8", "replace")
    for take in (
        lambda: parse_json(text, "it"),
        lambda: check_labels(data, POLICY),
        lambda: check_registry_config(text),
    ):
        with contextlib.suppress(Denied):
            take()


def _in_any_case(value: object, key: str) -> object:
    """The value of a key as a lenient reader takes it."""
    if not isinstance(value, dict):
        return None
    return next((item for name, item in value.items() if name.lower() == key), None)


def fuzz_triggers(data: bytes) -> None:
    """What an image has after ONBUILD is all that a lenient reader finds there, and each is judged or refused."""
    try:
        triggers = triggers_in(data)
    except Denied:
        return
    assert [*triggers] == (_in_any_case(_in_any_case(json.loads(data), "config"), "onbuild") or [])
    policy = DockerfilePolicy(Dialect.SPACED_HEREDOCS, "caisson.local")
    for trigger in triggers:
        with contextlib.suppress(Denied):
            check_trigger(trigger, policy, BuildInputs("buildkit"))


def fuzz_llb(data: bytes) -> None:
    """What a daemon answers is judged, or refused by the reader's own error."""
    with contextlib.suppress(Denied):
        if (found := read_answer(data)) is not None:
            check_steps(found[1], DockerfilePolicy(Dialect.HEREDOCS, "caisson.local", base_images=("a:1",)))


def _with_sums(data: bytes) -> bytes:
    """The same tar with right checksums, which no fuzzer finds."""
    written = bytearray(data)
    for at in range(0, len(data) - BLOCK + 1, BLOCK):
        block = written[at : at + BLOCK]
        if block[257:262] == b"ustar":
            block[148:156] = b" " * 8
            written[at + 148 : at + 156] = b"%06o\0 " % sum(block)
    return bytes(written)


def fuzz_tar(data: bytes) -> None:
    """A context is the same in any pieces, and passes as it came."""
    choice, data = first(data)
    if choice & 8:
        data = _with_sums(data)
    if choice & 16:
        data += END_OF_ARCHIVE

    def scan(step: int) -> Outcome:
        scanner, passed = TarScan("Dockerfile", 1 << 20), b""
        try:
            for piece in pieces(data, step):
                passed += b"".join(scanner.feed(piece))
            scanner.finish()
        except Denied as denied:
            return b"", denied.rule
        assert scanner.dockerfile_text() in data
        return passed, ""

    whole = scan(len(data) or 1)
    assert scan((61, 100, 511, 512, 513, 700, 1_024, 2_000)[choice % 8]) == whole
    assert whole[1] or data.rstrip(b"\0") == whole[0].rstrip(b"\0")


def fuzz_dockerfile(data: bytes) -> None:
    """A Dockerfile is judged, or refused by the reader's own error."""
    choice, data = first(data)
    policy = DockerfilePolicy(list(Dialect)[choice % len(Dialect)], "caisson.local", base_images=("a",))
    kind: Kind = "classic" if choice & 16 else "buildkit"
    text = b"FROM a\nADD " + data if choice & 32 else data
    try:
        findings = check_dockerfile(text, policy, BuildInputs(kind, (("A", "b c"),)))
    except Denied:
        return
    lines = text.count(b"\n") + 1
    assert all(0 <= finding.line <= lines and finding.reason for finding in findings)


def fuzz_words(data: bytes) -> None:
    """A word is expanded, or refused by the reader's own error."""
    choice, data = first(data)
    values = {"A": Word.of("x y"), "B": Word.of(""), "C": Word.of("*?[a")}
    with contextlib.suppress(Denied):
        expand(data.decode("utf-8", "replace"), "`" if choice & 1 else "\\", values.get, Budget())


def _seed_tar() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name in ("Dockerfile", "ü/" + "x" * 40):
            archive.addfile(tarfile.TarInfo(name))
    return b"\x18" + file.getvalue()[:4096]


def _packets(*packets: bytes) -> bytes:
    return b"".join(bytes((len(packet),)) + packet for packet in packets)


_HEAD = b"POST /v1.41/build?t=caisson.invalid%2Fbuild:b1 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked"
_DOCKERFILE = b"# syntax=a/b:1\nARG A=b\nFROM ${A:-x} AS s\nRUN <<E\nx\nE\nCOPY --from=s a b\nADD http://a/ /\n"
_BRIDGE = pb((2, "dockerfile.v0"), (3, {"filename": "Dockerfile", "build-arg:A": "1"}))
_CONFIGS = (
    b'{"config":{"OnBuild":["RUN a","ADD http://10.1/x /x","COPY --from=b / /"]}}',
    b'{"Config":{"ONBUILD":null}}',
    b'{"config":{"onbuild":["RUN a \\\\\\\\n"],"OnBuild":[]}}',
)
_ANSWER = answer_of(
    "r1",
    source("docker-image://a@sha256:b"),
    source("git://a/b.git", {"git.fullurl": "https://10.1/b.git"}),
    pb((2, pb((3, 1)))),
)
_FILES = (pb((2, pb((1, "Dockerfile"), (2, 0o644)))), pb((2, pb((1, "Dockerfile.dockerignore")))), pb())

TARGETS: dict[str, tuple[Target, tuple[bytes, ...]]] = {
    "head": (fuzz_head, (b"\x00" + _HEAD, b"\x01HTTP/1.1 200 OK\r\nContent-Length: 5")),
    "body": (fuzz_body, (b"\x005\r\nhello\r\n0\r\n\r\nrest", b"\x04hello")),
    "query": (fuzz_query, (b"t=caisson.invalid%2Fbuild:b1&buildargs=%7B%22A%22%3A%22b%22%7D&memory=1&dockerfile=a/b",)),
    "json": (fuzz_json, (b'{"config":{"Labels":{"caisson.build":"b1"}}}', b"e30=")),
    "triggers": (fuzz_triggers, _CONFIGS),
    "llb": (fuzz_llb, (_ANSWER,)),
    "tar": (fuzz_tar, (_seed_tar(),)),
    "grpc": (
        fuzz_grpc,
        (
            b"\x80" + Client().call(f"{CONTROL}Solve", solve()),
            b"\x00" + GREETING,
            b"\x00" + write_settings({}) + Frame(Type.DATA, 0, 3, with_prefix(_ANSWER)).encode(),
        ),
    ),
    "call": (fuzz_call, (b"\x02" + solve(), b"\x06" + _BRIDGE, b"\x01" + pb((1, "b" * 25)))),
    "protobuf": (fuzz_protobuf, (b"\x00" + solve(), b"\x01" + _BRIDGE)),
    "session": (
        fuzz_session,
        (b"\x00" + Frame(Type.DATA, 0, 1, with_prefix(pb((1, 2), (3, 1), (4, "x")))).encode(),),
    ),
    "dockerfile-stream": (
        fuzz_dockerfile_stream,
        (_packets(*_FILES, pb((1, 2), (4, "FROM a")), pb((1, 2)), pb((1, 2), (3, 1)), pb((1, 3))),),
    ),
    "watch": (
        fuzz_watch,
        (
            b"\x07" + _HEAD + b"\r\n\r\n5\r\nhello\r\n0\r\n\r\nGET /_ping HTTP/1.1\r\nHost: x\r\n\r\n",
            b"\x47" + GREETING + Client().call(f"{CONTROL}Solve", solve()),
            b"\xc7" + write_settings({}) + Frame(Type.DATA, 0, 1, with_prefix(b"")).encode(),
        ),
    ),
    "context-stream": (
        fuzz_context_stream,
        (
            b"\x80" + _packets(*_FILES, pb((1, 2), (3, 1), (4, "x")), pb((1, 2), (3, 1)), pb((1, 3))),
            b"\x01" + with_prefix(_FILES[0]) + with_prefix(b""),
            b"\x80" + _packets(pb((1, 4), (4, "failed"))),
        ),
    ),
    "headers": (
        fuzz_headers,
        (
            b"\xf0" + Client().block(headers(f"{CONTROL}Solve")),
            b"\x75\x82\x86\x44\x83abc\xbe\x7f\x00\x40\x01a\x01b\xbe",
        ),
    ),
    "dockerfile": (fuzz_dockerfile, (b"\x02" + _DOCKERFILE, b"\x22git@a.b:c.git#d:e /x\n", b"\x10" + _DOCKERFILE)),
    "words": (fuzz_words, (b"\x00a${A:-b}'c'\"$B\"${C##*x}${A/b/c}",)),
}

WORDS = (
    *(
        "Host: ",
        "Content-Length: ",
        "Transfer-Encoding: chunked",
        "\r\n",
        "HTTP/1.1",
        "GET /",
        "buildargs=",
        "labels=",
    ),
    *(
        "networkmode=",
        "memory=",
        "cpuquota=",
        "dockerfile=",
        "%22",
        "%7B",
        "null",
        "ustar\x0000",
        "path=",
        "linkpath=",
    ),
    *(
        "FROM ",
        "RUN ",
        "COPY --from=",
        "ADD ",
        "ENV ",
        "ARG ",
        "ONBUILD ",
        "--mount=type=bind,from=",
        "<<EOF",
        "\nEOF",
    ),
    *(
        "# escape=`\n",
        "# syntax=",
        "${",
        ":-",
        ":+",
        "##",
        "%%",
        "scratch",
        "http://",
        "git@",
        ".git#",
        "caisson.local/",
    ),
    *('"config":', '"OnBuild":["', '"onbuild":'),
    *("BAD", "Dockerfile", "Dockerfile.dockerignore", "build-arg:", "filename", "network.host", "caisson.build"),
)
"""Words that a fuzzer would take long to find."""
