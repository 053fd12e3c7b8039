"""A real ``caisson up`` for tests: its own state directory, a free port, and eyes for every process it has."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from caisson.settings import Settings
from deployments.prefect_api import PrefectApi
from deployments.server import client_environment
from deployments.state import StateDir, find_running
from deployments.trigger import FlowRunId, RunChanged, run_state, trigger_build

T = TypeVar("T")

ROOT = Path(__file__).parents[2]
START_SECONDS = 240.0
WAIT_SECONDS = 60.0

UP = """
import sys
from caisson.errors import CaissonError
from caisson.settings import load_settings
from deployments.launcher import up
try:
    sys.exit(up(load_settings(), say=lambda words: print(words, flush=True)))
except CaissonError as error:
    print(error, flush=True)
    sys.exit(error.exit_code)
"""
SAVE_SECRET = """
import sys
from prefect.blocks.system import Secret
Secret(value=sys.stdin.read()).save(sys.argv[1])
"""
APPLY = """
from caisson.settings import load_settings
from deployments.apply import apply_flow, ensure_work_pool
from tests.flows import sample_flows
ensure_work_pool(load_settings())
for flow in sample_flows.FLOWS:
    apply_flow(flow, load_settings())
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(what: str, probe: Callable[[], T], *, seconds: float = WAIT_SECONDS) -> T:
    """The first true value of ``probe``; fails the test when there is none in time."""
    deadline = time.monotonic() + seconds
    while not (value := probe()):
        assert time.monotonic() < deadline, f"{what}: not within {seconds:.0f} s"
        time.sleep(0.05)
    return value


