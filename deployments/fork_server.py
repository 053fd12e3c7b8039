"""The fork server: a warm process with Prefect, docker and our flows imported, from which each run is forked.

Rules:
- It has one thread, or a fork would copy locks that nobody will ever release.
- Each run sees the code as it is on disk then: where a file of ours is another than when it was imported here, the run
  imports all of ours anew.
- It listens to one socket, inherited from the worker that started it: no path, so nobody else can reach it. The
  environment of a run, which may hold secrets, goes through that socket only.
- When the worker is gone, the socket says so: every run gets SIGTERM, then SIGKILL, and the server ends.

Each message is one JSON object in one packet. From the worker: ``{"run": id, "env": {…}, "cwd": "…"}`` with the
run's output as a file descriptor. To the worker: ``{"ready": true}``, ``{"started": id, "pid": n}`` with a pidfd for
signals, ``{"failed": id, "reason": "…"}`` and ``{"ended": id, "code": n}``, the code negative for a signal, as in
``subprocess``.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import runpy
import selectors
import signal
import socket
import sys
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deployments.tether import die_with_parent

if TYPE_CHECKING:
    from prefect.context import SettingsContext
    from prefect.settings import Profile

MAX_PACKET = 1 << 20
GRACE_SECONDS = 10.0

# What a run needs from the libraries, whatever its flow does.
WARM = (
    "anyio._backends._asyncio",
    "prefect",
    "prefect._internal.observers",
    "prefect.artifacts",
    "prefect.blocks.system",
    "prefect.client.orchestration",
    "prefect.events.clients",
    "prefect.flow_engine",
    "prefect.logging.handlers",
    "prefect.runtime",
    "prefect.task_engine",
    "docker",
    "docker.models.containers",
    "packaging.version",
    "pydantic.v1",
    "pydantic_settings",
    "rich._emoji_codes",
    "websockets",
)
# What a run needs of ours: importing it takes longer than all else before a run's first line.
FLOWS = ("flows.audit_host", "flows.build_image", "flows.monitor_disk", "flows.prune_images")
OURS = frozenset({"caisson", "tasks", "flows", "deployments"})


@dataclass(frozen=True)
class Run:
    """One run to become, in the forked child."""

    id: str
    env: dict[str, str]
    cwd: str
    output: int


@dataclass(frozen=True)
class _Child:
    id: str
    pid: int
    handle: int


class ForkServer:
    """Forks a child for each run asked for, and tells how it ended."""

    def __init__(self, connection: socket.socket) -> None:
        self._pid = os.getpid()
        self._connection = connection
        self._selector = selectors.DefaultSelector()
        self._selector.register(connection, selectors.EVENT_READ)
        self._children: dict[int, _Child] = {}

    def serve(self) -> Run | None:
        """Serve until the worker is gone. Returns the run to become in a child, ``None`` in the server itself."""
        self._send({"ready": True})
        while True:
            for key, _ in self._selector.select():
                if key.fd in self._children:
                    self._reap(self._children[key.fd])
                    continue
                message, descriptors = _receive(self._connection)
                if message is None:
                    self._end_all()
                    return None
                if (run := self._handle(message, descriptors)) is not None:
                    return run

    def _handle(self, message: dict[str, Any], descriptors: list[int]) -> Run | None:
        run = Run(id=message["run"], env=message["env"], cwd=message["cwd"], output=descriptors[0])
        try:
            in_child = self._fork(run.id)
        except OSError as error:
            self._send({"failed": run.id, "reason": str(error)})
            in_child = False
        if in_child:
            return run
        os.close(run.output)
        return None

    def _fork(self, run_id: str) -> bool:
        """Fork; true in the child, which then holds nothing of the server's."""
        pid = os.fork()
        if pid == 0:
            # The death of the server must reach the run before anything else can go wrong.
            die_with_parent(signal.SIGTERM, self._pid)
            self._selector.close()
            self._connection.close()
            for child in self._children.values():
                os.close(child.handle)
            return True
        child = _Child(id=run_id, pid=pid, handle=os.pidfd_open(pid))
        self._children[child.handle] = child
        self._selector.register(child.handle, selectors.EVENT_READ)
        self._send({"started": run_id, "pid": pid}, child.handle)
        return False

    def _reap(self, child: _Child) -> None:
        _, status = os.waitpid(child.pid, 0)
        self._selector.unregister(child.handle)
        del self._children[child.handle]
        os.close(child.handle)
        self._send({"ended": child.id, "code": os.waitstatus_to_exitcode(status)})

    def _end_all(self) -> None:
        self._selector.unregister(self._connection)
        for number, seconds in ((signal.SIGTERM, GRACE_SECONDS), (signal.SIGKILL, GRACE_SECONDS)):
            for child in self._children.values():
                _send_signal(child.handle, number)
            deadline = time.monotonic() + seconds
            while self._children and (left := deadline - time.monotonic()) > 0:
                for key, _ in self._selector.select(left):
                    self._reap(self._children[key.fd])

    def _send(self, message: dict[str, Any], *descriptors: int) -> None:
        try:
            socket.send_fds(self._connection, [json.dumps(message).encode()], list(descriptors))
        except OSError:
            return  # the worker is gone; the next read says so


