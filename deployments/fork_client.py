"""The worker's side of a run's process: forked from the warm server, or started anew where there is none.

Both die with the worker, take signals, and tell their exit code; nothing above needs to know which it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol
from uuid import uuid4

from deployments.backoff import Backoff
from deployments.fork_server import MAX_PACKET
from deployments.tether import tethered

logger = logging.getLogger("caisson.fork_server")

ENGINE = (sys.executable, "-m", "prefect.engine")


class RunProcess(Protocol):
    """A process that executes a flow run."""

    @property
    def pid(self) -> int: ...

    async def wait(self) -> int:
        """Wait for its end; returns the exit code, negative for a signal."""
        ...

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal; does nothing when the process is gone."""
        ...


class ForkServerDown(Exception):
    """The fork server can't take this run; start it as a process of its own."""


@dataclass(frozen=True)
class StartedProcess:
    """``python -m prefect.engine`` as a child of the worker."""

    process: asyncio.subprocess.Process

    @property
    def pid(self) -> int:
        return self.process.pid

    async def wait(self) -> int:
        return await self.process.wait()

    def send_signal(self, number: signal.Signals) -> None:
        if self.process.returncode is None:
            self.process.send_signal(number)


async def start_process(command: list[str], env: Mapping[str, str], cwd: Path, output: int) -> StartedProcess:
    """Start a run's command as a child that dies with this process; raises ``OSError``."""
    process = await asyncio.create_subprocess_exec(
        *tethered(command),
        env=env,
        cwd=cwd,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        start_new_session=True,
    )
    return StartedProcess(process)


@dataclass
class ForkedProcess:
    """A child of the fork server: its messages tell how it ended, a pidfd takes the signals."""

    started: asyncio.Future[int] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    ended: asyncio.Future[int] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    handle: int = -1

    @property
    def pid(self) -> int:
        return self.started.result()

    async def wait(self) -> int:
        return await asyncio.shield(self.ended)

    def send_signal(self, number: signal.Signals) -> None:
        if not self.ended.done():
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.handle, number)

    def begin(self, pid: int, handle: int) -> None:
        self.handle = handle
        self.started.set_result(pid)

    def end(self, code: int) -> None:
        os.close(self.handle)
        self.ended.set_result(code)

    def watch(self) -> None:
        """Wait for the process without the server: its exit code is lost, it counts as ended by SIGTERM."""
        loop = asyncio.get_running_loop()

        def gone() -> None:
            loop.remove_reader(self.handle)
            self.end(-signal.SIGTERM)

        loop.add_reader(self.handle, gone)


class ForkServerClient:
    """Starts the fork server, starts it again when it dies, and forks runs from it."""

    def __init__(self, env: Mapping[str, str]) -> None:
        """``env`` is that of the runs, as far as it is the same for all: what they share is read only once."""
        self._env = env
        self._connection: socket.socket | None = None
        self._server: asyncio.subprocess.Process | None = None
        self._ready = asyncio.Event()
        self._closed = asyncio.Event()
        self._runs: dict[str, ForkedProcess] = {}

    @property
    def pid(self) -> int | None:
        """The server's process, when it is ready to fork."""
        return self._server.pid if self._server is not None and self._ready.is_set() else None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[ForkServerClient]:
        """Keep a fork server for the time of the block; at its end the server and all runs in it end."""
        keeper = asyncio.create_task(self._keep())
        try:
            yield self
        finally:
            keeper.cancel()
            await asyncio.gather(keeper, return_exceptions=True)
            await self._close()

    async def wait_ready(self, *, timeout_seconds: float) -> bool:
        """Wait until it can fork; false when it can't after the timeout (seconds): runs then start without it."""
        try:
            await asyncio.wait_for(self._ready.wait(), timeout_seconds)
        except TimeoutError:
            return False
        return True

    async def spawn(self, env: Mapping[str, str], cwd: Path, output: int) -> ForkedProcess:
        """Fork ``python -m prefect.engine``; raises ``ForkServerDown`` when that is not possible now."""
        if self._connection is None or not self._ready.is_set():
            raise ForkServerDown("it is not ready")
        run_id, run = uuid4().hex, ForkedProcess()
        packet = json.dumps({"run": run_id, "env": dict(env), "cwd": str(cwd)}).encode()
        self._runs[run_id] = run
        try:
            socket.send_fds(self._connection, [packet], [output])
            await asyncio.shield(run.started)
        except OSError as error:
            self._runs.pop(run_id, None)
            raise ForkServerDown(str(error)) from None
        return run

    async def _keep(self) -> None:
        backoff = Backoff()
        while True:
            begun = time.monotonic()
            await self._start()
            await self._closed.wait()
            await self._close()
            seconds = backoff.after(ran_seconds=time.monotonic() - begun)
            logger.warning("The fork server ended; runs start without it until it is back in %.1f s", seconds)
            await asyncio.sleep(seconds)

    async def _start(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        for end in (ours, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MAX_PACKET)
        ours.setblocking(False)
        with theirs:
            self._server = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "deployments.fork_server",
                str(theirs.fileno()),
                env=self._env,
                pass_fds=[theirs.fileno()],
                stdin=asyncio.subprocess.DEVNULL,
                start_new_session=True,
            )
        self._connection = ours
        self._closed.clear()
        asyncio.get_running_loop().add_reader(ours, self._read)

    def _read(self) -> None:
        assert self._connection is not None
        try:
            packet, handles, _, _ = socket.recv_fds(self._connection, MAX_PACKET, 1)
        except BlockingIOError:
            return
        except ConnectionError:
            packet = b""
        if not packet:
            self._lost()
            return
        message = json.loads(packet)
        if "ready" in message:
            self._ready.set()
        elif "started" in message:
            self._runs[message["started"]].begin(message["pid"], handles[0])
        elif "failed" in message:
            self._runs.pop(message["failed"]).started.set_exception(OSError(message["reason"]))
        elif "ended" in message:
            self._runs.pop(message["ended"]).end(message["code"])

    def _lost(self) -> None:
        """The server is gone, and the kernel sends SIGTERM to its runs."""
        assert self._connection is not None
        asyncio.get_running_loop().remove_reader(self._connection)
        self._connection.close()
        self._connection = None
        self._ready.clear()
        self._closed.set()
        for run in self._runs.values():
            if run.started.done():
                run.watch()
            else:
                run.started.set_exception(ConnectionError("the fork server is gone"))
        self._runs.clear()

    async def _close(self) -> None:
        if self._connection is not None:
            self._lost()
        if self._server is not None and self._server.returncode is None:
            await self._server.wait()
