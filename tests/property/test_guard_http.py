"""Docker's HTTP side with bytes that nobody thought of. Each test's name is the sentence that it proves."""

from __future__ import annotations

import base64
import io
import json
import tarfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import TypeVar

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from caisson.guard.answers import image_document, image_history
from caisson.guard.build_query import BUILD_KEYS, BuildQuery, read_build_query
from caisson.guard.http1 import (
    CHUNKED,
    LAST_CHUNK,
    BodyReader,
    Framing,
    Malformed,
    RequestHead,
    chunk,
    parse_answer,
    parse_request,
    write_request,
)
from caisson.guard.image_config import check_labels
from caisson.guard.policy import CPU_PERIOD, GuardPolicy
from caisson.guard.query import load_strict, parse_json, parse_query, write_query
from caisson.guard.registry_header import check_registry_config
from caisson.guard.rules import ENDPOINTS, EngineFacts, Forward, Upgrade, judge
from caisson.guard.tarscan import END_OF_ARCHIVE, TarScan
from caisson.guard.verdict import Denied
from caisson.reference import parse_reference
from tests.in_pieces import pieces, read_head

POLICY = GuardPolicy(
    image=parse_reference("caisson.local/build:abc"),
    labels=(("caisson.build", "abc"), ("ü", "=&")),
    cgroup_parent="/docker/0123",
    memory=256 << 20,
    cpus=1.5,
)
ENGINE = EngineFacts("26.1.5")
steps = st.sampled_from([1, 2, 3, 7, 1 << 20])

HEAD_PIECES = [
    *(b"GET", b"POST", b" ", b"/", b"/_ping", b"/v1.41/build?t=a", b" HTTP/1.1", b" HTTP/1.0", b"HTTP/1.1 200 OK"),
    *(b"\r\n", b"\n", b"\r", b"\r\n\r\n", b"Host: docker", b"host:x", b"Content-Length: 5", b"Content-Length: 0x5"),
    *(b"Transfer-Encoding: chunked", b"Transfer-Encoding: gzip, chunked", b"Connection: Upgrade", b": ", b" x: y"),
    *(b"\t", b"\x00", b"\x7f", b"\xc3\xbc", b"X-Docker-Expose-Session-Grpc-Method: /a/b", b"+5", b"a"),
]
heads = st.lists(st.sampled_from(HEAD_PIECES) | st.binary(max_size=3), max_size=14).map(b"".join)
tokens = st.text("abcXYZ-_!~09", min_size=1, max_size=8)
values = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E) | st.just("\t"), max_size=20)
headers = st.lists(st.tuples(tokens, values), max_size=6, unique_by=lambda header: header[0].lower())
targets = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=30)


Result = TypeVar("Result")


def judged(call: Callable[[], Result]) -> tuple[Result | None, str]:
    """What a call returns, or the rule by which it denies; whatever else it raises fails the test."""
    try:
        return call(), ""
    except Denied as denied:
        return None, denied.rule or "none"


@given(heads, st.binary(max_size=20), steps, st.integers(1, 60))
@example(b"123456789\r\n\r\n", b"", 1, 10)
def test_a_head_is_the_same_in_whatever_pieces_it_comes(data: bytes, rest: bytes, step: int, limit: int) -> None:
    whole = read_head(data + rest, 1 << 20, limit)
    assert read_head(data + rest, step, limit) == whole
    if isinstance(whole, tuple):
        assert b"\r\n\r\n".join(whole) == data + rest
        assert len(whole[0]) <= limit


@given(heads)
def test_a_head_is_read_or_refused_and_what_would_be_written_of_it_reads_the_same(data: bytes) -> None:
    try:
        head = parse_request(data)
    except Malformed:
        return
    written = write_request(head.method, head.target, head.headers)
    assert parse_request(written.removesuffix(b"\r\n\r\n")) == head


@given(heads)
def test_an_answers_head_is_read_or_refused(data: bytes) -> None:
    try:
        head = parse_answer(data)
        head.framing("GET")
    except Malformed:
        return
    assert 100 <= head.status < 600


