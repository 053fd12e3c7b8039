"""The guard on BuildKit's stream: what reaches the daemon, how a refusal is told, and what ends the connection."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest
from hpack import Encoder

from caisson.guard.build_ids import BuildIds
from caisson.guard.grpc import refusal, with_prefix
from caisson.guard.grpc_mediator import MOST_AT_ONCE, GrpcMediator
from caisson.guard.grpc_stream import Checks
from caisson.guard.http2 import (
    END_HEADERS,
    END_STREAM,
    PREFACE,
    Frame,
    Type,
    frame_head,
    window_update,
    write_settings,
)
from caisson.guard.llb import Steps
from caisson.guard.verdict import Denied
from caisson.reference import parse_reference
from tests.buildkit_client import (
    BRIDGE,
    BUILD,
    CONTROL,
    GREETING,
    POLICY,
    SESSION,
    Client,
    answer_of,
    headers,
    mediator,
    pb,
    read_answers,
    read_calls,
    rst_stream,
    solve,
    source,
)

PING = Frame(Type.PING, 0, 0, bytes(8)).encode()


def denied(*pieces: bytes) -> str:
    """The rule by which the connection ends, in the last of these pieces."""
    guard = mediator()
    for piece in (GREETING, *pieces[:-1]):
        guard.client_bytes(piece)
    with pytest.raises(Denied) as caught:
        guard.client_bytes(pieces[-1])
    return caught.value.rule


def opening(*more: tuple[str, str]) -> bytes:
    """HEADERS on stream 1, with more in them."""
    block = Client().block([*headers(f"{CONTROL}ListWorkers"), *more])
    return Frame(Type.HEADERS, END_HEADERS, 1, block).encode()


def test_a_call_reaches_the_daemon_as_the_guard_wrote_it() -> None:
    guard, client = mediator(), Client()
    passed = guard.client_bytes(GREETING + client.call(f"{CONTROL}Status", pb((1, BUILD))))
    [(fields, message)] = read_calls(passed.to_daemon)
    assert message == with_prefix(pb((1, BUILD)))
    assert fields == {
        ":method": "POST", ":scheme": "http", ":path": f"{CONTROL}Status", ":authority": "localhost",
        "content-type": "application/grpc", "te": "trailers", "user-agent": "caisson-guard",
    }  # fmt: skip
    [(method, verdict)] = guard.verdicts()
    assert (method, verdict.allowed, verdict.rule) == (f"{CONTROL}Status", True, "buildkit-method")
    assert guard.verdicts() == []


def test_of_a_refused_call_the_daemon_sees_nothing_and_the_client_the_reason() -> None:
    guard, client = mediator(), Client()
    data = client.call(f"{BRIDGE}NewContainer", b"x") + client.call(f"{CONTROL}Solve", solve(image="debian:13"))
    passed = guard.client_bytes(GREETING + data + client.call(f"{CONTROL}ListWorkers"))
    assert [fields[":path"] for fields, _ in read_calls(passed.to_daemon)] == [f"{CONTROL}ListWorkers"]
    answers = read_answers(passed.to_client)
    assert answers[1]["grpc-status"] == "7"
    assert "NewContainer is no part of building" in answers[1]["grpc-message"]
    assert "has to be named caisson.invalid/build:b1" in answers[3]["grpc-message"]
    assert [verdict.rule for _, verdict in guard.verdicts()] == ["buildkit-method", "build-name", "buildkit-method"]


def test_what_clients_only_try_is_unimplemented() -> None:
    guard, client = mediator(), Client()
    passed = guard.client_bytes(GREETING + client.call(f"{CONTROL}ListenBuildHistory", pb((1, 1))))
    assert read_answers(passed.to_client)[1]["grpc-status"] == "12"


def test_a_build_waits_until_its_session_is_open() -> None:
    ids = BuildIds()
    guard, client = GrpcMediator(lambda: POLICY, ids), Client()
    passed = guard.client_bytes(GREETING + client.call(f"{CONTROL}Solve", solve()))
    assert read_calls(passed.to_daemon) == []
    ids.open_session(SESSION)
    later = guard.client_bytes(b"").to_daemon
    assert [fields[":path"] for fields, _ in read_calls(passed.to_daemon + later)] == [f"{CONTROL}Solve"]


def test_calls_keep_their_order() -> None:
    guard, client = mediator(), Client()
    first, second = client.open(f"{CONTROL}Status"), client.call(f"{CONTROL}ListWorkers")
    passed = guard.client_bytes(GREETING + first + second).to_daemon
    assert read_calls(passed) == []
    client.stream = 1
    passed += guard.client_bytes(client.data(with_prefix(pb((1, BUILD))))).to_daemon
    order = [fields[":path"] for fields, _ in read_calls(passed)]
    assert order == [f"{CONTROL}Status", f"{CONTROL}ListWorkers"]


def test_the_guard_sends_no_more_than_the_daemon_takes() -> None:
    guard, client = mediator(), Client()
    message = with_prefix(solve((7, {f"build-arg:A{number}": "x" * 16_000 for number in range(6)})))
    sent = GREETING + client.open(f"{CONTROL}Solve")
    pieces = [message[at : at + 16_384] for at in range(0, len(message), 16_384)]
    sent += b"".join(client.data(piece, end=piece is pieces[-1]) for piece in pieces)
    passed = guard.client_bytes(sent)
    assert len(passed.to_daemon) < 66_000
    # The client has its windows back, for the guard has taken all of it.
    assert passed.to_client.count(frame_head(4, Type.WINDOW_UPDATE, 0, 1)) == len(pieces) - 1
    more = guard.server_bytes(write_settings({4: 1 << 20}) + window_update(0, 1 << 20))
    [(_, whole)] = read_calls(passed.to_daemon + more.to_daemon)
    assert len(whole) > len(message)


def test_what_the_daemon_answers_passes_and_its_settings_are_capped() -> None:
    guard, client = mediator(), Client()
    guard.client_bytes(GREETING + client.call(f"{CONTROL}ListWorkers"))
    answer = refusal(1, 2, "the daemon's own") + PING + rst_stream(1, 0)
    passed = guard.server_bytes(write_settings({5: 1 << 20, 3: 250, 4: 1 << 20, 9: 1}) + window_update(0, 9) + answer)
    expected = write_settings({5: 16_384, 3: 64, 4: 1 << 20, 9: 1, 1: 4_096, 6: 16_384})
    assert passed == (b"", expected + answer)


def test_a_refusal_does_not_stand_in_a_header_list_of_the_daemons() -> None:
    guard, client = mediator(), Client()
    guard.client_bytes(GREETING + client.call(f"{CONTROL}ListWorkers"))
    guard.server_bytes(write_settings({}) + Frame(Type.HEADERS, 0, 1, b"\x88").encode())
    assert guard.client_bytes(client.call(f"{CONTROL}Prune")).to_client == b""
    last = Frame(Type.CONTINUATION, END_HEADERS, 1, b"").encode()
    passed = guard.server_bytes(last).to_client
    assert passed.startswith(last)
    assert read_answers(passed.removeprefix(last))[3]["grpc-status"] == "7"


def test_what_is_cancelled_before_it_was_sent_is_never_sent() -> None:
    guard, client = mediator(), Client()
    passed = guard.client_bytes(GREETING + client.open(f"{CONTROL}Status") + rst_stream(1, 8))
    assert read_calls(passed.to_daemon) == []
    guard.client_bytes(client.call(f"{CONTROL}ListWorkers"))
    assert guard.client_bytes(rst_stream(3, 8)).to_daemon == rst_stream(3, 8)


def test_the_last_word_names_the_reason() -> None:
    frame = mediator().goodbye(Denied("http2-flood", "Too much."))
    assert frame[3] == Type.GOAWAY
    assert frame.endswith(b"Too much.")


def test_what_is_no_http2_ends_the_connection() -> None:
    with pytest.raises(Denied, match="does not begin"):
        mediator().client_bytes(b"GET / HTTP/1.1\r\n")
    with pytest.raises(Denied, match="not SETTINGS"):
        mediator().client_bytes(PREFACE + PING)
    assert denied(frame_head(16_385, Type.DATA, 0, 1)) == "http2-frame"
    assert denied(frame_head(8, Type.PING, 0, 1) + bytes(8)) == "http2-frame"
    assert denied(frame_head(7, Type.PING, 0, 0)) == "http2-frame"
    assert denied(opening(), frame_head(9, Type.DATA, 8, 1)) == "http2-frame"
    for kind in (Type.PRIORITY, Type.PUSH_PROMISE, 10, 255):
        assert denied(bytes((0, 0, 5, kind, 0, 0, 0, 0, 1))) == "http2-frame"
    assert denied(write_settings({7: 1})) == "http2-settings"
    assert denied(write_settings({4: 1 << 31})) == "http2-settings"
    assert denied(window_update(0, 0)) == "http2-window"


def test_streams_are_opened_once_and_in_order() -> None:
    block = Client().block(headers(f"{CONTROL}ListWorkers"))
    assert denied(Frame(Type.HEADERS, END_HEADERS, 0, block).encode()) == "http2-frame"
    assert denied(Frame(Type.HEADERS, END_HEADERS, 2, block).encode()) == "http2-stream"
    trailers = Frame(Type.HEADERS, END_HEADERS | END_STREAM, 1, b"").encode()
    assert denied(opening(), trailers) == "http2-stream"
    client = Client()
    whole = client.call(f"{CONTROL}ListWorkers")
    assert denied(whole, client.data(with_prefix(b""))) == "http2-stream"
    client.stream = 99
    assert denied(client.data(b"x")) == "http2-stream"
    assert denied(rst_stream(99, 8)) == "http2-stream"
    assert denied(window_update(99, 8)) == "http2-stream"


def test_a_method_is_not_smuggled_in_other_headers() -> None:
    for name, value in ((":path", f"{BRIDGE}NewContainer"), ("x", "y"), ("te", "trailers"), ("grpc-encoding", "gzip")):
        assert denied(opening((name, value))) == "grpc-header"
    assert denied(opening(("X", "y"))) == "http2-headers"
    assert denied(opening(("x", "\r\n"))) == "http2-headers"
    block = Client().block(headers(f"{CONTROL}ListWorkers")[1:])
    assert denied(Frame(Type.HEADERS, END_HEADERS, 1, block).encode()) == "grpc-header"


def test_a_request_is_one_whole_plain_message() -> None:
    def ending(payload: bytes) -> str:
        client = Client()
        return denied(client.open(f"{CONTROL}ListWorkers"), client.data(payload))

    assert ending(b"\x01\x00\x00\x00\x00") == "grpc-message"  # compressed
    assert ending(b"\x00\xff\xff\xff\xff") == "grpc-message"  # 4 GiB, said before they come
    assert ending(with_prefix(b"") * 2) == "grpc-message"
    assert ending(with_prefix(b"ab")[:-1]) == "grpc-message"
    assert ending(b"") == "grpc-message"
    block = Client().block(headers(f"{CONTROL}ListWorkers"))
    assert denied(Frame(Type.HEADERS, END_HEADERS | END_STREAM, 1, block).encode()) == "grpc-message"


def test_a_header_list_is_bounded() -> None:
    first = Frame(Type.HEADERS, 0, 1, Client().block(headers(f"{CONTROL}ListWorkers"))).encode()
    assert denied(first + Frame(Type.CONTINUATION, 0, 1, b"").encode() * 9) == "http2-headers"  # CVE-2024-27316
    assert denied(first + Frame(Type.CONTINUATION, 0, 1, bytes(8_192)).encode()) == "http2-headers"
    assert denied(first, PING) == "http2-headers"
    assert denied(first, Frame(Type.CONTINUATION, 0, 3, b"").encode()) == "http2-headers"
    assert denied(Frame(Type.CONTINUATION, END_HEADERS, 1, b"").encode()) == "http2-headers"
    # A field of 4 kB in the table, named a thousand times in a byte each.
    bomb = Encoder().encode([("x", "y" * 3_900)], huffman=False) + b"\xbe" * 1_000
    assert denied(Frame(Type.HEADERS, END_HEADERS, 1, bomb).encode()) == "http2-headers"
    # The table is not made larger than the guard said.
    assert denied(Frame(Type.HEADERS, END_HEADERS, 1, b"\x3f\xe1\x7f\x88").encode()) == "http2-headers"


def test_floods_end_the_connection() -> None:
    assert denied(PING * 513) == "http2-flood"
    assert denied(write_settings({}) * 513) == "http2-flood"
    assert denied(window_update(0, 1) * 513) == "http2-flood"
    client = Client()
    resets = (client.open(f"{CONTROL}ListWorkers") + rst_stream(client.stream, 8) for _ in range(513))
    assert denied(b"".join(resets)) == "http2-flood"  # CVE-2023-44487
    client = Client()
    assert denied(b"".join(client.open(f"{CONTROL}Solve") for _ in range(MOST_AT_ONCE + 1))) == "http2-flood"
    client = Client()
    assert denied(client.open(f"{CONTROL}Solve"), client.data(b"", end=False) * 513) == "http2-flood"


def test_a_client_acknowledges_as_much_as_it_gets() -> None:
    guard, client = mediator(), Client()
    guard.client_bytes(GREETING + client.call(f"{CONTROL}Status", pb((1, BUILD))))
    guard.server_bytes(write_settings({}))
    for _ in range(2_000):
        guard.server_bytes(Frame(Type.DATA, 0, 1, b"x").encode())
        guard.client_bytes(PING + window_update(0, 1))


def test_what_is_held_is_bounded() -> None:
    client, guard = Client(), mediator()
    guard.client_bytes(GREETING)
    sent = b""
    for _ in range(3):
        sent += client.open(f"{BRIDGE}Return") + client.data(b"\x00" + (4 << 20).to_bytes(4, "big"), end=False)
        sent += b"".join(client.data(bytes(16_384), end=False) for _ in range(250))
    with pytest.raises(Denied, match="to be whole"):
        guard.client_bytes(sent)


def test_what_an_image_would_have_later_builds_do_is_judged() -> None:
    def judge(trigger: str) -> None:
        if "inside" in trigger:
            raise Denied("add-private-host", f"{trigger} leads inside.")

    def returned(config: Mapping[str, object]) -> list[str]:
        guard, client = GrpcMediator(lambda: POLICY, BuildIds(), checks=Checks(judge)), Client()
        labels = {"Labels": dict(POLICY.labels)}
        metadata = {"containerimage.config": json.dumps({"config": {**labels, **config}})}
        message = pb((1, pb((3, b""), (10, metadata))))
        passed = guard.client_bytes(GREETING + client.call(f"{BRIDGE}Return", message))
        rules = [verdict.rule for _, verdict in guard.verdicts()]
        assert bool(read_calls(passed.to_daemon)) == (rules == ["buildkit-method"])
        return rules

    assert returned({}) == returned({"OnBuild": None}) == returned({"OnBuild": ["RUN make"]}) == ["buildkit-method"]
    assert returned({"OnBuild": ["RUN make", "ADD inside"]}) == ["add-private-host"]
    for name in ("onbuild", "ONBUILD", "OnBuild "):
        assert returned({name: ["RUN make"]}) == ["build-result"]
    for value in ("RUN make", {"0": "RUN make"}, [1], [["RUN make"]], ["RUN make"] * 257):
        assert returned({"OnBuild": value}) == ["build-result"]
    assert returned({"OnBuild": ["RUN make"], "onbuild": ["ADD inside"]}) == ["build-result"]


def solved(
    steps: Callable[[Steps], None], answer: bytes, *, asked: str = "r1", step: int = 16_384
) -> tuple[GrpcMediator, dict[str, str]]:
    """A Dockerfile that the daemon has answered for, and what a client is told that hands the reference on."""
    guard, client = GrpcMediator(lambda: POLICY, BuildIds(), checks=Checks(steps=steps)), Client()
    guard.client_bytes(GREETING + client.call(f"{BRIDGE}Solve", pb((2, "dockerfile.v0"), (5, 1), (6, 1))))
    message = with_prefix(answer)
    frames = [Frame(Type.DATA, 0, 1, message[at : at + step]).encode() for at in range(0, len(message), step)]
    passed = guard.server_bytes(write_settings({}) + b"".join(frames))
    assert b"".join(frames) in passed.to_client
    config = json.dumps({"config": {"Labels": dict(POLICY.labels)}})
    result = pb((1, pb((3, pb((1, asked))), (10, {"containerimage.config": config}))))
    told = guard.client_bytes(client.call(f"{BRIDGE}Return", result))
    return guard, read_answers(told.to_client).get(3, {"grpc-status": "0" if told.to_daemon else ""})


@pytest.mark.parametrize("step", [1, 7, 16_384])
def test_what_the_daemon_would_do_is_judged_before_it_is_handed_on(step: int) -> None:
    seen: list[Steps] = []

    def judge(steps: Steps) -> None:
        seen.append(steps)
        if any("inside" in str(source.name) for source in steps.sources):
            raise Denied("add-private-host", "It leads inside.")

    _, told = solved(judge, answer_of("r1", source("https://outside.example/x")), step=step)
    assert told["grpc-status"] == "0"
    guard, told = solved(judge, answer_of("r1", source("http://inside.example/x")), step=step)
    assert (told["grpc-status"], told["grpc-message"]) == ("7", "It leads inside.")
    assert len(seen) == 2
    assert guard.held.bytes == 0


def test_what_nobody_has_told_of_is_not_handed_on() -> None:
    for answer, asked in ((answer_of("r1"), "r2"), (pb((3, pb((1, "r1")))), "r1"), (b"", "r1")):
        _, told = solved(lambda _: None, answer, asked=asked)
        assert told["grpc-status"] == "7"
        assert "was not told" in told["grpc-message"]


def test_an_answer_that_is_not_understood_ends_the_connection() -> None:
    for answer in (answer_of("r1", pb((8, "x"))), pb((9, "x")), bytes((4 << 20) + 1)):
        with pytest.raises(Denied):
            solved(lambda _: None, answer)


def test_what_the_daemon_answers_is_held_no_longer_than_its_call() -> None:
    guard, client = GrpcMediator(lambda: POLICY, BuildIds()), Client()
    guard.client_bytes(GREETING + client.call(f"{BRIDGE}Solve", pb((2, "dockerfile.v0"))))
    guard.server_bytes(write_settings({}) + Frame(Type.DATA, 0, 1, with_prefix(bytes(9))[:9]).encode())
    assert guard.held.bytes == 9
    guard.client_bytes(rst_stream(1, 8))
    assert guard.held.bytes == 0


def test_each_call_is_judged_by_the_policy_of_its_time() -> None:
    now = [POLICY]
    ids = BuildIds()
    ids.open_session(SESSION)
    guard, client = GrpcMediator(lambda: now[0], ids), Client()
    guard.client_bytes(GREETING)
    now[0] = replace(POLICY, image=parse_reference("other/image:1"))
    answers = read_answers(guard.client_bytes(client.call(f"{CONTROL}Solve", solve())).to_client)
    assert "has to be named other/image:1" in answers[1]["grpc-message"]
