"""What clients may cost the guard, and what is left of it when it ends: tried on a real engine."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from caisson.errors import SettingsInvalid
from caisson.guard.audit import Audit, Entry
from caisson.guard.dockerfile_stages import BuildInputs
from caisson.guard.policy import GuardLimits, GuardPolicy
from caisson.guard.server import Guard
from caisson.reference import parse_reference
from tests.conftest import EngineHost
from tests.engine.attacks.lab import BASE, Recorder, speak, tar

PING = b"GET /_ping HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n\r\n"
_NAME = f"limits-{os.getpid()}"
_IMAGE = f"caisson-attack/{_NAME}:build"
POLICY = GuardPolicy(image=parse_reference(_IMAGE), build_id="limits", memory=256 << 20)


def any_dockerfile(dockerfile: bytes, inputs: BuildInputs) -> None:
    """What a Dockerfile has in it is no matter here."""


@dataclass(frozen=True)
class Guarded:
    guard: Guard
    recorder: Recorder
    entries: list[Entry]

    @property
    def path(self) -> Path:
        return self.guard.socket_path

    def connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(10)
        connection.connect(str(self.path))
        return connection

    def connections(self) -> int:
        """How many the guard has open now."""
        service = self.guard._service
        return service.connections if service else 0

    def rules(self) -> list[str]:
        """Of what was denied."""
        return [entry.verdict.rule for entry in self.entries if not entry.verdict.allowed]


@contextmanager
def guarded(host: EngineHost, directory: Path, **limits: float) -> Iterator[Guarded]:
    entries: list[Entry] = []
    recorder = Recorder(directory / "engine.sock", host.socket)
    policy = replace(POLICY, limits=GuardLimits(**limits))  # type: ignore[arg-type]
    guard = Guard(
        policy,
        engine_socket=recorder.path,
        directory=directory / "guard",
        check_dockerfile=any_dockerfile,
        audit=Audit(echo=entries.append, most_lines=policy.limits.audit_lines),
        serve_anyone=True,
    )
    try:
        with guard:
            yield Guarded(guard, recorder, entries)
    finally:
        recorder.close()


def build_head(length: int) -> bytes:
    return (
        f"POST /build?t={_IMAGE} HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n"
        f"Content-Type: application/x-tar\r\nContent-Length: {length}\r\n\r\n"
    ).encode()


def wait_for(what: Callable[[], bool], seconds: float = 10) -> bool:
    deadline = time.monotonic() + seconds
    while not what():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def read_all(connection: socket.socket) -> bytes:
    received = b""
    while part := connection.recv(65_536):
        received += part
    return received


def test_a_head_that_comes_too_slowly_is_not_waited_for(engine_host: EngineHost, tmp_path: Path) -> None:
    with guarded(engine_host, tmp_path, header_seconds=0.5) as guarding, guarding.connect() as connection:
        begun = time.monotonic()
        for letter in PING[:-1]:
            try:
                connection.sendall(bytes((letter,)))
            except BrokenPipeError:
                break
            time.sleep(0.02)
        assert b"did not come in time" in read_all(connection)
        assert 0.5 <= time.monotonic() - begun < 3
        assert guarding.rules() == ["http"]


def test_a_connection_on_which_nothing_comes_is_closed(engine_host: EngineHost, tmp_path: Path) -> None:
    with guarded(engine_host, tmp_path, idle_seconds=0.3) as guarding:
        with guarding.connect() as silent:
            assert read_all(silent) == b""
        with guarding.connect() as kept:
            kept.sendall(PING.replace(b"Connection: close\r\n", b""))
            answered = read_all(kept)
            assert answered.startswith(b"HTTP/1.1 200 OK")
            assert b"OK" in answered.partition(b"\r\n\r\n")[2]


def test_a_body_that_stops_is_not_waited_for_and_the_next_build_is_served(
    engine_host: EngineHost, tmp_path: Path
) -> None:
    context = tar({"Dockerfile": "FROM scratch\nCOPY Dockerfile /\n"})
    with guarded(engine_host, tmp_path, body_seconds=0.3) as guarding:
        with guarding.connect() as stopped:
            stopped.sendall(build_head(len(context)) + context[:600])
            assert read_all(stopped) == b""
        assert b"Successfully built" in speak(guarding.path, build_head(len(context)) + context).data
    remove_image(engine_host)


def remove_image(host: EngineHost) -> None:
    subprocess.run(["docker", "--host", host.docker_host, "rmi", "-f", _IMAGE], capture_output=True, check=True)


def test_connections_beyond_the_limit_are_told_so_and_do_no_harm(engine_host: EngineHost, tmp_path: Path) -> None:
    with guarded(engine_host, tmp_path, connections=4) as guarding, ExitStack() as stack:
        kept = [stack.enter_context(guarding.connect()) for _ in range(4)]
        assert wait_for(lambda: guarding.connections() == 4)
        refused = speak(guarding.path, PING)
        assert refused.status == 403
        assert b"More than 4 connections" in refused.data
        # More than twice the limit wait in the kernel's queue.
        many = [stack.enter_context(guarding.connect()) for _ in range(30)]
        for connection in (*kept, *many):
            connection.close()
        assert wait_for(lambda: speak(guarding.path, PING).status == 200)
        assert set(guarding.rules()) == {"connections"}


def test_one_build_at_a_time(engine_host: EngineHost, tmp_path: Path) -> None:
    context = tar({"Dockerfile": "FROM scratch\nCOPY Dockerfile /\n"})
    with guarded(engine_host, tmp_path) as guarding:
        with guarding.connect() as first:
            first.sendall(build_head(len(context)) + context[:600])
            assert wait_for(
                lambda: len(guarding.recorder.sent) > 0 and "allow" in {e.verdict.decision for e in guarding.entries}
            )
            second = speak(guarding.path, build_head(len(context)) + context)
            assert second.status == 403
            assert guarding.rules() == ["build-busy"]
        assert wait_for(lambda: speak(guarding.path, build_head(len(context)) + context).status == 200)
    remove_image(engine_host)


def test_a_context_beyond_the_limit_ends_the_build(engine_host: EngineHost, tmp_path: Path) -> None:
    context = tar({"Dockerfile": "FROM scratch\nCOPY x /\n", "x": "x" * (2 << 20)})
    with guarded(engine_host, tmp_path, context_bytes=1 << 20) as guarding:
        refused = speak(guarding.path, build_head(len(context)) + context)
        assert refused.status == 403
        assert b"larger than 1048576 bytes" in refused.data
        assert not any(bytes(sent).endswith(b"\r\n0\r\n\r\n") for sent in guarding.recorder.sent)


def test_a_head_without_an_end_is_not_kept(engine_host: EngineHost, tmp_path: Path) -> None:
    with guarded(engine_host, tmp_path, head_bytes=4096) as guarding:
        refused = speak(guarding.path, b"GET /_ping HTTP/1.1\r\nX-A: " + b"a" * 100_000)
        assert refused.status == 400
        assert b"longer than 4096 bytes" in refused.data


def test_after_the_last_line_of_the_audit_nothing_is_allowed(engine_host: EngineHost, tmp_path: Path) -> None:
    with guarded(engine_host, tmp_path, audit_lines=5) as guarding:
        answers = [speak(guarding.path, PING).status for _ in range(6)]
        assert answers[:2] == [200, 200]
        assert answers[-1] == 403
        assert speak(guarding.path, b"GET /version HTTP/1.1\r\nHost: docker\r\n\r\n").status == 403


def test_without_an_engine_the_guard_says_so(engine_host: EngineHost, tmp_path: Path) -> None:
    with guarded(engine_host, tmp_path) as guarding:
        guarding.recorder.close()
        guarding.recorder.path.unlink()
        # A ping would be answered all the same: the guard has asked for all of it before.
        inspect = PING.replace(b"/_ping", f"/images/{POLICY.image}/json".encode())
        answer = speak(guarding.path, inspect)
        assert answer.status == 502
        assert b"does not answer" in answer.data


LONG = tar({"Dockerfile": f"FROM {BASE}\nLABEL attack={_NAME}\nRUN echo begun && sleep 600\n"})


def running_steps(host: EngineHost) -> list[str]:
    """The containers of the long build."""
    command = ["docker", "--host", host.docker_host, "ps", "-q", "--no-trunc", "--filter", f"label=attack={_NAME}"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()


@contextmanager
def long_build(host: EngineHost, path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(30)
        connection.connect(str(path))
        connection.sendall(build_head(len(LONG)) + LONG)
        received = b""
        while b"begun\\n" not in received:
            part = connection.recv(65_536)
            assert part, received
            received += part
        # What it says may come a moment before the engine takes it for running.
        assert wait_for(lambda: len(running_steps(host)) == 1)
        yield connection


def test_a_client_that_is_gone_ends_its_build_on_the_engine(engine_host: EngineHost, tmp_path: Path) -> None:
    with guarded(engine_host, tmp_path) as guarding:
        with long_build(engine_host, guarding.path):
            pass
        assert wait_for(lambda: not running_steps(engine_host))


def test_the_end_of_the_guard_ends_its_build_and_its_socket(engine_host: EngineHost, tmp_path: Path) -> None:
    with ExitStack() as stack:
        with guarded(engine_host, tmp_path) as guarding:
            stack.enter_context(long_build(engine_host, guarding.path))
            idle = stack.enter_context(guarding.connect())
        assert not guarding.path.exists()
        # Reset where it was not yet accepted.
        with suppress(ConnectionResetError):
            assert read_all(idle) == b""
        with pytest.raises(OSError):
            guarding.connect()
        assert wait_for(lambda: not running_steps(engine_host))


_CHILD = """
import sys, time
from pathlib import Path
from caisson.guard.dockerfile_stages import BuildInputs
from caisson.guard.policy import GuardPolicy
from caisson.guard.server import Guard
from caisson.reference import parse_reference
policy = GuardPolicy(image=parse_reference(sys.argv[1]), build_id=sys.argv[4])
with Guard(policy, engine_socket=Path(sys.argv[2]), directory=Path(sys.argv[3]),
           check_dockerfile=lambda *_: None, serve_anyone=True):
    print("ready", flush=True)
    time.sleep(600)
