"""Guards in processes of their own, forked as the launcher forks its flows, and what memory each costs."""

from __future__ import annotations

import contextlib
import multiprocessing
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from caisson.guard.policy import GuardPolicy
from tests.engine.guarded import guarded


@dataclass(frozen=True)
class GuardProcess:
    """A guard for anyone, in another process."""

    socket: Path
    _pipe: Connection

    @property
    def host(self) -> str:
        return f"unix://{self.socket}"

    def added_memory(self) -> int:
        """Bytes that the process has held in memory at most, less those that it held before its guard began."""
        self._pipe.send("memory")
        return int(self._pipe.recv())


@contextlib.contextmanager
def guard_processes(directory: Path, engine: Path, policies: list[GuardPolicy]) -> Iterator[list[GuardProcess]]:
    """One guard a policy, as long as the block lasts."""
    forks = multiprocessing.get_context("forkserver")
    forks.set_forkserver_preload([__name__])
    started, guards = [], []
    try:
        for number, policy in enumerate(policies):
            ours, theirs = forks.Pipe()
            own = directory / f"guard-{number}"
            own.mkdir()
            process = forks.Process(target=_serve, args=(own, engine, policy, theirs))
            process.start()
            theirs.close()
            started.append((process, ours))
            guards.append(GuardProcess(Path(ours.recv()), ours))
        yield guards
    finally:
        for process, ours in started:
            ours.close()
            process.join(20)
            process.kill()


def _serve(directory: Path, engine: Path, policy: GuardPolicy, pipe: Connection) -> None:
    before = _memory("VmRSS")
    with guarded(directory, engine, policy) as guard, contextlib.suppress(EOFError):
        pipe.send(str(guard.socket))
        while pipe.recv():
            pipe.send(_memory("VmHWM") - before)


def _memory(key: str) -> int:
    """Of this process, from proc_pid_status(5), in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(f"{key}:"))