@dataclass
class CaissonHost:
    """One host: ``settings`` as variables, and the launcher's process while it is up."""

    state_dir: Path
    name: str
    variables: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[str] | None = None

    def __post_init__(self) -> None:
        self.variables = {
            "CAISSON_STATE_DIR": str(self.state_dir),
            "CAISSON_HOST_NAME": self.name,
            "CAISSON_SERVER_PORT": str(free_port()),
            "CAISSON_GATEWAY_PORT": "0",
            # No run that a test did not ask for.
            "CAISSON_MONITOR_SECONDS": "0",
            "CAISSON_PRUNE_SECONDS": "0",
            "CAISSON_AUDIT_SECONDS": "0",
            "CAISSON_PRUNE_ON_PRESSURE": "false",
            **self.variables,
        }

    # --- the launcher

    @property
    def settings(self) -> Settings:
        # Lists and tables are JSON in variables, and values to the constructor.
        values = {
            key.removeprefix("CAISSON_").lower(): json.loads(text) if text.startswith(("[", "{")) else text
            for key, text in self.variables.items()
        }
        return Settings(_env_file=None, **values)

    @property
    def env(self) -> dict[str, str]:
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "CAISSON_"))}
        return inherited | {"PYTHONPATH": str(ROOT)} | self.variables

    @property
    def output(self) -> str:
        return (self.state_dir / "up.out").read_text()

    def launch(self) -> subprocess.Popen[str]:
        """Start ``caisson up`` and return at once."""
        self.state_dir.mkdir(parents=True, exist_ok=True)
        with (self.state_dir / "up.out").open("a") as out:
            return subprocess.Popen(
                [sys.executable, "-c", UP], env=self.env, cwd=ROOT, stdout=out, stderr=out, text=True
            )

    def up(self) -> None:
        """Start Caisson and wait until it takes builds."""
        self.process = self.launch()
        wait_for(f"{self.name} is up", self._is_ready, seconds=START_SECONDS)

    @property
    def is_up(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def _is_ready(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.output + self.logs()
        running = find_running(self.settings)
        return running is not None and running.ready

    def logs(self) -> str:
        return "\n".join(path.read_text()[-4000:] for path in sorted((self.state_dir / "logs").glob("*.log")))

    def stop(self, number: signal.Signals = signal.SIGTERM, *, seconds: float = WAIT_SECONDS) -> int:
        """Signal the launcher and wait for its end; returns its exit code."""
        assert self.process is not None
        self.process.send_signal(number)
        try:
            return self.process.wait(seconds)
        finally:
            if self.process.poll() is None:
                self.process.kill()

    def cli(self, *arguments: str, stdin: str = "") -> str:
        """What ``caisson`` prints on stdout with this host's settings; it must succeed."""
        command = [str(Path(sys.executable).with_name("caisson")), *arguments]
        done = subprocess.run(
            command, env=self.env, cwd=ROOT, input=stdin, capture_output=True, text=True, check=False, timeout=60
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def apply_samples(self) -> None:
        self._run(APPLY)

    def save_secret(self, name: str, value: str) -> None:
        """Make a Secret block in this host's Prefect."""
        self._run(SAVE_SECRET, name, stdin=value)

    def _run(self, code: str, *arguments: str, stdin: str = "") -> None:
        """Run code as a client of this host's Prefect."""
        env = client_environment(self.settings, StateDir(self.state_dir), self.env)
        subprocess.run([sys.executable, "-c", code, *arguments], input=stdin, text=True, env=env, cwd=ROOT, check=True)

    def processes(self, pattern: str = "") -> dict[int, str]:
        """Every process of this host, children of its children too, by command line."""
        mark = f"CAISSON_STATE_DIR={self.state_dir}".encode()
        found: dict[int, str] = {}
        for directory in Path("/proc").glob("[0-9]*"):
            try:
                if mark not in (directory / "environ").read_bytes().split(b"\0"):
                    continue
                command = (directory / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                state = (directory / "stat").read_text().rpartition(")")[2].split()[0]
            except OSError:
                continue
            if state != "Z" and re.search(pattern, command):
                found[int(directory.name)] = command
        return found

    def pid_of(self, pattern: str) -> int:
        """The pid of the one process whose command line matches, its own forks aside."""
        found = wait_for(f"a process {pattern}", lambda: self.processes(pattern))
        (pid,) = [pid for pid in found if _parent(pid) not in found]
        return pid

    # --- runs

    @property
    def api(self) -> PrefectApi:
        return PrefectApi.of(self.settings)

    def trigger(self, flow: str, **parameters: Any) -> FlowRunId:
        with self.api as api:
            return trigger_build(api, parameters, deployment=f"{flow}/{self.name}")

    def state(self, flow_run_id: FlowRunId) -> RunChanged:
        with self.api as api:
            return run_state(api, flow_run_id)

    def wait_for_state(self, flow_run_id: FlowRunId, *names: str, seconds: float = WAIT_SECONDS) -> RunChanged:
        seen: list[str] = []

        def probe() -> RunChanged | None:
            state = self.state(flow_run_id)
            seen.append(state.state_name)
            return state if state.state_name in names else None

        try:
            return wait_for(f"{names}", probe, seconds=seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}; last was {seen[-1]}\n{self.logs()}") from None

    def history(self, flow_run_id: FlowRunId) -> list[str]:
        """Names of the run's states, in order."""
        return [state["name"] for state in self._states(flow_run_id)]

    def when(self, flow_run_id: FlowRunId, name: str) -> datetime:
        """When the run first got a state of that name."""
        times = [state["timestamp"] for state in self._states(flow_run_id) if state["name"] == name]
        return datetime.fromisoformat(times[0])

    def _states(self, flow_run_id: FlowRunId) -> list[dict[str, Any]]:
        with self.api as api:
            states = api.get(f"/flow_run_states/?flow_run_id={flow_run_id}")
        return sorted(states, key=lambda state: str(state["timestamp"]))

    def state_on_disk(self, flow_run_id: FlowRunId) -> tuple[str, str]:
        """Type and name of the run's state, from the database of a Caisson that has stopped."""
        with sqlite3.connect(self.state_dir / "prefect" / "prefect.db") as database:
            query = "SELECT state_type, state_name FROM flow_run WHERE id = ?"
            (row,) = database.execute(query, (flow_run_id,)).fetchall()
        return row[0], row[1]

    def copy_database(self, other: CaissonHost) -> None:
        """Take over the other's database: a fresh one takes ten seconds of migrations."""
        home = StateDir(self.state_dir).create().prefect_home
        source = other.state_dir / "prefect"
        (home / "encryption.key").write_bytes((source / "encryption.key").read_bytes())
        with sqlite3.connect(source / "prefect.db") as old, sqlite3.connect(home / "prefect.db") as new:
            old.backup(new)


def started_pid(marks: Path) -> int:
    """The process of a ``sample-sleep`` that has begun."""
    path = marks / "started"
    return int(wait_for("the flow has begun", lambda: path.exists() and path.read_text()))


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
