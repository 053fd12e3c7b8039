"""A build that names another's session would read that one's files and secrets: here it waits, and reaches nothing."""

from __future__ import annotations

import contextlib
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from caisson.guard.grpc import with_prefix
from caisson.guard.http2 import END_HEADERS, PREFACE, FrameReader, HeaderReader, Type, write_settings
from tests.buildkit_client import BRIDGE, CONTROL, Client, pb
from tests.conftest import EngineHost
from tests.engine.attacks.grpc import GREETING
from tests.engine.attacks.lab import Lab, open_lab
from tests.engine.guarded import upgrade, upgraded

_FILES = "/moby.filesync.v1.FileSync/DiffCopy"


@pytest.fixture
def lab(engine_host: EngineHost, tmp_path: Path) -> Iterator[Lab]:
    with open_lab(engine_host, tmp_path) as lab:
        yield lab


def asked_for(stream: socket.socket, seconds: float) -> set[str]:
    """The methods that the engine calls on a session, until it asks for files."""
    stream.settimeout(seconds)
    frames, headers, begun = FrameReader(), HeaderReader(1 << 20, 1 << 20), b""
    paths: set[str] = set()
    with contextlib.suppress(TimeoutError):
        while _FILES not in paths and (data := stream.recv(65_536)):
            if not begun.startswith(PREFACE):
                begun += data
                if not begun.startswith(PREFACE):
                    continue
                stream.sendall(write_settings({}))
                data = begun.removeprefix(PREFACE)
            for frame in frames.feed(data):
                if frame.type is Type.HEADERS and frame.flags & END_HEADERS and (block := headers.add(frame)):
                    paths |= {value.decode() for name, value in block.fields if name == b":path"}
    return paths


def a_session() -> tuple[str, bytes]:
    """An ID, and the request that opens a session by it."""
    session = uuid.uuid4().hex[:25]
    return session, upgrade("/session", Uuid=session, Name="victim", Grpc_Method=_FILES)


def build(lab: Lab, session: str) -> bytes:
    """A build whose context is that session's, as buildx asks for it."""
    client, ref, attributes = Client(), uuid.uuid4().hex[:25], {"name": str(lab.policy.image)}
    asked = client.call(f"{CONTROL}Solve", pb((1, ref), (3, "moby"), (4, attributes), (5, session)))
    frontend = pb((2, "dockerfile.v0"), (3, {"filename": "Dockerfile"}), (5, 1), (6, 1))
    return GREETING + asked + client.open(f"{BRIDGE}Solve", ref) + client.data(with_prefix(frontend))


def test_a_build_with_anothers_session_gets_none_of_its_files(lab: Lab) -> None:
    session, victim = a_session()
    with upgraded(lab.host.socket, victim) as theirs, upgraded(lab.guard.socket_path, upgrade("/grpc")) as guarded:
        guarded.sendall(build(lab, session))
        assert _FILES not in asked_for(theirs, 3)
    session, victim = a_session()
    with upgraded(lab.host.socket, victim) as theirs, upgraded(lab.host.socket, upgrade("/grpc")) as raw:
        raw.sendall(build(lab, session))
        assert _FILES in asked_for(theirs, 8), "on the engine's own socket it works"
