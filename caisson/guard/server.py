"""The guard of one build: a socket of its own, served by a thread with its own event loop, gone when the build ends."""

from __future__ import annotations

import asyncio
import contextlib
import math
import socket
import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from caisson.errors import CaissonError
from caisson.guard.audit import Audit, AuditSummary
from caisson.guard.connection import CheckDockerfile, CheckSteps, Connection, Service
from caisson.guard.engine_facts import ask_engine
from caisson.guard.grpc_stream import deny_steps
from caisson.guard.listening import SUFFIX, listening
from caisson.guard.peer import is_container_id
from caisson.guard.policy import GuardPolicy
from caisson.guard.watching import WatchedConnection
from caisson.guard.wire import Wire

DEFAULT_DIRECTORY = Path("/run/caisson")
_STOP_SECONDS = 10


class Guard:
    """Serves one build's socket; a context manager, and whatever ends the process ends it too.

    ``with Guard(policy, engine_socket=…, check_dockerfile=…) as guard`` makes ``guard.socket_path``; until
    ``serve_only`` has named the container, nobody is served. ``gid`` is the group that may connect.
    With ``only_report`` everything passes as it came, and what would be denied is recorded as such.
    ``check_dockerfile`` gets the Dockerfile that the engine is about to use, with what the build is given, and
    ``check_steps`` what BuildKit has made of it, before that is done; each raises ``Denied``. Without ``check_steps``
    no build of BuildKit's is done.
    Entering raises ``EngineUnreachable`` and ``SettingsInvalid``.
    """

    def __init__(
        self,
        policy: GuardPolicy,
        *,
        engine_socket: Path | str,
        check_dockerfile: CheckDockerfile,
        directory: Path | str = DEFAULT_DIRECTORY,
        socket_path: Path | str | None = None,
        gid: int | None = None,
        audit: Audit | None = None,
        serve_anyone: bool = False,
        only_report: bool = False,
        check_steps: CheckSteps = deny_steps,
    ) -> None:
        self.policy = policy
        self.socket_path = Path(socket_path or Path(directory) / f"{policy.build_id or 'guard'}{SUFFIX}")
        self._is_private = socket_path is None
        self._engine_socket, self._gid = Path(engine_socket), gid
        self._audit = audit or Audit(build=policy.build_id, most_lines=policy.limits.audit_lines)
        self._check_dockerfile, self._check_steps = check_dockerfile, check_steps
        self._serve_anyone, self._only_report = serve_anyone, only_report
        self._stack = contextlib.ExitStack()
        self._service: Service | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None

    def __enter__(self) -> Guard:
        facts, api = ask_engine(self._engine_socket)
        self.policy = replace(self.policy, api_version=api)
        self._service = Service(
            policy=self.policy,
            engine=facts,
            engine_socket=self._engine_socket,
            audit=self._audit,
            check_dockerfile=self._check_dockerfile,
            check_steps=self._check_steps,
            serve_anyone=self._serve_anyone,
        )
        with contextlib.ExitStack() as stack:
            stack.callback(self._audit.close)
            listener = stack.enter_context(listening(self.socket_path, gid=self._gid, private=self._is_private))
            started = threading.Event()
            thread = threading.Thread(
                target=lambda: asyncio.run(self._serve(listener, started)), name="guard", daemon=True
            )
            thread.start()
            stack.callback(self._end, thread)
            if not started.wait(_STOP_SECONDS):
                raise CaissonError("The guard's thread did not start.", hint="Start the build again.")
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def serve_only(self, container_id: str, *, cgroup_parent: str | None = None) -> None:
        """Serve that container and no other from now on; ``cgroup_parent`` is the group of its RUN steps.

        Raises ``ValueError`` for what is no whole container ID, and for a second container.
        """
        service = self._service
        if service is None or not is_container_id(container_id) or service.container not in ("", container_id):
            raise ValueError(f"{container_id[:80]!r} is not the whole ID of the one container of this guard")
        if cgroup_parent is not None:
            self._change_policy(cgroup_parent=cgroup_parent)
        service.container = container_id

    def use_labels(self, labels: Mapping[str, str]) -> None:
        """Label the image so, and let it be built from now on; raises ``ValueError`` for what can be no labels."""
        self._change_policy(labels=tuple(labels.items()), may_build=True)

    def _change_policy(self, **changes: Any) -> None:
        assert self._service is not None
        self.policy = self._service.policy = replace(self.policy, **changes)

    def summary(self) -> AuditSummary:
        """What was decided until now, also after the end."""
        return self._audit.summary()

    def _end(self, thread: threading.Thread) -> None:
        loop, stop = self._loop, self._stop
        if loop is not None and stop is not None:
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(stop.set)
        thread.join(_STOP_SECONDS)

    async def _serve(self, listener: socket.socket, started: threading.Event) -> None:
        assert self._service is not None
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        door = _Door(listener, self._service, only_report=self._only_report)
        door.open()
        started.set()
        await self._stop.wait()
        await door.close()
        if self._service.spare is not None:
            self._service.spare.close()


class _Door:
    """Lets clients in, each into a task of its own.

    Those beyond the limit of connections are told so; beyond twice the limit they wait in the kernel's queue. Where
    denials are reported only, there is no limit.
    """

    def __init__(self, listener: socket.socket, service: Service, *, only_report: bool) -> None:
        self._listener, self._service = listener, service
        self._serve = WatchedConnection if only_report else Connection
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._most = math.inf if only_report else 2 * service.policy.limits.connections
        self._send_seconds = None if only_report else service.policy.limits.send_seconds
        self._is_open = self._ends = False

    def open(self) -> None:
        if self._ends:
            return
        self._is_open = True
        # Not the loop's own sock_accept: to begin and to end to watch for each connection costs more than to accept.
        self._loop.add_reader(self._listener, self._arrived)

    def _shut(self) -> None:
        self._is_open = False
        self._loop.remove_reader(self._listener)

    async def close(self) -> None:
        """Let nobody in any more, and end all connections."""
        self._ends = True
        self._shut()
        tasks = [*self._tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _arrived(self) -> None:
        try:
            accepted, _ = self._listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError:
            # Out of descriptors, most likely: others are closed in a while.
            self._shut()
            self._loop.call_later(0.1, self.open)
            return
        self._service.connections += 1
        task = self._loop.create_task(self._serve(self._service, Wire(accepted, self._send_seconds)).run())
        self._tasks.add(task)
        task.add_done_callback(self._left)
        if len(self._tasks) >= self._most:
            self._shut()

    def _left(self, task: asyncio.Task[None]) -> None:
        self._service.connections -= 1
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._loop.call_exception_handler({"message": "a connection failed", "exception": error})
        if not self._is_open and len(self._tasks) < self._most:
            self.open()
