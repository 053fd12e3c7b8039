"""A push whose engine or registry is gone or says nothing, by an engine that answers as the test wants."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from caisson.docker_engine import DockerEngine
from caisson.engine import PushProgress, RegistryAuth
from caisson.errors import EngineLost, RegistryUnreachable
from caisson.push import should_retry

DIGEST = "sha256:" + "1" * 64
PROGRESS = {"id": "a", "status": "Pushing", "progressDetail": {"current": 1, "total": 2}}
Serve = Callable[[socket.socket, bytes], None]


def _chunk(line: object) -> bytes:
    text = json.dumps(line).encode() + b"\r\n"
    return b"%x\r\n%s\r\n" % (len(text), text)


BEGIN = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + _chunk(PROGRESS)


@contextmanager
def _engine(path: Path, push: Serve) -> Iterator[DockerEngine]:
    """``push`` has the connection, and what was asked on it."""

    def serve(connection: socket.socket) -> None:
        with connection:
            while asked := connection.recv(65536):
                if b"/push" in asked:
                    push(connection, asked)
                    return
                version = b'{"ApiVersion": "1.41"}'
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(version), version))

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        threading.Thread(target=accept, daemon=True).start()
        with DockerEngine(f"unix://{path}") as engine:
            yield engine
        listener.shutdown(socket.SHUT_RDWR)


def _push(engine: DockerEngine, silence: float = 30) -> tuple[list[PushProgress], str]:
    auth = RegistryAuth("r.example:5000", "ada", "pw")
    said, progress = [], engine.push_image("r.example:5000/team/app:v1", auth, silence=silence)
    while True:
        try:
            said.append(next(progress))
        except StopIteration as end:
            return said, str(end.value)


def test_a_push_tells_its_progress_and_its_digest(tmp_path: Path) -> None:
    asked: list[bytes] = []

    def push(connection: socket.socket, request: bytes) -> None:
        asked.append(request)
        connection.sendall(BEGIN + _chunk({"aux": {"Digest": DIGEST}}) + b"0\r\n\r\n")

    with _engine(tmp_path / "socket", push) as engine:
        assert _push(engine) == ([PushProgress("a", "Pushing", 1, 2)], DIGEST)
    assert asked[0].startswith(b"POST /v1.41/images/r.example:5000/team/app/push?tag=v1 ")
    assert b"X-Registry-Auth: " in asked[0]


@pytest.mark.parametrize("end", [b"", b"40\r\n{", b"zz\r\n"], ids=["between lines", "in a line", "nonsense"])
def test_an_engine_that_dies_during_a_push_is_lost(tmp_path: Path, end: bytes) -> None:
    with (
        _engine(tmp_path / "socket", lambda connection, _: connection.sendall(BEGIN + end)) as engine,
        pytest.raises(EngineLost, match="during the push"),
    ):
        _push(engine)


@pytest.mark.parametrize("begin", [b"", BEGIN], ids=["from the beginning", "after some progress"])
def test_a_push_of_which_nothing_is_heard_is_a_registrys_fault(tmp_path: Path, begin: bytes) -> None:
    over = threading.Event()

    def push(connection: socket.socket, _: bytes) -> None:
        connection.sendall(begin)
        over.wait(30)

    with _engine(tmp_path / "socket", push) as engine, pytest.raises(RegistryUnreachable) as caught:
        _push(engine, silence=0.2)
    over.set()
    assert should_retry(caught.value)
    assert "r.example:5000/team/app:v1" in caught.value.message