"""


def test_a_guard_that_is_killed_leaves_no_build_and_its_socket_is_removed_by_the_next(
    engine_host: EngineHost, tmp_path: Path
) -> None:
    directory = tmp_path / "guards"

    def start(name: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", _CHILD, _IMAGE, str(engine_host.socket), str(directory), name]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        return process

    first = start("first")
    try:
        with long_build(engine_host, directory / "first.sock"):
            first.kill()
            first.wait(timeout=10)
            assert wait_for(lambda: not running_steps(engine_host))
        assert (directory / "first.sock").is_socket()
        (directory / "note.sock").write_text("no socket")
        second = start("second")
        try:
            assert not (directory / "first.sock").exists()
            assert (directory / "note.sock").read_text() == "no socket"
            with Guard(
                replace(POLICY, build_id="third"),
                engine_socket=engine_host.socket,
                check_dockerfile=any_dockerfile,
                directory=directory,
            ):
                # That of a living one stays.
                assert speak(directory / "second.sock", PING).status == 200
            assert speak(directory / "second.sock", PING).status == 200
        finally:
            second.terminate()
            second.wait(timeout=10)
    finally:
        first.kill()
        first.wait(timeout=10)


def test_the_socket_is_for_its_owner_or_one_group(engine_host: EngineHost, tmp_path: Path) -> None:
    directory = tmp_path / "guards"
    with Guard(POLICY, engine_socket=engine_host.socket, check_dockerfile=any_dockerfile, directory=directory) as guard:
        assert stat.S_IMODE(guard.socket_path.stat().st_mode) == 0o600
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    with Guard(
        POLICY, engine_socket=engine_host.socket, check_dockerfile=any_dockerfile, directory=directory, gid=4711
    ) as guard:
        found = guard.socket_path.stat()
        assert (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid) == (0o660, os.geteuid(), 4711)


def test_a_directory_that_others_write_to_is_refused(engine_host: EngineHost, tmp_path: Path) -> None:
    directory = tmp_path / "open"
    directory.mkdir()
    directory.chmod(0o777)
    with (
        pytest.raises(SettingsInvalid, match="written to by others"),
        Guard(POLICY, engine_socket=engine_host.socket, check_dockerfile=any_dockerfile, directory=directory),
    ):
        pass
    assert list(directory.iterdir()) == []


def test_many_denials_at_once_are_all_recorded_and_answered(engine_host: EngineHost, tmp_path: Path) -> None:
    with guarded(engine_host, tmp_path) as guarding:
        with ExitStack() as stack:
            connections = [stack.enter_context(guarding.connect()) for _ in range(25)]
            for connection in connections:
                connection.sendall(b"GET /containers/json HTTP/1.1\r\nHost: docker\r\n\r\n")
            for connection in connections:
                answer = read_all(connection)
                assert json.loads(answer.partition(b"\r\n\r\n")[2])["message"]
        assert guarding.rules() == ["endpoint"] * 25
        assert guarding.guard.summary().denied == 25
