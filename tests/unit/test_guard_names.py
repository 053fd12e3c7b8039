"""While a name that a Dockerfile has chosen is waited for, others are served, and nothing that waits is half judged."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from caisson.guard.audit import Audit, Entry
from caisson.guard.dockerfile_check import dockerfile_check
from caisson.guard.dockerfile_lines import Dialect
from caisson.guard.dockerfile_names import Names, Unasked
from caisson.guard.dockerfile_policy import DockerfilePolicy
from caisson.guard.dockerfile_stages import BuildInputs
from caisson.guard.grpc import with_prefix
from caisson.guard.http2 import END_HEADERS, Frame, Type, write_settings
from caisson.guard.server import Guard
from caisson.guard.settling import settled
from caisson.guard.verdict import Denied
from tests.buildkit_client import BRIDGE, CONTROL, GREETING, IMAGE, POLICY, SESSION, Client, pb
from tests.engine.attacks.lab import tar
from tests.engine.guarded import upgrade
from tests.silent_daemon import SilentDaemon, silent_daemon
from tests.unit.test_dockerfile_stream import file, stat

INSIDE, OUTSIDE = "10.0.0.1", "1.1.1.1"
DOCKERFILE = "FROM scratch\nADD http://slow.example/x /x\n"
RULES = DockerfilePolicy(Dialect.HEREDOCS, "caisson.local")


class Slow:
    """A resolver that hangs until it is told what to answer."""

    def __init__(self) -> None:
        self.asked, self._told, self._address = threading.Event(), threading.Event(), ""

    def __call__(self, name: str) -> tuple[str, ...]:
        self.asked.set()
        assert self._told.wait(30)
        return (self._address,)

    def answer(self, address: str) -> None:
        self._address = address
        self._told.set()


@dataclass(frozen=True)
class Way:
    """One way in which a Dockerfile comes. ``end`` reaches the engine only if allowed, ``behind`` after it."""

    request: bytes
    sent: bytes
    end: bytes
    behind: bytes = b""
    greeting: bytes = b""


def _classic() -> Way:
    context = tar({"Dockerfile": DOCKERFILE})
    head = f"POST /build?t={IMAGE} HTTP/1.1\r\nHost: docker\r\nContent-Type: application/x-tar\r\n"
    return Way(f"{head}Content-Length: {len(context)}\r\n\r\n".encode(), context, b"\r\n0\r\n\r\n")


def _session() -> Way:
    def data(*packets: bytes) -> bytes:
        return Frame(Type.DATA, 0, 1, b"".join(map(with_prefix, packets))).encode()

    begun, ended = file(0, DOCKERFILE.encode())
    answered = Frame(Type.HEADERS, END_HEADERS, 1, b"\x88").encode()
    behind = Frame(Type.PING, 0, 0, b"behind..").encode()
    sent = write_settings({}) + answered + data(stat("Dockerfile"), b"") + data(begun) + data(ended) + behind
    asks = GREETING + Client().ask("Dockerfile", "Dockerfile.dockerignore")
    return Way(upgrade("/session", uuid=SESSION), sent, data(ended), behind, asks)


def _triggers() -> Way:
    config = {"Labels": dict(POLICY.labels), "OnBuild": ["RUN true", "ADD http://slow.example/ /x"]}
    client = Client()
    result = pb((1, pb((10, {"containerimage.config": json.dumps({"config": config})}))))
    sent = GREETING + client.open(f"{BRIDGE}Return") + client.data(with_prefix(result))
    return Way(upgrade("/grpc"), sent + client.call(f"{CONTROL}ListWorkers"), b"LLBBridge/Return", b"ListWorkers")


WAYS = {"classic": _classic(), "session": _session(), "triggers": _triggers()}


@dataclass
class Trial:
    guard: Guard
    daemon: SilentDaemon
    slow: Slow
    entries: list[Entry] = field(default_factory=list)

    def received(self, what: bytes) -> bool:
        return any(what in bytes(each) for each in self.daemon.received)

    def decided(self, rule: str) -> bool:
        return any(entry.verdict.rule == rule for entry in self.entries if not entry.verdict.allowed)


@contextmanager
def trial(directory: Path, way: Way, *, only_report: bool = False) -> Iterator[Trial]:
    slow, entries = Slow(), list[Entry]()
    with silent_daemon(directory, greeting=way.greeting) as daemon:
        guard = Guard(
            POLICY,
            engine_socket=daemon.socket_path,
            socket_path=directory / "guard.sock",
            audit=Audit(echo=entries.append),
            check_dockerfile=dockerfile_check(RULES, Names(20, ask=slow)),
            serve_anyone=True,
            only_report=only_report,
        )
        with guard:
            daemon.received.clear()
            yield Trial(guard, daemon, slow, entries)


@contextmanager
def sent(guard: Guard, way: Way) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10)
        connection.connect(str(guard.socket_path))
        connection.sendall(way.request)
        if b"Upgrade" in way.request:
            received = b""
            # What the engine asks has to be there before it is answered.
            while not received.endswith(b"\r\n\r\n" + way.greeting):
                part = connection.recv(65_536)
                assert part
                received += part
        connection.sendall(way.sent)
        yield connection


def ping(path: Path) -> bytes:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10)
        connection.connect(str(path))
        connection.sendall(b"GET /_ping HTTP/1.1\r\nHost: docker\r\n\r\n")
        return connection.recv(65_536)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("address", [OUTSIDE, INSIDE])
@pytest.mark.parametrize("name", WAYS)
def test_a_ping_is_answered_while_a_name_hangs(tmp_path: Path, name: str, address: str) -> None:
    way = WAYS[name]
    with trial(tmp_path, way) as tried, sent(tried.guard, way):
        assert tried.slow.asked.wait(10)
        for _ in range(5):
            begun = time.monotonic()
            assert ping(tried.guard.socket_path).startswith(b"HTTP/1.1 200")
            assert time.monotonic() - begun < 2
        # It waits, and what came behind it too.
        assert not tried.received(way.end)
        assert not way.behind or not tried.received(way.behind)
        tried.slow.answer(address)
        if address == INSIDE:
            until(lambda: tried.decided("add-private-host"))
            until(lambda: not way.behind or tried.received(way.behind))
        else:
            until(lambda: tried.received(way.end + way.behind if name == "session" else way.end))
        assert tried.received(way.end) is (address == OUTSIDE)


@pytest.mark.parametrize("name", WAYS)
def test_whoever_only_looks_on_serves_others_too(tmp_path: Path, name: str) -> None:
    way = WAYS[name]
    with trial(tmp_path, way, only_report=True) as tried, sent(tried.guard, way):
        assert tried.slow.asked.wait(10)
        assert ping(tried.guard.socket_path).startswith(b"HTTP/1.1 200")
        tried.slow.answer(INSIDE)
        until(lambda: tried.decided("add-private-host"))
        until(lambda: tried.received(way.sent))


def test_the_end_of_the_guard_does_not_wait_for_a_name_for_ever(tmp_path: Path) -> None:
    way = WAYS["session"]
    with trial(tmp_path, way) as tried, sent(tried.guard, way):
        assert tried.slow.asked.wait(10)
        threading.Timer(0.5, tried.slow.answer, [OUTSIDE]).start()
    assert not tried.received(way.end)


def test_only_names_that_are_not_known_are_asked_for_and_all_together() -> None:
    asked: list[str] = []

    def ask(name: str) -> tuple[str, ...]:
        asked.append(name)
        return (OUTSIDE,)

    check = dockerfile_check(RULES, Names(ask=ask))
    text = b"FROM scratch\nADD http://a.example/ /\nADD http://b.example/ /\nADD http://a.example/x /\n"
    with pytest.raises(Unasked) as unasked:
        check(text, BuildInputs("classic"))
    assert asked == []
    unasked.value.ask()
    assert asked == ["a.example", "b.example"]
    check(text, BuildInputs("classic"))


def test_what_never_comes_to_an_end_is_denied() -> None:
    forgetful = Names(ask=lambda _: (OUTSIDE,), clock=iter(range(0, 10**9, 100)).__next__)
    check = dockerfile_check(RULES, forgetful)
    with pytest.raises(Denied, match="could not be asked for in time"):
        asyncio.run(settled(lambda: check(DOCKERFILE.encode(), BuildInputs("classic"))))