@given(st.sampled_from(["GET", "POST", "HEAD"]), targets, headers)
def test_a_head_that_was_written_is_read_as_it_was_meant(
    method: str, target: str, given_headers: list[tuple[str, str]]
) -> None:
    own = [("Host", "docker"), *((name, value.strip(" \t")) for name, value in given_headers if name.lower() != "host")]
    written = write_request(method, target, own)
    assert written.count(b"\r\n\r\n") == 1
    head = parse_request(written.removesuffix(b"\r\n\r\n"))
    assert (head.method, head.target) == (method, target)
    assert head.headers == tuple((name.lower(), value) for name, value in own)


@given(
    text=st.text(max_size=20),
    breaker=st.sampled_from(["\r", "\n", "\0", "ü", "\x7f", "\u2028"]),
    in_target=st.booleans(),
)
def test_nothing_that_would_break_a_line_is_written(text: str, breaker: str, *, in_target: bool) -> None:
    with pytest.raises(ValueError, match="such a character"):
        write_request(
            "GET", f"/{text}{breaker}" if in_target else "/", [("X", "" if in_target else f"{text}{breaker}")]
        )


framings = st.one_of(
    st.just(CHUNKED), st.integers(0, 40).map(lambda size: Framing("length", size)), st.just(Framing("close"))
)
CHUNK_PIECES = [
    *(b"0\r\n\r\n", b"5\r\n", b"00000005\r\n", b"5;a=b\r\n", b"\r\n", b"\n", b"\r", b"hello", b"g\r\n", b" 5\r\n"),
    *(b"0x5\r\n", b"+5\r\n", b"FFFFFFFF\r\n", b"0\r\nX: y\r\n\r\n", b"100000000\r\n"),
]
bodies = st.lists(st.sampled_from(CHUNK_PIECES) | st.binary(max_size=4), max_size=10).map(b"".join)


def read_body(framing: Framing, data: bytes, step: int) -> tuple[bytes, bytes, bool] | str:
    """The body, what follows it, and whether it has ended; or why there is none."""
    reader, body = BodyReader(framing), b""
    try:
        for piece in pieces(data, step):
            body += b"".join(reader.feed(piece))
    except Malformed:
        return "malformed"
    return body, reader.rest, reader.done


@given(framings, bodies, steps)
def test_a_body_is_read_or_refused_in_whatever_pieces_it_comes(framing: Framing, data: bytes, step: int) -> None:
    assert read_body(framing, data, step) == read_body(framing, data, 1 << 20)


@given(st.lists(st.binary(max_size=20), max_size=5), st.binary(max_size=9), steps)
def test_a_body_that_was_written_in_chunks_is_read_as_it_was(parts: list[bytes], rest: bytes, step: int) -> None:
    sent = b"".join(chunk([memoryview(part)]) for part in parts) + LAST_CHUNK
    assert read_body(CHUNKED, sent + rest, step) == (b"".join(parts), rest, True)
    for missing in range(1, len(sent)):
        found = read_body(CHUNKED, sent[:-missing], step)
        assert not found[2], found


@given(st.binary(max_size=30), st.binary(max_size=9), steps)
def test_a_body_of_a_length_is_as_long_as_that(body: bytes, rest: bytes, step: int) -> None:
    assert read_body(Framing("length", len(body)), body + rest, step) == (body, rest, True)


queries = st.lists(
    st.sampled_from(["t", "dockerfile", "=", "&", "+", "%41", "%00", "%ff", "%c3%bc", ";", "%", "a", "A=", "x=1"])
    | st.text(max_size=2),
    max_size=12,
).map("".join)
plain = st.text(st.characters(min_codepoint=0x20, blacklist_categories=("Cs", "Cc")), max_size=12)


@given(queries)
def test_a_query_is_read_or_refused_and_what_would_be_written_of_it_reads_the_same(text: str) -> None:
    pairs, rule = judged(lambda: parse_query(text))
    assert rule in ("", "query")
    assert pairs is None or parse_query(write_query(pairs)) == pairs


@given(st.lists(st.tuples(st.text("abcz", min_size=1, max_size=4), plain), max_size=6).map(tuple))
def test_a_query_that_was_written_is_read_as_it_was_meant(pairs: tuple[tuple[str, str], ...]) -> None:
    assert parse_query(write_query(pairs)) == pairs


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
json_texts = st.one_of(
    json_values.map(json.dumps),
    st.lists(st.sampled_from([*'{}[]",:\\ ', "null", "NaN", '"a"', "\\ud800", "-0"]), max_size=9).map("".join),
    st.sampled_from(['{"a":1,"a":2}', "[" * 200_000, "1" * 5_000, '"\\ud800"', '{"\\ud800":1,"\\ud801":2}', "\ufeff1"]),
)


