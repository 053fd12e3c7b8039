"""BuildKit's streams with bytes that nobody thought of. Each test's name is the sentence that it proves."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from unittest.mock import patch

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from caisson.guard import buildkit_rules
from caisson.guard.buildkit_rules import BuildIds, judge
from caisson.guard.buildkit_schema import BRIDGE_SOLVE, CONTROL_SOLVE, RETURN, STATUS
from caisson.guard.grpc import Call, with_prefix
from caisson.guard.grpc_mediator import Passed
from caisson.guard.http2 import Frame, Type, window_update, write_settings
from caisson.guard.policy import GuardPolicy
from caisson.guard.protobuf import ProtobufError, Schema, encode, parse
from caisson.guard.session_mediator import SessionMediator
from caisson.guard.verdict import Denied
from tests.buildkit_client import BRIDGE, BUILD, CONTROL, GREETING, POLICY, Client, mediator, pb, read_calls, solve

schemas = st.sampled_from([CONTROL_SOLVE, BRIDGE_SOLVE, RETURN, STATUS])
texts = st.text(max_size=8)
fields = st.tuples(st.integers(1, 16), st.one_of(texts, st.integers(0, 300), st.dictionaries(texts, texts, max_size=2)))
messages = st.one_of(st.binary(max_size=60), st.lists(fields, max_size=5).map(lambda items: pb(*items)))
paths = st.sampled_from([f"{CONTROL}ListWorkers", f"{CONTROL}Status", f"{CONTROL}Solve", f"{BRIDGE}Solve",
                         f"{BRIDGE}Return", f"{BRIDGE}NewContainer", f"{CONTROL}Prune"])  # fmt: skip


@given(schemas, messages)
def test_a_message_is_understood_or_refused_and_what_was_written_reads_the_same(schema: Schema, data: bytes) -> None:
    try:
        message = parse(schema, data)
    except ProtobufError:
        return
    assert parse(schema, encode(message)) == message
    with pytest.raises(ProtobufError):
        parse(schema, data + b"\x07")


given_attributes = st.dictionaries(
    st.sampled_from([
        "filename", "dockerfilekey", "target", "no-cache", "image-resolve-mode", "force-network-mode", "cgroup-parent",
        "context", "source", "cmdline", "vcs:source", "label:caisson.build", "label:other", "build-arg:A",
        "build-arg:BUILDKIT_SYNTAX", "build-arg:BUILDKIT_CACHE_MOUNT_NS", "other",
    ]),
    st.sampled_from(["", "a", "Dockerfile", "dockerfile", "pull", "none", "host", "x/y:1", "x/y:1 z", "b1", "team",
                     "/docker/abc"]) | texts,
    max_size=4,
)  # fmt: skip
frontends = st.sampled_from(["dockerfile.v0", "gateway.v0"])
calls = st.one_of(
    st.tuples(paths, messages),
    st.builds(
        lambda frontend, given: (f"{BRIDGE}Solve", pb((2, frontend), (3, given), (5, 1), (6, 1))),
        frontends,
        given_attributes,
    ),
    st.builds(
        lambda frontend, given: (f"{CONTROL}Solve", solve((6, frontend), (7, given))), frontends, given_attributes
    ),
)
WIDER: dict[str, dict[str, object]] = {
    "network": {"network_mode": "default"},
    "frontends": {"frontends": frozenset({"x/y:1"})},
}
NARROW = replace(POLICY, network_mode="none")


def is_allowed(path: str, message: bytes, policy: GuardPolicy) -> bool:
    try:
        judge(Call(path, build_id=BUILD if path.startswith(BRIDGE) else ""), message, policy, BuildIds())
    except Denied:
        return False
    return True


def without_network() -> bytes:
    return pb((2, "dockerfile.v0"), (3, {"force-network-mode": "none"}), (5, 1), (6, 1))


@given(calls, st.sampled_from(sorted(WIDER)), st.booleans())
@example(call=(f"{BRIDGE}Solve", without_network()), what="network", narrow=True)
def test_a_wider_policy_never_denies_more_of_buildkit(call: tuple[str, bytes], what: str, narrow: bool) -> None:
    policy = NARROW if narrow else POLICY
    if is_allowed(*call, policy):
        assert is_allowed(*call, replace(policy, **WIDER[what]))  # type: ignore[arg-type]


@given(calls, st.sampled_from(sorted(buildkit_rules.METHODS)))
def test_without_a_method_no_call_is_allowed_that_was_not(call: tuple[str, bytes], method: str) -> None:
    allowed = is_allowed(*call, POLICY)
    fewer = {path: known for path, known in buildkit_rules.METHODS.items() if path != method}
    with patch.object(buildkit_rules, "METHODS", fewer):
        assert is_allowed(*call, POLICY) == (allowed and call[0] != method)


@given(given_attributes, st.sampled_from(sorted(buildkit_rules._ATTRIBUTES)))
def test_without_an_attribute_no_build_is_allowed_that_was_not(given: dict[str, str], name: str) -> None:
    message = pb((2, "dockerfile.v0"), (3, given), (5, 1), (6, 1))
    allowed = is_allowed(f"{BRIDGE}Solve", message, POLICY)
    fewer = {key: pattern for key, pattern in buildkit_rules._ATTRIBUTES.items() if key != name}
    with patch.object(buildkit_rules, "_ATTRIBUTES", fewer):
        assert is_allowed(f"{BRIDGE}Solve", message, POLICY) == (allowed and name not in given)


def test_a_wider_policy_makes_something_of_buildkit_possible() -> None:
    """Else that it denies no more would say nothing."""
    given = {"source": "x/y:1", "cmdline": "x/y:1", "build-arg:BUILDKIT_SYNTAX": "x/y:1"}
    message = pb((2, "gateway.v0"), (3, given), (5, 1), (6, 1))
    assert not is_allowed(f"{BRIDGE}Solve", message, NARROW)
    assert is_allowed(f"{BRIDGE}Solve", message, replace(NARROW, **WIDER["frontends"]))  # type: ignore[arg-type]


def outcome(data: bytes, step: int) -> tuple[bytes, str]:
    """What went to the daemon, and the rule that ended it."""
    guard, passed = mediator(), b""
    try:
        for at in range(0, len(data), step):
            passed += guard.client_bytes(data[at : at + step]).to_daemon
    except Denied as denied:
        return passed, denied.rule
    return passed, ""


@given(st.lists(st.tuples(paths, messages), max_size=4), st.binary(max_size=30), st.integers(1, 50))
def test_in_whatever_pieces_it_comes_the_same_is_decided(
    calls: list[tuple[str, bytes]], rest: bytes, step: int
) -> None:
    client = Client()
    data = GREETING + b"".join(client.call(path, message) for path, message in calls) + rest
    whole, pieces = outcome(data, len(data)), outcome(data, step)
    assert whole[1] == pieces[1]
    if not whole[1]:
        assert whole[0] == pieces[0]


@given(st.lists(st.tuples(paths, messages), max_size=4), st.binary(max_size=60))
def test_what_reaches_the_daemon_was_allowed_before(calls: list[tuple[str, bytes]], rest: bytes) -> None:
    client, guard, passed = Client(), mediator(), Passed()
    with contextlib.suppress(Denied):
        passed = guard.client_bytes(GREETING + b"".join(client.call(*call) for call in calls))
    allowed = [path for path, verdict in guard.verdicts() if verdict.allowed]
    sent = [call[0][":path"] for call in read_calls(passed.to_daemon)] if passed.to_daemon else []
    assert sent == allowed[: len(sent)]
    with contextlib.suppress(Denied):
        guard.client_bytes(rest)


@given(st.lists(st.sampled_from([bytes(9), b"\x00", b"\xff\xff", window_update(0, 1), write_settings({}),
                                 Client().call(f"{CONTROL}ListWorkers"), with_prefix(solve())]), max_size=6),
       st.binary(max_size=40))  # fmt: skip
def test_bytes_are_taken_or_refused_by_both_sides(pieces: list[bytes], rest: bytes) -> None:
    for start in (b"", GREETING):
        guard, session = mediator(), SessionMediator(lambda _: None)
        for take in (guard.client_bytes, guard.server_bytes, session.server_bytes, session.client_bytes):
            with contextlib.suppress(Denied):
                take(start + b"".join(pieces) + rest)


@given(st.lists(st.binary(max_size=40), max_size=6), st.integers(1, 40))
def test_the_session_passes_what_it_got(payloads: list[bytes], step: int) -> None:
    session = SessionMediator(lambda _: None)
    session.server_bytes(GREETING + Client().ask(directory="context"))
    sent = write_settings({}) + b"".join(
        Frame(Type.DATA, 0, 1, with_prefix(pb((1, 2), (3, 1), (4, data)))).encode() for data in payloads
    )
    passed = b"".join(session.client_bytes(sent[at : at + step]).to_daemon for at in range(0, len(sent), step))
    assert passed == sent
