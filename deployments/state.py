"""What a running Caisson leaves on disk: its lock, ``server.json``, its logs and one record for each run.

The lock is the truth (the kernel lets go of it when the holder dies); ``server.json`` only tells where.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from caisson.errors import SettingsInvalid
from caisson.private_file import write_private
from caisson.settings import Settings
from deployments.processes import ProcessIdentity


@dataclass(frozen=True)
class StateDir:
    """The files below ``settings.state_dir``."""

    root: Path

    @property
    def lock(self) -> Path:
        return self.root / "caisson.lock"

    @property
    def server(self) -> Path:
        return self.root / "server.json"

    @property
    def prefect_home(self) -> Path:
        return self.root / "prefect"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def runs(self) -> Path:
        return self.root / "runs"

    def create(self) -> StateDir:
        """Make the directories, for their owner only; raises ``SettingsInvalid`` where that is not possible."""
        try:
            for directory in (self.root, self.prefect_home, self.logs, self.runs):
                directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not os.access(self.root, os.W_OK):
                raise PermissionError(13, "Permission denied", str(self.root))
        except OSError as error:
            raise SettingsInvalid(
                f"CAISSON_STATE_DIR: {self.root} can't be used: {error.strerror}.",
                hint="Set it to a directory that you may write to.",
            ) from None
        return self


@dataclass(frozen=True)
class RunningCaisson:
    """The Caisson that runs on this host; ``ready`` once it takes builds.

    ``gateway_url`` is where Caisson's own API is, empty where that is off.
    """

    pid: int
    url: str
    api_url: str
    ready: bool
    gateway_url: str = ""


def find_running(settings: Settings) -> RunningCaisson | None:
    """The Caisson that holds this state directory now, or ``None``."""
    state = StateDir(settings.state_dir)
    if not _is_locked(state.lock):
        return None
    return _read(state.server)


def publish(state: StateDir, running: RunningCaisson) -> None:
    """Say where this Caisson is; readers see the old file or the new one, never half of it."""
    write_private(state.server, json.dumps(asdict(running)))


@contextmanager
def hold(state: StateDir) -> Iterator[bool]:
    """Hold the state directory for this process; yields ``False`` when another Caisson holds it."""
    descriptor = os.open(state.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if not _lock(descriptor):
            yield False
            return
        try:
            yield True
        finally:
            state.server.unlink(missing_ok=True)
    finally:
        os.close(descriptor)


def record_run(state: StateDir, flow_run_id: str, process: ProcessIdentity) -> None:
    """Remember which process executes a run, for a worker that starts after this one was killed."""
    write_private(state.runs / f"{flow_run_id}.json", process.dump())


def recorded_run(state: StateDir, flow_run_id: str) -> ProcessIdentity | None:
    """The process that executes, or executed, a run."""
    try:
        return ProcessIdentity.parse((state.runs / f"{flow_run_id}.json").read_text())
    except FileNotFoundError:
        return None


def forget_run(state: StateDir, flow_run_id: str) -> None:
    (state.runs / f"{flow_run_id}.json").unlink(missing_ok=True)


def forget_dead_runs(state: StateDir) -> None:
    """Forget the processes that are gone: nobody forgot those that died after the worker that recorded them."""
    for path in state.runs.glob("*.json"):
        process = recorded_run(state, path.stem)
        if process is None or not process.alive:
            path.unlink(missing_ok=True)


def _lock(descriptor: int, *, attempts: int = 5) -> bool:
    """Take the lock; tried again, since ``find_running`` holds it for an instant."""
    for attempt in range(attempts):
        if attempt:
            time.sleep(0.05)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue
        return True
    return False


def _is_locked(path: Path) -> bool:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, PermissionError):
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _read(path: Path) -> RunningCaisson | None:
    try:
        value = json.loads(path.read_text())
        return RunningCaisson(
            pid=int(value["pid"]),
            url=str(value["url"]),
            api_url=str(value["api_url"]),
            ready=bool(value["ready"]),
            gateway_url=str(value.get("gateway_url", "")),
        )
    except (OSError, ValueError, TypeError, KeyError):
        return None
