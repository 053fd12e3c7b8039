"""HTTP over a unix socket, for the few questions to the engine that the Docker SDK is not there for."""

from __future__ import annotations

import http.client
import os
import socket


class UnixConnection(http.client.HTTPConnection):
    """A connection to the server at a socket's path; ``timeout`` (seconds) is for each of its answers."""

    def __init__(self, path: str | os.PathLike[str], *, timeout: float) -> None:
        super().__init__("docker", timeout=timeout)
        self._path = os.fspath(path)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)
