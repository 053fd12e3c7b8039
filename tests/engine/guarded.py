"""A guard before a real engine, for whoever connects, and all that it decided."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from caisson.guard.audit import Audit, Entry
from caisson.guard.base_images import JudgedBases
from caisson.guard.dockerfile_check import dockerfile_check, steps_check
from caisson.guard.dockerfile_lines import Dialect
from caisson.guard.dockerfile_names import Names
from caisson.guard.dockerfile_policy import DockerfilePolicy
from caisson.guard.engine_facts import ask_engine
from caisson.guard.policy import GuardPolicy
from caisson.guard.server import Guard
from caisson.guard.verdict import Verdict
from caisson.spec import RESERVED_REGISTRY


@dataclass
class Guarded:
    """The guarded socket, and the decisions on it in their order."""

    socket: Path
    entries: list[Entry] = field(default_factory=list)

    @property
    def host(self) -> str:
        return f"unix://{self.socket}"

    def denials(self) -> list[tuple[str, Verdict]]:
        """What was denied, by the path of the request or call."""
        return [
            (entry.path, entry.verdict)
            for entry in self.entries
            if entry.event == "decision" and not entry.verdict.allowed
        ]

    def refused(self) -> dict[str, str]:
        """Rule by path, of what was denied."""
        return {path: verdict.rule for path, verdict in self.denials()}


@contextlib.contextmanager
def guarded(
    directory: Path,
    engine: Path,
    policy: GuardPolicy,
    *,
    dockerfiles: DockerfilePolicy | None = None,
    names: Names | None = None,
    bases: JudgedBases | None = None,
) -> Iterator[Guarded]:
    """The guard as long as the block lasts."""
    facts, _ = ask_engine(engine)
    rules = dockerfiles or DockerfilePolicy(Dialect.of_engine(facts.version), RESERVED_REGISTRY)
    names = names or Names()
    found = Guarded(directory / "guarded.sock")
    guard = Guard(
        policy,
        engine_socket=engine,
        socket_path=found.socket,
        audit=Audit(echo=found.entries.append),
        check_dockerfile=dockerfile_check(rules, names, bases),
        check_steps=steps_check(rules, names),
        serve_anyone=True,
    )
    with guard:
        yield found


def upgrade(path: str, **headers: str) -> bytes:
    """The request for an h2c stream; ``headers`` are those of a session (``uuid``, ``grpc_method``)."""
    lines = [f"POST {path} HTTP/1.1", "Host: docker", "Connection: Upgrade", "Upgrade: h2c", "Content-Length: 0"]
    lines += [f"X-Docker-Expose-Session-{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "\r\n"]).encode()


@contextlib.contextmanager
def upgraded(to: Path, request: bytes, *, seconds: float = 10) -> Iterator[socket.socket]:
    """A connection that is HTTP/2 by now; ``seconds`` is its time-out."""
    with socket.socket(socket.AF_UNIX) as stream:
        stream.settimeout(seconds)
        stream.connect(str(to))
        stream.sendall(request)
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += stream.recv(1)
        assert head.startswith(b"HTTP/1.1 101 "), head
        yield stream
