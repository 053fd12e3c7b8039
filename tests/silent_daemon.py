"""What stands in for an engine where a guard is tried without one: it answers little, and takes whatever comes."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

VERSION = {"ApiVersion": "1.45", "MinAPIVersion": "1.24", "Version": "26.1.5", "Os": "linux", "Arch": "amd64"}


@dataclass
class SilentDaemon:
    """Listens on ``socket_path``; ``received`` is what came on each connection, ``image`` what it says of any image,
    and ``greeting`` what it sends first on a stream."""

    socket_path: Path
    image: bytes = b"{}"
    greeting: bytes = b""
    received: list[bytearray] = field(default_factory=list)

    def serve(self, connection: socket.socket) -> None:
        received = bytearray()
        self.received.append(received)
        with connection, suppress(OSError):
            while data := connection.recv(65_536):
                received += data
                head, ended, body = bytes(received).rpartition(b"\r\n\r\n")
                if received.startswith((b"GET ", b"HEAD ")) and not body:
                    kind, answer = "application/json", self._answer(bytes(received))
                    received.clear()
                    connection.sendall(
                        f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nBuilder-Version: 2\r\n"
                        f"Content-Length: {len(answer)}\r\n\r\n".encode()
                        + answer
                    )
                elif ended and b"upgrade: h2c" in head.lower():
                    switched = b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
                    connection.sendall(switched + self.greeting)
                    while data := connection.recv(65_536):
                        received += data

    def _answer(self, request: bytes) -> bytes:
        path = request.split(b" ")[1]
        if path.endswith(b"/version"):
            return json.dumps(VERSION).encode()
        return self.image if b"/images/" in path else b"OK"


@contextmanager
def silent_daemon(directory: Path, image: bytes = b"{}", greeting: bytes = b"") -> Iterator[SilentDaemon]:
    """One that serves as long as the block lasts."""
    daemon = SilentDaemon(directory / "engine.sock", image, greeting)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(daemon.socket_path))
        listener.listen(128)

        def accept() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    threading.Thread(target=daemon.serve, args=(connection,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield daemon
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
