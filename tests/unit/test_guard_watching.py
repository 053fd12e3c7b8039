"""A guard that only reports: every byte passes as it came, and what would be denied is told."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from caisson.guard.audit import Audit, Entry
from caisson.guard.http2 import Type, frame_head
from caisson.guard.policy import GuardLimits
from caisson.guard.server import Guard
from tests.buildkit_client import CONTROL, GREETING, IMAGE, POLICY, Client, pb, solve
from tests.engine.guarded import upgrade
from tests.silent_daemon import SilentDaemon, silent_daemon


@dataclass
class Watched:
    socket: Path
    daemon: SilentDaemon
    audit: Audit
    entries: list[Entry] = field(default_factory=list)

    def rules(self) -> list[str]:
        """What would be denied."""
        return [entry.verdict.rule for entry in self.entries if entry.would_deny]

    @contextmanager
    def connected(self) -> Iterator[socket.socket]:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(10)
            connection.connect(str(self.socket))
            yield connection

    def passes(self, sent: bytes) -> None:
        """These bytes, on a connection of their own, reach the engine as they are."""
        with self.connected() as connection:
            for at in range(0, len(sent), 100_000):
                connection.sendall(sent[at : at + 100_000])
            self.arrived(sent)

    def arrived(self, sent: bytes) -> None:
        deadline = time.monotonic() + 10
        while not any(bytes(received) == sent for received in self.daemon.received):
            assert time.monotonic() < deadline, (sent[:200], [bytes(part)[:200] for part in self.daemon.received])
            time.sleep(0.02)


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    entries: list[Entry] = []
    audit = Audit(echo=entries.append)
    with silent_daemon(tmp_path) as daemon:
        guard = Guard(
            replace(POLICY, limits=GuardLimits(connections=3)),
            engine_socket=daemon.socket_path,
            socket_path=tmp_path / "guard.sock",
            audit=audit,
            check_dockerfile=lambda *_: None,
            serve_anyone=True,
            only_report=True,
        )
        with guard:
            daemon.received.clear()
            yield Watched(guard.socket_path, daemon, audit, entries)


BUILD = (
    f"POST /v1.24/build?t={IMAGE}&memory=99999999999&cpuquota=-1 HTTP/1.1\r\nHost: x\r\nX-Odd: 1\r\n"
    "Content-Type: application/x-tar\r\nContent-Length: 700\r\n\r\n"
).encode()


@pytest.mark.parametrize(
    ("sent", "rules"),
    [
        (BUILD + b"no tar" + bytes(694), ["api-version"]),
        (BUILD.replace(b"v1.24", b"v1.41").replace(b"X-Odd: 1\r\n", b"") + bytes(699), ["build-memory"]),
        (b"POST /containers/create HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}", ["endpoint"]),
        (b"what is\nthis?\r\n\r\n and this", ["http", "unread"]),
        (b"POST /x HTTP/1.1\r\nX: " + b"x" * (300 << 10), ["http", "unread"]),
        (b"POST /a/../b HTTP/1.0\r\n\r\n", ["http", "unread"]),
        (
            b"POST /exec/1/start HTTP/1.1\r\nHost: x\r\nUpgrade: tcp\r\nConnection: Upgrade\r\n\r\nraw",
            ["endpoint", "unread"],
        ),
    ],
)
def test_whatever_is_sent_passes_as_it_came(watched: Watched, sent: bytes, rules: list[str]) -> None:
    watched.passes(sent)
    assert watched.rules() == rules


def test_requests_on_one_connection_are_each_told(watched: Watched) -> None:
    body = b"POST /containers/create HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"
    watched.passes(body + b"POST /volumes/prune HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n" + body)
    assert [entry.path for entry in watched.entries if entry.would_deny] == [
        "/containers/create", "/volumes/prune", "/containers/create",
    ]  # fmt: skip


def test_more_connections_and_builds_than_would_be_served_are(watched: Watched) -> None:
    build = (
        BUILD.replace(b"v1.24", b"v1.41").replace(b"X-Odd: 1\r\n", b"").replace(b"&memory=99999999999&cpuquota=-1", b"")
    )
    with ExitStack() as stack:
        for _ in range(8):
            connection = stack.enter_context(watched.connected())
            connection.sendall(build)
            time.sleep(0.05)
        deadline = time.monotonic() + 10
        while len([part for part in watched.daemon.received if bytes(part) == build]) < 8:
            assert time.monotonic() < deadline
            time.sleep(0.02)
    assert watched.rules().count("build-busy") == 7
    assert watched.rules().count("connections") == 5


def stream(watched: Watched, request: bytes, sent: bytes) -> None:
    with watched.connected() as connection:
        connection.sendall(request)
        assert connection.recv(4096).startswith(b"HTTP/1.1 101")
        connection.sendall(sent)
        watched.arrived(request + sent)


def test_a_stream_is_told_to_its_end(watched: Watched) -> None:
    client, twice = Client(), Client()
    broken = frame_head(5, Type.PRIORITY, 0, 1) + bytes(5) + client.open(f"{CONTROL}Status", more=[("x-odd", "1")])
    sent = GREETING + broken + client.data(b"\0\0\0\0\0") + client.call(f"{CONTROL}Prune")
    sent += client.call(f"{CONTROL}Solve", solve(image="other:1")) + client.call(f"{CONTROL}Solve", solve((9, "x")))
    stream(watched, upgrade("/grpc"), sent)
    assert watched.rules() == ["http2-frame", "grpc-header", "buildkit-method", "build-name", "build-entitlements"]
    # A second stream of another build, and calls that would wait for a session.
    stream(watched, upgrade("/grpc"), GREETING + twice.call(f"{CONTROL}Status", pb((1, "c" * 25))))
    assert len(watched.rules()) == 5


def test_a_session_of_any_id_passes(watched: Watched) -> None:
    odd = upgrade("/session", uuid="An-Odd-ID")
    stream(watched, odd, frame_head(5, Type.PRIORITY, 0, 1) + b"what?" + b"x" * 1_000)
    assert watched.rules()[0] == "session-header"
    watched.entries.clear()
    stream(watched, upgrade("/session", uuid="s" * 25), frame_head(5, Type.PRIORITY, 0, 1) + b"what?")
    assert watched.rules() == ["http2-frame"]


def test_where_nothing_can_be_recorded_any_more_bytes_still_pass(watched: Watched) -> None:
    watched.audit._most_lines = 0
    watched.passes(b"POST /containers/create HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}")
    # The counts go on.
    assert watched.audit.summary().denied == 1
