"""``caisson up``: the Prefect server, the worker of this host, Caisson's own API, and nothing left of them afterwards.

The launcher itself does next to nothing, so that little can go wrong with it: it imports no Prefect, starts them
as children that die with it, starts them again when they end, and stops them in the right order: the worker first,
which drains while the API still tells how its builds end, the server last, which takes the final states of the runs.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from caisson.errors import ServiceUnreachable
from caisson.settings import Settings
from deployments.backoff import Backoff
from deployments.gateway import check_gateway, gateway_command, gateway_environment, gateway_url
from deployments.logs import open_log
from deployments.processes import ProcessIdentity
from deployments.server import (
    check_server,
    client_environment,
    is_healthy,
    server_command,
    server_environment,
    server_url,
)
from deployments.state import RunningCaisson, StateDir, find_running, hold, publish
from deployments.tether import tethered

__all__ = ["RunningCaisson", "down", "find_running", "up"]

Say = Callable[[str], None]

POLL_SECONDS = 0.1
# A Caisson that waits for builds does so for days: looking ten times a second would be most of what it costs.
WATCH_SECONDS = 0.5
SAY_EVERY_SECONDS = 4.0
WORKER_STOP_SECONDS = 45.0  # beyond the drain: cancelled runs get 30 s to clean up, then the kill and the reaping
SERVER_STOP_SECONDS = 15.0
GATEWAY_STOP_SECONDS = 5.0
MOST_FAILURES = 8


@dataclass
class Interrupts:
    """Requests to stop: signals, or the caller's own event."""

    event: threading.Event
    count: int = 0

    def add(self, _number: int = 0, _frame: FrameType | None = None) -> None:
        self.count += 1
        self.event.set()

    @property
    def requested(self) -> bool:
        return self.event.is_set()