@given(json_texts)
def test_json_is_read_or_refused_and_written_again_it_reads_the_same(text: str) -> None:
    value, rule = judged(lambda: parse_json(text, "it"))
    assert rule in ("", "json")
    if not rule:
        assert parse_json(json.dumps(value), "it") == value
        assert load_strict(text.encode()) == value


@given(json_texts, st.sampled_from(["utf-16", "utf-16-le", "utf-32-be", "utf-8-sig"]))
def test_json_in_another_coding_than_utf_8_is_none(text: str, coding: str) -> None:
    assume(len(text) < 10_000 and text.isascii() and len(text) > 1)
    with pytest.raises(ValueError):
        load_strict(text.encode(coding))


@given(st.binary(max_size=40) | json_texts.map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_what_an_image_says_of_itself_is_read_or_refused(data: bytes) -> None:
    _, rule = judged(lambda: check_labels(data, POLICY))
    assert rule in ("build-result", "build-labels")


@given(
    st.text(max_size=30) | json_values.map(lambda value: base64.urlsafe_b64encode(json.dumps(value).encode()).decode())
)
def test_a_registry_header_is_empty_or_refused(value: str) -> None:
    _, rule = judged(lambda: check_registry_config(value))
    assert rule in ("", "registry-config", "json")
    assert rule or not value or load_strict(base64.urlsafe_b64decode(value)) in (None, {})


@given(st.sampled_from([image_document, image_history]), st.binary(max_size=30) | json_texts.map(str.encode))
def test_an_engines_answer_is_rewritten_or_refused(rewrite: Callable[[bytes, GuardPolicy], bytes], body: bytes) -> None:
    try:
        written = rewrite(body, POLICY)
    except ValueError:
        return
    document = json.loads(written)
    tags = document["RepoTags"] if isinstance(document, dict) else [row["Tags"] for row in document[:1]]
    assert tags in ([str(POLICY.image)], [[str(POLICY.image)]], [])


# A build's query, of values that mostly may be.
build_values: dict[str, st.SearchStrategy[str]] = {
    "t": st.sampled_from([str(POLICY.image), "caisson.local/build:ABC", "other"]),
    "dockerfile": st.sampled_from(["", "Dockerfile", "./a/./b", "a//b", "../x", "ü &=+%;", "/x"]) | plain,
    "target": st.sampled_from(["", "stage", "a b"]),
    "buildargs": st.dictionaries(plain, st.none() | st.text(max_size=5), max_size=3).map(json.dumps) | json_texts,
    "labels": st.sampled_from(["", "{}", "null", '{"caisson.build":"abc"}', '{"caisson.build":"x"}']) | json_texts,
    "networkmode": st.sampled_from(["", "default", "none", "host", "container:x", "builders"]),
    "cgroupparent": st.sampled_from(["", "/docker/0123", "/other"]),
    **{
        key: st.sampled_from(["", "0", "1", "1000", "268435456", "268435457", "-1", "x", "99999", "100000", "150000"])
        for key in ("memory", "memswap", "cpuperiod", "cpuquota", "cpushares", "shmsize")
    },
    **{key: st.sampled_from(["", "0", "1", "true", "yes"]) for key in ("q", "nocache", "pull", "rm", "squash")},
    **{key: st.sampled_from(["", "null", "[]", "x"]) for key in ("ulimits", "remote", "session", "outputs")},
}
build_pairs = st.lists(st.sampled_from(sorted(build_values)), max_size=6).flatmap(
    lambda keys: st.tuples(*(st.tuples(st.just(key), build_values[key]) for key in keys))
)


def build_query(pairs: tuple[tuple[str, str], ...], policy: GuardPolicy) -> BuildQuery | None:
    try:
        return read_build_query(pairs, policy)
    except Denied:
        return None


@given(build_pairs)
def test_what_is_asked_of_the_engine_is_what_was_judged_with_the_policys_values(
    pairs: tuple[tuple[str, str], ...],
) -> None:
    asked = build_query(pairs, POLICY)
    assume(asked is not None)
    assert asked is not None
    sent = parse_query(write_query(asked.to_query(POLICY)))
    assert len(dict(sent)) == len(sent)
    assert {key for key, _ in sent} <= BUILD_KEYS
    expected = replace(
        asked,
        memory=asked.memory or POLICY.memory,
        cpu_quota=asked.cpu_quota or POLICY.cpu_quota,
        network=asked.network or POLICY.network_mode,
    )
    assert read_build_query(sent, POLICY) == expected
    known = dict(sent)
    assert (known["t"], known["version"], known["cgroupparent"]) == (str(POLICY.image), "1", "/docker/0123")
    assert json.loads(known["labels"]) == dict(POLICY.labels)
    assert known["networkmode"] in ("default", "none")
    assert 0 < int(known["memory"]) == int(known["memswap"]) <= POLICY.memory
    assert 0 < int(known["cpuquota"]) <= POLICY.cpu_quota
    assert int(known["cpuperiod"]) == CPU_PERIOD


WIDER: dict[str, Mapping[str, object]] = {
    "memory": {"memory": 1 << 30},
    "cpus": {"cpus": 4.0},
    "network": {"network_mode": "builders"},
}


@given(build_pairs, st.sampled_from(sorted(WIDER)), st.sampled_from(["default", "none"]))
def test_a_wider_policy_of_the_classic_builder_never_denies_more(
    pairs: tuple[tuple[str, str], ...], what: str, network: str
) -> None:
    policy = replace(POLICY, network_mode=network)
    wider = replace(policy, **WIDER[what])  # type: ignore[arg-type]
    if build_query(pairs, policy) is not None:
        assert build_query(pairs, wider) is not None


@pytest.mark.parametrize(
    ("what", "pair"),
    [("memory", ("memory", str(1 << 29))), ("cpus", ("cpuquota", "200000")), ("network", ("networkmode", "builders"))],
)
def test_each_wider_policy_of_the_classic_builder_makes_something_possible(what: str, pair: tuple[str, str]) -> None:
    """Else that it denies no more would say nothing."""
    assert build_query((pair,), POLICY) is None
    assert build_query((pair,), replace(POLICY, **WIDER[what])) is not None  # type: ignore[arg-type]


request_targets = st.sampled_from(
    [
        *("/_ping", "/v1.41/_ping", "/version", "/info", "/grpc", "/session", "/v1.41/build", "/build?q=1&t=x"),
        *("/images/caisson.local/build:abc/json", "/images/other/json", "/images/caisson.local/build:abc/history"),
        *("/containers/create", "/v1.99/_ping", "//_ping", "/%5fping", "/_ping?x=1", "/v1.41/../_ping"),
    ]
) | targets.map("/{}".format)
request_headers = st.lists(
    st.sampled_from(
        [
            ("connection", "Upgrade"), ("connection", "close"), ("upgrade", "h2c"), ("upgrade", "websocket"),
            ("content-type", "application/x-tar"), ("expect", "100-continue"), ("x-registry-config", "e30="),
            ("x-registry-config", "ü"), ("x-docker-expose-session-uuid", "0123456789abcdefghijklmno"),
            ("x-docker-expose-session-sharedkey", "k"), ("x-other", "1"),
            ("x-docker-expose-session-grpc-method", "/moby.filesync.v1.FileSync/DiffCopy"),
        ]
    ),
    max_size=5,
    unique_by=lambda header: header[0],
)  # fmt: skip
requests = st.builds(
    lambda method, target, more, framing: RequestHead((("host", "docker"), *more), method, target, framing),
    st.sampled_from(["GET", "HEAD", "POST", "DELETE"]),
    request_targets,
    request_headers,
    framings.filter(lambda framing: framing.kind != "close"),
)


def rule_of(head: RequestHead, endpoints: tuple[int, ...]) -> str | None:
    """The rule that allows it; None if nothing does."""
    try:
        return judge(head, POLICY, ENGINE, tuple(ENDPOINTS[number] for number in endpoints))[0]
    except Denied:
        return None


numbers = st.sets(st.integers(0, len(ENDPOINTS) - 1)).map(sorted).map(tuple)


@given(requests, numbers, st.integers(0, len(ENDPOINTS) - 1))
def test_one_endpoint_more_never_denies_more_and_one_less_never_allows_more(
    head: RequestHead, some: tuple[int, ...], another: int
) -> None:
    more = tuple(sorted({*some, another}))
    before, after = rule_of(head, some), rule_of(head, more)
    assert before is None or after == before
    if before != after:
        assert after == ENDPOINTS[another].name


@given(requests)
def test_a_request_is_denied_or_becomes_one_of_the_guards_own(head: RequestHead) -> None:
    found, rule = judged(lambda: judge(head, POLICY, ENGINE))
    assert (found is None) == bool(rule)
    decision = found[1] if found else None
    if isinstance(decision, Forward | Upgrade):
        method = decision.method if isinstance(decision, Forward) else "POST"
        written = write_request(method, decision.target, [("Host", "docker"), *decision.headers])
        again = parse_request(written.removesuffix(b"\r\n\r\n"))
        assert (again.method, again.target) == (method, decision.target)
        assert again.target.startswith(f"/v{POLICY.api}/")
        if isinstance(decision, Forward) and decision.build is not None:
            text = again.target.partition("?")[2]
            assert parse_query(text) == decision.build.to_query(POLICY)


# Contexts: entries by name, kind and content; what tarfile writes, and that with some bytes changed.
NAMES = [
    "Dockerfile",
    "./Dockerfile",
    "dockerfile",
    "a/b",
    "a",
    "../x",
    "/x",
    f"{'x' * 60}/{'y' * 60}",
    "ü",
    "a/Dockerfile",
    ".",
]
KINDS = [tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE]
entries = st.lists(
    st.tuples(st.sampled_from(NAMES), st.sampled_from([*KINDS[:1] * 4, *KINDS]), st.binary(max_size=20)), max_size=6
)
forms = st.sampled_from([tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])


def write_tar(items: Iterable[tuple[str, bytes, bytes]], form: int) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=form) as archive:
        for name, kind, content in items:
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "a" if kind in KINDS[2:4] else ""
            member.size = len(content) if kind == tarfile.REGTYPE else 0
            archive.addfile(member, io.BytesIO(content))
    return file.getvalue()


