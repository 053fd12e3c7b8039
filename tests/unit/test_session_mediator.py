"""The guard on the session: the daemon calls what a build needs, and the builder answers in proper frames."""

from __future__ import annotations

import pytest

from caisson.guard.grpc import refusal, with_prefix
from caisson.guard.http2 import END_HEADERS, END_STREAM, PREFACE, Frame, Type, frame_head, window_update, write_settings
from caisson.guard.session_mediator import DIFF_COPY, SessionMediator
from caisson.guard.verdict import Denied
from tests.buildkit_client import Client, pb
from tests.unit.test_dockerfile_stream import file, stat

FILES = ("Dockerfile", "Dockerfile.dockerignore")
SETTINGS = write_settings({})


def deny_bad(content: bytes) -> None:
    if content == b"FROM bad\n":
        raise Denied("test", "It is bad.")


def called(path: str = "", *, directory: str = "context") -> SessionMediator:
    session, daemon = SessionMediator(deny_bad), Client()
    call = PREFACE + SETTINGS + (daemon.open(path) if path else daemon.ask(*FILES, directory=directory))
    assert session.server_bytes(call) == (b"", call)
    assert session.client_bytes(SETTINGS).to_daemon == SETTINGS
    return session


def data(payload: bytes, stream: int = 1) -> bytes:
    return Frame(Type.DATA, 0, stream, payload).encode()


def test_the_context_passes_as_it_comes() -> None:
    session = called()
    sent = b"".join(
        data(piece) for piece in (with_prefix(file(1, b"x" * 16_000)[0]), with_prefix(file(1, b"y" * 20)[0]))
    )
    assert b"".join(session.client_bytes(sent[at : at + 7]).to_daemon for at in range(0, len(sent), 7)) == sent
    big = data(with_prefix(file(1, b"z")[0]))
    assert session.client_bytes(big).to_daemon is big


def test_what_the_daemon_calls_is_told_once() -> None:
    session = called()
    assert [(path, verdict.allowed) for path, verdict in session.verdicts()] == [(DIFF_COPY, True)]
    assert session.verdicts() == []


def test_the_daemon_asks_for_the_context_and_the_dockerfile_alone() -> None:
    called(directory="dockerfile")
    for directory in ("other", "Dockerfile", "", "context:x"):
        with pytest.raises(Denied, match="no build needs"):
            called(directory=directory)


SENT = (data(with_prefix(stat("Dockerfile")) + with_prefix(b"")), data(with_prefix(file(0, b"FROM bad\n")[0])))
END = data(with_prefix(file(0, b"")[1]))
ANSWERED = Frame(Type.HEADERS, END_HEADERS, 1, b"\x88").encode()


@pytest.mark.parametrize("step", [1, 7, 1 << 20])
@pytest.mark.parametrize("begun", [True, False])
def test_a_denied_dockerfile_never_ends_for_the_daemon(step: int, *, begun: bool) -> None:
    session = called(directory="dockerfile")
    sent = (ANSWERED if begun else b"") + b"".join(SENT)
    after = data(b"more") + data(with_prefix(file(0, b"FROM good\n")[0])) + ANSWERED + window_update(1, 1)
    stream = sent + END + after
    passed = b"".join(session.client_bytes(stream[at : at + step]).to_daemon for at in range(0, len(stream), step))
    instead = data(with_prefix(pb((1, 4), (4, "It is bad.")))) if begun else refusal(1, 7, "It is bad.")
    assert passed == sent + instead + ANSWERED + window_update(1, 1)
    assert [(path, verdict.rule) for path, verdict in session.verdicts()[1:]] == [(DIFF_COPY, "test")]
    ended = Frame(Type.DATA, END_STREAM, 1, b"").encode() + Frame(Type.RST_STREAM, 0, 1, bytes(4)).encode()
    assert session.client_bytes(ended + data(b"more")).to_daemon == Frame(Type.RST_STREAM, 0, 1, bytes(4)).encode()


def test_a_denial_in_the_middle_of_a_message_ends_the_call() -> None:
    session, end = called(directory="dockerfile"), with_prefix(file(0, b"")[1])
    sent = ANSWERED + b"".join(SENT) + data(end[:3])
    assert session.client_bytes(sent).to_daemon == sent
    assert session.client_bytes(data(end[3:])).to_daemon == refusal(1, 7, "It is bad.", begun=True)


def test_other_calls_go_on_after_a_dockerfile_was_denied() -> None:
    session, daemon = SessionMediator(deny_bad), Client()
    call = PREFACE + SETTINGS + daemon.ask(*FILES) + daemon.ask(directory="context") + daemon.ask(*FILES)
    assert session.server_bytes(call).to_client == call
    context, good = (
        data(with_prefix(file(2, b"xyz")[0]), 3),
        b"".join(with_prefix(part) for part in file(0, b"FROM good\n")),
    )
    sent = SETTINGS + b"".join(SENT) + context[:12]
    assert session.client_bytes(sent).to_daemon == sent
    rest = context[12:] + data(with_prefix(stat("Dockerfile")) + with_prefix(b"") + good, 5)
    assert session.client_bytes(rest + END + context).to_daemon == rest + refusal(1, 7, "It is bad.") + context
    assert [verdict.rule for _, verdict in session.verdicts()] == ["session-method", "dockerfile", "test"]


def test_a_long_reason_fits_into_a_frame() -> None:
    def deny(content: bytes) -> None:
        raise Denied("test", "\N{GRINNING FACE}" * 50_000)

    for begun in (b"", ANSWERED):
        session = SessionMediator(deny)
        session.server_bytes(PREFACE + SETTINGS + Client().ask(*FILES))
        assert len(session.client_bytes(SETTINGS + begun + b"".join(SENT) + END).to_daemon) < 1 << 14


@pytest.mark.parametrize(
    "path",
    [
        "/moby.filesync.v1.FileSend/DiffCopy",
        "/moby.filesync.v1.FileSync/TarStream",
        "/moby.upload.v1.Upload/Pull",
        "/other/Method",
    ],
)
def test_the_daemon_calls_nothing_else(path: str) -> None:
    with pytest.raises(Denied, match="no build needs"):
        called(path)


@pytest.mark.parametrize(
    ("sent", "rule"),
    [
        (data(b"x", stream=3), "http2-stream"),
        (data(b"x", stream=2), "http2-stream"),
        (Frame(Type.HEADERS, END_HEADERS, 3, b"\x88").encode(), "http2-stream"),
        (frame_head(16_385, Type.DATA, 0, 1), "http2-frame"),
        (frame_head(4, Type.PUSH_PROMISE, 0, 1), "http2-frame"),
        (frame_head(1, Type.DATA, 8, 1), "http2-frame"),
        (data(b"\x01\x00\x00\x00\x00"), "grpc-message"),
        (data(b"\x00\xff\x00\x00\x00"), "grpc-message"),
        (data(b"") * 2_000, "http2-flood"),
        (window_update(0, 1) * 2_000, "http2-flood"),
        (Frame(Type.HEADERS, 0, 1, b"\x88").encode() + data(b"x"), "http2-headers"),
        (Frame(Type.HEADERS, 0, 1, b"").encode() + Frame(Type.CONTINUATION, 0, 1, b"").encode() * 9, "http2-headers"),
    ],
)
def test_what_is_no_answer_ends_the_session(sent: bytes, rule: str) -> None:
    with pytest.raises(Denied) as caught:
        called().client_bytes(sent)
    assert caught.value.rule == rule
