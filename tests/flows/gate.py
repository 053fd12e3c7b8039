"""A proxy before a real server that can hold one request back: a slow engine, git server or registry."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
from collections.abc import Callable

from tests.engine.network import EngineNetwork

CHUNK = 1 << 16


class Gate:
    """Forwards every connection of ``listener`` to what ``connect`` gives, both ways; a context manager.

    After ``hold`` the first piece from a client that matches waits until ``release``; then it goes on to the server,
    even if its client is dead by then, as a request does that was on its way already. Several may be held at once.
    """

    def __init__(self, listener: socket.socket, connect: Callable[[], socket.socket]) -> None:
        self._listener, self._connect = listener, connect
        self._lock = threading.Lock()
        self._wanted: list[tuple[re.Pattern[bytes], threading.Event]] = []
        self._open = threading.Event()

    def __enter__(self) -> Gate:
        self._spawn(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
        # A blocked accept is not woken by close alone.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def hold(self, pattern: bytes) -> threading.Event:
        """Hold the next piece that matches; returns what is set when it has come."""
        reached = threading.Event()
        with self._lock:
            if self._open.is_set():
                self._open = threading.Event()
            self._wanted.append((re.compile(pattern), reached))
        return reached

    def release(self) -> None:
        """Let everything go on that is held."""
        with self._lock:
            self._wanted.clear()
            self._open.set()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = self._connect()
            except OSError:
                client.close()
                continue
            self._spawn(self._pump, client, server, True)
            self._spawn(self._pump, server, client, False)

    def _spawn(self, function: Callable[..., None], *arguments: object) -> None:
        threading.Thread(target=function, args=arguments, daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket, from_client: bool) -> None:
        with contextlib.suppress(OSError):
            while piece := source.recv(CHUNK):
                if from_client and (opened := self._held(piece)):
                    opened.wait()
                target.sendall(piece)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)
        if not from_client:
            source.close()
            target.close()

    def _held(self, piece: bytes) -> threading.Event | None:
        with self._lock:
            for wanted in self._wanted:
                pattern, reached = wanted
                if pattern.search(piece):
                    self._wanted.remove(wanted)
                    reached.set()
                    return self._open
        return None


def unix_gate(path: str, target: str) -> Gate:
    """A gate at a unix socket before another one."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()

    def connect() -> socket.socket:
        server = socket.socket(socket.AF_UNIX)
        server.connect(target)
        return server

    return Gate(listener, connect)


def tcp_gate(address: str, port: int, network: EngineNetwork) -> tuple[Gate, int]:
    """A gate on the same address of an engine's network before that port; with the port that it listens on."""
    listener = network.call(lambda: socket.create_server((address, 0)))

    def connect() -> socket.socket:
        return network.call(lambda: socket.create_connection((address, port)))

    return Gate(listener, connect), int(listener.getsockname()[1])