@dataclass
class Service:
    """One child that is to run for as long as the launcher does."""

    name: str
    command: list[str]
    env: Mapping[str, str]
    log: Path
    pass_fds: tuple[int, ...] = ()
    backoff: Backoff = field(default_factory=Backoff)
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    start_at: float = 0.0

    def start(self) -> None:
        """Start it as a child that ends with this process, in a session of its own: Ctrl-C is ours to handle."""
        with open_log(self.log) as log:
            self.process = subprocess.Popen(
                tethered(self.command),
                env=dict(self.env),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=self.pass_fds,
                start_new_session=True,
            )
        self.started = time.monotonic()

    @property
    def exit_code(self) -> int | None:
        return self.process.poll() if self.process is not None else None

    def keep(self, say: Say) -> None:
        """Start it again when it has ended; raises ``ServiceUnreachable`` when that keeps failing."""
        now = time.monotonic()
        if self.process is not None and (code := self.process.poll()) is not None:
            self.process = None
            seconds = self.backoff.after(ran_seconds=now - self.started)
            if self.backoff.failures > MOST_FAILURES:
                raise self.failure(code)
            self.start_at = now + seconds
            say(f"The {self.name} ended ({_how(code)}); it starts again in {seconds:.1f} s. Its log: {self.log}")
        if self.process is None and now >= self.start_at:
            self.start()

    def failure(self, code: int) -> ServiceUnreachable:
        return ServiceUnreachable(f"The {self.name} ended ({_how(code)}).", hint=f"See its log: {self.log}")

    def terminate(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()

    def kill(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def up(settings: Settings, *, stop: threading.Event | None = None, say: Say = print) -> int:
    """Run Caisson until SIGTERM, SIGINT or ``stop``; returns the exit code for the shell.

    A second Ctrl-C ends the drain. Where Caisson runs already it says so and returns 0. Raises ``SettingsInvalid``
    for a port or state directory that can't be used, ``ServiceUnreachable`` when a child can't be kept alive.
    """
    state = StateDir(settings.state_dir).create()
    with hold(state) as held:
        if not held:
            say(_where(find_running(settings)))
            return 0
        with _interrupts(stop) as interrupts, ExitStack() as stack:
            if not settings.api_url:
                check_server(settings)
            check_gateway(settings)
            launcher = _Launcher(settings, state, interrupts, say)
            stack.callback(launcher.close)
            launcher.start()
            launcher.watch()
    return 0


def down(settings: Settings, *, say: Say = print) -> int:
    """Stop the Caisson that runs on this host and wait until it is gone; returns the exit code for the shell."""
    running = find_running(settings)
    if running is None:
        say("No Caisson runs on this host.")
        return 0
    process = ProcessIdentity.of(running.pid)
    if process is not None:
        os.kill(running.pid, signal.SIGTERM)
        say(f"Caisson (pid {running.pid}) stops; running builds have {settings.drain_seconds:.0f} s to finish.")
    deadline = time.monotonic() + settings.drain_seconds + WORKER_STOP_SECONDS + SERVER_STOP_SECONDS
    while process is not None and process.alive:
        if time.monotonic() > deadline:
            say(f"Caisson (pid {running.pid}) does not stop; see {settings.state_dir / 'logs'}.")
            return ServiceUnreachable.exit_code
        time.sleep(POLL_SECONDS)
    say("Caisson has stopped.")
    return 0


class _Launcher:
    def __init__(self, settings: Settings, state: StateDir, interrupts: Interrupts, say: Say) -> None:
        self._settings = settings
        self._state = state
        self._interrupts = interrupts
        self._say = say
        self._begun = time.monotonic()
        self._is_ready = False
        self._ready, ready = os.pipe()
        os.set_blocking(self._ready, False)
        self._ready_to_close = ready
        self._api_url = settings.api_url or f"{server_url(settings)}/api"
        self._server: Service | None = None
        if not settings.api_url:
            self._server = Service(
                name="Prefect server",
                command=server_command(settings),
                env=server_environment(settings, state, os.environ),
                log=state.logs / "server.log",
            )
        self._worker = Service(
            name="worker",
            command=[sys.executable, "-m", "deployments.worker_main", str(ready)],
            env=client_environment(settings, state, os.environ),
            log=state.logs / "worker.log",
            pass_fds=(ready,),
        )
        self._gateway: Service | None = None
        if settings.gateway_port:
            self._gateway = Service(
                name="API",
                command=gateway_command(),
                env=gateway_environment(settings, os.environ),
                log=state.logs / "gateway.log",
            )

    @property
    def _services(self) -> list[Service]:
        return [service for service in (self._server, self._worker, self._gateway) if service is not None]

    def start(self) -> None:
        """Start all at once (their imports take seconds) and wait until builds are taken, or a stop is asked for."""
        self._publish()
        for service in self._services:
            service.start()
        next_word = SAY_EVERY_SECONDS
        while not self._interrupts.requested:
            for service in self._services:
                if (code := service.exit_code) is not None:
                    raise service.failure(code)
            if self._tell_readiness():
                self._say(f"Caisson is up after {self._elapsed:.1f} s: {self._url}  (stop it with Ctrl-C)")
                return
            if self._elapsed >= next_word:
                what = "the worker" if is_healthy(self._api_url) else "the Prefect server"
                self._say(f"starting {what} … {self._elapsed:.0f} s")
                next_word += SAY_EVERY_SECONDS
            self._interrupts.event.wait(POLL_SECONDS)

    def watch(self) -> None:
        """Keep them alive until a stop is asked for."""
        while not self._interrupts.requested:
            for service in self._services:
                if service is not self._gateway:
                    service.keep(self._say)
            if self._gateway is not None:
                # Builds go on without it.
                self._gateway = self._keep(self._gateway)
            self._tell_readiness()
            self._interrupts.event.wait(WATCH_SECONDS)

    def close(self) -> None:
        """Stop the worker, which drains, then the API and the server; kill what does not stop in time."""
        if self._worker.exit_code is None and self._worker.process is not None:
            self._say(f"Stopping; running builds have {self._settings.drain_seconds:.0f} s to finish (Ctrl-C: at once)")
        self._stop(self._worker, self._settings.drain_seconds + WORKER_STOP_SECONDS, keep=self._server)
        if self._gateway is not None:
            self._stop(self._gateway, GATEWAY_STOP_SECONDS)
        if self._server is not None:
            self._stop(self._server, SERVER_STOP_SECONDS)
        os.close(self._ready)
        os.close(self._ready_to_close)
        self._say("Caisson has stopped.")

    def _stop(self, service: Service, seconds: float, *, keep: Service | None = None) -> None:
        service.terminate()
        passed_on = min(self._interrupts.count, 1)
        deadline = time.monotonic() + seconds
        while service.process is not None and service.exit_code is None and time.monotonic() < deadline:
            if keep is not None:
                keep = self._keep(keep)
            if self._interrupts.count > passed_on:
                passed_on = self._interrupts.count
                service.terminate()
            time.sleep(POLL_SECONDS / 2)
        service.kill()

    def _keep(self, service: Service) -> Service | None:
        """Keep what the rest can go on without, if it can be: the API, and at the end the server too."""
        try:
            service.keep(self._say)
        except ServiceUnreachable as error:
            self._say(str(error))
            return None
        return service

    def _tell_readiness(self) -> bool:
        """Whether builds are taken: since the worker said so, and while that very process lives."""
        said = self._worker_said_so()
        is_ready = self._worker.process is not None and (self._is_ready or said)
        if is_ready != self._is_ready:
            self._is_ready = is_ready
            self._publish()
        return is_ready

    def _worker_said_so(self) -> bool:
        try:
            return bool(os.read(self._ready, 64))
        except BlockingIOError:
            return False

    def _publish(self) -> None:
        publish(
            self._state,
            RunningCaisson(
                pid=os.getpid(),
                url=self._url,
                api_url=self._api_url,
                ready=self._is_ready,
                gateway_url=gateway_url(self._settings),
            ),
        )

    @property
    def _url(self) -> str:
        return self._api_url.removesuffix("/api")

    @property
    def _elapsed(self) -> float:
        return time.monotonic() - self._begun


@contextmanager
def _interrupts(stop: threading.Event | None) -> Iterator[Interrupts]:
    """SIGTERM and SIGINT as interrupts for the time of the block, where this is the main thread."""
    interrupts = Interrupts(stop if stop is not None else threading.Event())
    if threading.current_thread() is not threading.main_thread():
        yield interrupts
        return
    before = {number: signal.signal(number, interrupts.add) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield interrupts
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _how(code: int) -> str:
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def _where(running: RunningCaisson | None) -> str:
    if running is None:
        return "Another Caisson holds this state directory and is about to start or stop."
    return f"Caisson runs already: {running.url} (pid {running.pid})"