def scan(data: bytes, step: int) -> tuple[bytes, bytes] | str:
    """What was passed on and the Dockerfile, or the rule that denies it."""
    scanner, passed = TarScan("Dockerfile", 1 << 20), b""
    try:
        for piece in pieces(data, step):
            passed += b"".join(scanner.feed(piece))
        scanner.finish()
        return passed, scanner.dockerfile_text()
    except Denied as denied:
        return denied.rule


@given(entries, forms, steps, st.lists(st.tuples(st.integers(0, 4096), st.binary(min_size=1, max_size=4)), max_size=2))
def test_a_context_is_passed_or_refused_in_whatever_pieces_it_comes(
    items: list[tuple[str, bytes, bytes]], form: int, step: int, changes: list[tuple[int, bytes]]
) -> None:
    data = write_tar(items, form)
    for at, changed in changes:
        data = data[:at] + changed + data[at + len(changed) :]
    whole = scan(data, 1 << 20)
    assert scan(data, step) == whole
    if isinstance(whole, tuple):
        assert (whole[0] + END_OF_ARCHIVE).rstrip(b"\0") == data.rstrip(b"\0")


@given(entries, st.sampled_from(NAMES[:3]), entries, forms)
def test_the_dockerfile_that_was_judged_is_the_one_in_the_archive(
    before: list[tuple[str, bytes, bytes]], name: str, after: list[tuple[str, bytes, bytes]], form: int
) -> None:
    found = scan(write_tar([*before, (name, tarfile.REGTYPE, b"FROM x\n"), *after], form), 1 << 20)
    if isinstance(found, str):
        return
    with tarfile.open(fileobj=io.BytesIO(found[0] + END_OF_ARCHIVE)) as archive:
        files = {member.name.removeprefix("./"): archive.extractfile(member) for member in archive if member.isreg()}
        file = files.get("Dockerfile") or files.get("dockerfile")
        assert file is not None
        assert file.read() == found[1]


@given(entries, forms, st.binary(min_size=1, max_size=8).filter(any))
def test_nothing_follows_the_end_of_a_context(items: list[tuple[str, bytes, bytes]], form: int, rest: bytes) -> None:
    data = write_tar([("Dockerfile", tarfile.REGTYPE, b"FROM x"), *items], form)
    assert isinstance(scan(data + rest, 1 << 20), str)
