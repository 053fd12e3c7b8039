"""The network of an engine that has a namespace of its own: programs and sockets of a test's, in there."""

from __future__ import annotations

import ctypes
import os
import socket
import struct
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

_T = TypeVar("_T")
LOOPBACK = "127.0.0.1"
_CLONE_NEWNET = 0x40000000


class EngineNetwork:
    """The network namespace of a process: of the one that listens on an engine's socket, or of its keeper."""

    def __init__(self, pid: int) -> None:
        self._namespace = f"/proc/{pid}/ns/net"
        self._is_ours = Path(self._namespace).samefile("/proc/self/ns/net")

    @classmethod
    def of_engine(cls, engine_socket: Path) -> EngineNetwork:
        """That of the process that listens on an engine's socket."""
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(engine_socket))
            peer = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        return cls(struct.unpack("3i", peer)[0])

    def command(self, *argv: str) -> list[str]:
        """The command line that runs a program there."""
        return list(argv) if self._is_ours else ["nsenter", f"--net={self._namespace}", *argv]

    def call(self, function: Callable[[], _T]) -> _T:
        """What a function returns there; sockets that it makes stay there. It must not start threads."""
        if self._is_ours:
            return function()
        results: list[_T] = []
        failures: list[BaseException] = []

        def there() -> None:
            try:
                self._enter()
                results.append(function())
            except BaseException as error:  # handed on to the caller's thread
                failures.append(error)

        # A namespace is a thread's own: this one ends with the call.
        thread = threading.Thread(target=there)
        thread.start()
        thread.join()
        if failures:
            raise failures[0]
        return results[0]

    def _enter(self) -> None:
        with Path(self._namespace).open() as namespace:
            if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), _CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), self._namespace)

    def address(self) -> str:
        """One of its own addresses beyond loopback; nothing is sent to find it."""

        def probe() -> str:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                client.connect(("192.0.2.1", 9))
                return str(client.getsockname()[0])

        return self.call(probe)

    def free_port(self, address: str = LOOPBACK) -> int:
        """A port of its loopback, or of another address of its own, that nobody listens on."""

        def probe() -> int:
            with socket.socket() as unused:
                unused.bind((address, 0))
                return int(unused.getsockname()[1])

        return self.call(probe)
