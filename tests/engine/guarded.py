"""A guard before a real engine, for whoever connects, and all that it decided."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from caisson.guard.audit import Audit, Entry
from caisson.guard.dockerfile_check import dockerfile_check
from caisson.guard.dockerfile_lines import Dialect
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
    directory: Path, engine: Path, policy: GuardPolicy, *, dockerfiles: DockerfilePolicy | None = None
) -> Iterator[Guarded]:
    """The guard as long as the block lasts."""
    facts, _ = ask_engine(engine)
    rules = dockerfiles or DockerfilePolicy(Dialect.of_engine(facts.version), RESERVED_REGISTRY)
    found = Guarded(directory / "guarded.sock")
    guard = Guard(
        policy,
        engine_socket=engine,
        socket_path=found.socket,
        audit=Audit(echo=found.entries.append),
        check_dockerfile=dockerfile_check(rules),
        serve_anyone=True,
    )
    with guard:
        yield found
