"""A proxy before a real server that can hold one request back: a slow engine, git server or registry."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
from collections.abc import Callable

CHUNK = 1 << 16


class Gate:
    """Forwards every connection of ``listener`` to what ``connect`` gives, both ways; a context manager.

    After ``hold`` the first piece from a client that matches waits until ``release``; then it goes on to the server,
    even if its client is dead by then, as a request does that was on its way already.
    """

    def __init__(self, listener: socket.socket, connect: Callable[[], socket.socket]) -> None:
        self._listener, self._connect = listener, connect
        self._lock = threading.Lock()
        self._pattern: re.Pattern[bytes] | None = None
        self._open = threading.Event()
        self.reached = threading.Event()

    def __enter__(self) -> Gate:
        self._spawn(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
        # A blocked accept is not woken by close alone.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def hold(self, pattern: bytes) -> None:
        with self._lock:
            self.reached.clear()
            self._open.clear()
            self._pattern = re.compile(pattern)

    def release(self) -> None:
        with self._lock:
            self._pattern = None
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
                if from_client and self._is_wanted(piece):
                    self.reached.set()
                    self._open.wait()
                target.sendall(piece)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)
        if not from_client:
            source.close()
            target.close()

    def _is_wanted(self, piece: bytes) -> bool:
        with self._lock:
            if self._pattern is None or not self._pattern.search(piece):
                return False
            self._pattern = None
            return True


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


def tcp_gate(address: str, port: int) -> tuple[Gate, int]:
    """A gate on the same address before that port; with the port that it listens on."""
    listener = socket.create_server((address, 0))
    return Gate(listener, lambda: socket.create_connection((address, port))), int(listener.getsockname()[1])
