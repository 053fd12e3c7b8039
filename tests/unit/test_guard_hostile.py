"""What slow and greedy clients cost a guard: time that ends, and memory that is bounded for all of them together."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from caisson.guard.audit import Audit, Entry
from caisson.guard.grpc_mediator import GrpcMediator
from caisson.guard.held import Held
from caisson.guard.policy import GuardLimits
from caisson.guard.server import Guard
from caisson.guard.verdict import Denied
from tests.buildkit_client import BRIDGE, CONTROL, GREETING, IMAGE, POLICY, Client, read_answers
from tests.engine.guard_processes import guard_processes
from tests.engine.guarded import upgrade, upgraded
from tests.silent_daemon import silent_daemon

# More than a socket's buffers take.
LARGE = b'{"Id": "sha256:1", "Author": "%s"}' % (b"x" * (3 << 20))
INSPECT = f"GET /images/{IMAGE}/json HTTP/1.1\r\nHost: docker\r\n\r\n".encode()


@contextmanager
def guarded(directory: Path, **limits: float) -> Iterator[tuple[Guard, list[Entry]]]:
    entries: list[Entry] = []
    with silent_daemon(directory, LARGE) as daemon:
        guard = Guard(
            replace(POLICY, limits=GuardLimits(**limits)),  # type: ignore[arg-type]
            engine_socket=daemon.socket_path,
            socket_path=directory / "guard.sock",
            audit=Audit(echo=entries.append),
            check_dockerfile=lambda *_: None,
            serve_anyone=True,
        )
        with guard:
            yield guard, entries


@contextmanager
def connected(path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10)
        connection.connect(str(path))
        yield connection


def drip(connection: socket.socket, data: bytes) -> None:
    """A byte every few milliseconds, as long as the other end takes it."""
    with suppress(OSError):
        for index in range(len(data)):
            connection.sendall(data[index : index + 1])
            time.sleep(0.02)


def read_all(connection: socket.socket) -> bytes:
    received = b""
    with suppress(ConnectionResetError):
        while data := connection.recv(65_536):
            received += data
    return received


def test_a_body_that_drips_is_not_taken_for_ever(tmp_path: Path) -> None:
    framing = "Content-Type: application/x-tar\r\nContent-Length: 9000"
    head = f"POST /build?t={IMAGE} HTTP/1.1\r\nHost: docker\r\n{framing}\r\n\r\n"
    with (
        guarded(tmp_path, body_seconds=5, wait_seconds=0.5, least_rate=1_000) as (guard, _),
        connected(guard.socket_path) as connection,
    ):
        connection.sendall(head.encode())
        begun = time.monotonic()
        drip(connection, b"x" * 200)
        assert b"more slowly than 1000 bytes a second" in read_all(connection)
        assert time.monotonic() - begun < 4.5


@pytest.mark.parametrize("begun", [b"", GREETING, GREETING + Client().open(f"{CONTROL}Status")])
def test_a_call_that_drips_is_not_waited_for(tmp_path: Path, begun: bytes) -> None:
    with (
        guarded(tmp_path, body_seconds=0.5) as (guard, entries),
        upgraded(guard.socket_path, upgrade("/grpc")) as connection,
    ):
        connection.sendall(begun)
        if begun == GREETING:
            # Nothing was begun, and a build's clients are silent for as long as it lasts.
            time.sleep(1)
            connection.sendall(Client().call(f"{CONTROL}Prune"))
            assert read_answers(connection.recv(65_536))[1]["grpc-status"] == "7"
            return
        client = Client()
        client.stream = 1
        drip(connection, client.data(b"\0\0\0\4\0" + bytes(100)) if begun else GREETING[:20])
        assert b"not whole within 0.5 seconds" in read_all(connection)
    assert "http2-slow" in [entry.verdict.rule for entry in entries]


def test_a_client_that_does_not_read_is_let_go(tmp_path: Path) -> None:
    with guarded(tmp_path, send_seconds=0.5) as (guard, _), connected(guard.socket_path) as connection:
        connection.sendall(INSPECT)
        time.sleep(1.5)
        assert guard._service is not None
        assert guard._service.connections == 0
        assert guard._service.held.bytes == 0


def test_what_is_held_is_one_account_for_all_connections() -> None:
    def begin(size: int) -> bytes:
        client = Client()
        sent = (
            GREETING + client.open(f"{BRIDGE}Return") + client.data(b"\0" + (900 << 10).to_bytes(4, "big"), end=False)
        )
        return sent + b"".join(client.data(bytes(16_000), end=False) for _ in range(size // 16_000))

    held = Held(most=1 << 20)
    first, second = (GrpcMediator(lambda: POLICY, held=held) for _ in range(2))
    for guard in (first, second):
        guard.client_bytes(begin(320_000))
    third = GrpcMediator(lambda: POLICY, held=held)
    with pytest.raises(Denied, match="more than 1048576 bytes"):
        third.client_bytes(begin(800_000))
    for guard in (third, second, first):
        guard.close()
    assert held.bytes == 0


def test_few_connections_are_for_calls(tmp_path: Path) -> None:
    with guarded(tmp_path, grpc_at_once=2) as (guard, _), ExitStack() as stack:
        answers = []
        for _ in range(3):
            connection = stack.enter_context(connected(guard.socket_path))
            connection.sendall(upgrade("/grpc"))
            answers.append(connection.recv(12))
        assert answers == [b"HTTP/1.1 101", b"HTTP/1.1 101", b"HTTP/1.1 403"]


def greedy_call(number: int) -> bytes:
    """The most that one connection can have begun: messages of the largest size but for their ends."""
    client, sent = Client(), bytearray(GREETING)
    for _ in range(4):
        sent += client.open(f"{BRIDGE}Return", build_id=f"{number:025}")
        sent += client.data(b"\0" + (4 << 20).to_bytes(4, "big"), end=False)
        for _ in range(250):
            sent += client.data(bytes(16_384), end=False)
    return bytes(sent)


def test_memory_is_bounded_whatever_all_clients_together_send(tmp_path: Path) -> None:
    """32 connections: calls that never end, heads that never end, and questions whose answers nobody reads."""
    with silent_daemon(tmp_path, LARGE) as daemon, guard_processes(tmp_path, daemon.socket_path, [POLICY]) as (guard,):
        with ExitStack() as stack:
            for number in range(32):
                opened = upgraded(guard.socket, upgrade("/grpc")) if number < 8 else connected(guard.socket)
                connection = stack.enter_context(opened)
                connection.settimeout(0.2)
                with suppress(OSError):
                    if number < 8:
                        connection.sendall(greedy_call(number))
                    elif number < 20:
                        connection.sendall(b"GET /_ping HTTP/1.1\r\nX: " + b"x" * (255 << 10))
                    else:
                        connection.sendall(INSPECT)
            added = guard.added_memory()
        # Unbounded, the calls alone would be 128 MiB, and the answers 36 MiB; 17 MiB are usual.
        assert added < 64 << 20
        # And when they are gone, the next one is served.
        deadline = time.monotonic() + 10
        while not ping(guard.socket).startswith(b"HTTP/1.1 200"):
            assert time.monotonic() < deadline
            time.sleep(0.1)


def ping(path: Path) -> bytes:
    with connected(path) as connection:
        connection.sendall(b"GET /_ping HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n\r\n")
        return read_all(connection)