def _receive(connection: socket.socket) -> tuple[dict[str, Any] | None, list[int]]:
    try:
        packet, descriptors, _, _ = socket.recv_fds(connection, MAX_PACKET, 1)
    except ConnectionError:
        return None, []
    return (json.loads(packet) if packet else None), descriptors


def _send_signal(handle: int, number: int) -> None:
    try:
        signal.pidfd_send_signal(handle, number)
    except ProcessLookupError:
        return


def our_code() -> dict[str, int]:
    """Each Python file of ours by its path, and when it was last changed: by ctime, which no installer sets back."""
    found = {}
    for package in OURS:
        for root in importlib.import_module(package).__path__:
            for file in Path(root).rglob("*.py"):
                found[str(file)] = file.stat().st_ctime_ns
    return found


def import_ours() -> dict[str, int]:
    """Import our flows and all that they use; returns ``our_code`` from before, empty where they can't be imported."""
    try:
        code = our_code()
        for flow in FLOWS:
            importlib.import_module(flow)
    except Exception:
        # A run finds out for itself, and its failure is told.
        forget_ours()
        return {}
    return code


def forget_ours() -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] in OURS]:
        del sys.modules[name]


def become(run: Run, code: Mapping[str, int]) -> None:
    """Turn this forked child into ``python -m prefect.engine`` for the run; leaves by ``SystemExit``.

    ``code`` is what ``import_ours`` returned.
    """
    os.setsid()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    os.dup2(run.output, 1)
    os.dup2(run.output, 2)
    os.close(run.output)
    inherited = _prefect_variables(os.environ)
    os.environ.clear()
    os.environ.update(run.env)
    os.chdir(run.cwd)
    sys.argv = ["prefect.engine"]
    sys.modules.pop("prefect.engine", None)  # it is to run as __main__, whatever imported it before
    same_settings = _prefect_variables(run.env) == inherited
    if not (same_settings and _is_unchanged(code)):
        forget_ours()
    if same_settings:
        runpy.run_module("prefect.engine", run_name="__main__", alter_sys=True)
        return
    # This run has Prefect settings of its own, and reading them costs a third of a second.
    from prefect.context import get_settings_context, refresh_global_settings_context
    from prefect.logging.configuration import setup_logging

    refresh_global_settings_context()
    with _settings(get_settings_context().profile):
        setup_logging(incremental=False)
        runpy.run_module("prefect.engine", run_name="__main__", alter_sys=True)


def _is_unchanged(code: Mapping[str, int]) -> bool:
    try:
        return our_code() == code
    except (OSError, ImportError):
        return False


def _prefect_variables(env: Mapping[str, str]) -> dict[str, str]:
    """Prefect's settings in an environment; two underscores are no setting but say which run it is."""
    return {name: value for name, value in env.items() if name.startswith("PREFECT_") and name[8:9] != "_"}


def _settings(profile: Profile) -> SettingsContext:
    """The settings of this environment, without the flow's heartbeat.

    The worker sees a run die at once; the heartbeat would only hold the run's slot for one more second at its end.
    """
    from prefect.context import SettingsContext
    from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, Settings

    return SettingsContext(
        profile=profile, settings=Settings().copy_with_update(updates={PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None})
    )


def warm_up() -> dict[str, int]:
    """Import what every run needs, then keep the collector from touching, and so copying, those pages.

    Returns what ``import_ours`` does.
    """
    for module in WARM:
        importlib.import_module(module)
    code = import_ours()
    gc.collect()
    gc.freeze()
    return code


def main() -> None:
    """``python -m deployments.fork_server FD``: serve on that inherited socket."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the launcher's to handle
    connection = socket.socket(fileno=int(sys.argv[1]))
    code = warm_up()
    from prefect.context import get_settings_context

    # Entered once, here: every run inherits it.
    with _settings(get_settings_context().profile):
        run = ForkServer(connection).serve()
        if run is not None:
            become(run, code)


if __name__ == "__main__":
    try:
        main()
    except Exception:
        traceback.print_exc()
        sys.exit(1)
