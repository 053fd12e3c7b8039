"""The guard on the session: the daemon calls what a build needs, and the builder answers in proper frames."""

from __future__ import annotations

import pytest

from caisson.guard.grpc import with_prefix
from caisson.guard.http2 import END_HEADERS, PREFACE, Frame, Type, frame_head, window_update, write_settings
from caisson.guard.session_mediator import SessionMediator
from caisson.guard.verdict import Denied
from tests.buildkit_client import Client

DIFF_COPY = "/moby.filesync.v1.FileSync/DiffCopy"
SETTINGS = write_settings({})


def called(path: str = DIFF_COPY) -> SessionMediator:
    session = SessionMediator()
    call = PREFACE + SETTINGS + Client().open(path)
    assert session.server_bytes(call) == (b"", call)
    assert session.client_bytes(SETTINGS).to_daemon == SETTINGS
    return session


def data(payload: bytes, stream: int = 1) -> bytes:
    return Frame(Type.DATA, 0, stream, payload).encode()


def test_the_context_passes_as_it_comes() -> None:
    session = called()
    sent = b"".join(data(piece) for piece in (with_prefix(b"x" * 16_000), with_prefix(b"y" * 20)))
    assert b"".join(session.client_bytes(sent[at : at + 7]).to_daemon for at in range(0, len(sent), 7)) == sent
    big = data(with_prefix(b"z"))
    assert session.client_bytes(big).to_daemon is big


def test_what_the_daemon_calls_is_told_once() -> None:
    session = called()
    assert [(path, verdict.allowed) for path, verdict in session.verdicts()] == [(DIFF_COPY, True)]
    assert session.verdicts() == []


@pytest.mark.parametrize(
    "path", ["/moby.filesync.v1.FileSend/DiffCopy", "/moby.upload.v1.Upload/Pull", "/other/Method"]
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
