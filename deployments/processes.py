"""Which process is which: a pid alone is recycled, a pid with its start time on this boot is not."""

from __future__ import annotations

import json
import os
import select
import signal
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from caisson.boot import read_boot_id


@dataclass(frozen=True)
class ProcessIdentity:
    """One process for good: ``started`` is in clock ticks since the boot ``boot``."""

    pid: int
    started: int
    boot: str

    @classmethod
    def of(cls, pid: int) -> ProcessIdentity | None:
        """The identity of a living process; ``None`` when there is none (a zombie counts as gone)."""
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            return None
        # The command name in parentheses may hold spaces and parentheses itself.
        fields = stat[stat.rindex(")") + 2 :].split()
        if fields[0] in "ZX":
            return None
        return cls(pid=pid, started=int(fields[19]), boot=read_boot_id())

    @classmethod
    def parse(cls, text: str) -> ProcessIdentity | None:
        """What ``dump`` wrote; ``None`` for anything else."""
        try:
            value = json.loads(text)
            return cls(pid=int(value["pid"]), started=int(value["started"]), boot=str(value["boot"]))
        except (ValueError, TypeError, KeyError):
            return None

    def dump(self) -> str:
        return json.dumps(asdict(self))

    @property
    def alive(self) -> bool:
        return ProcessIdentity.of(self.pid) == self


def names_flow_run(pid: int, flow_run_id: str) -> bool:
    """Whether the process was started to execute this flow run, by its own environment."""
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return False
    return f"PREFECT__FLOW_RUN_ID={flow_run_id}".encode() in environment.split(b"\0")


def terminate(processes: Iterable[ProcessIdentity], *, grace_seconds: float) -> None:
    """SIGTERM to each, SIGKILL to those that are left after the grace; returns when all are gone.

    Signals go through a pidfd that is checked after it was opened, so that a recycled pid is never hit.
    """
    handles: dict[int, ProcessIdentity] = {}
    for process in processes:
        try:
            handle = os.pidfd_open(process.pid)
        except ProcessLookupError:
            continue
        if process.alive:
            handles[handle] = process
        else:
            os.close(handle)
    try:
        for death_signal, seconds in ((signal.SIGTERM, grace_seconds), (signal.SIGKILL, 5.0)):
            for handle in handles:
                _signal(handle, death_signal)
            _wait(handles, seconds)
    finally:
        for handle in handles:
            os.close(handle)


def _signal(handle: int, number: signal.Signals) -> None:
    try:
        signal.pidfd_send_signal(handle, number)
    except ProcessLookupError:
        return


def _wait(handles: Iterable[int], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    waiting = set(handles)
    while waiting and (left := deadline - time.monotonic()) > 0:
        ready, _, _ = select.select(waiting, [], [], left)
        waiting.difference_update(ready)
