"""A connected unix socket in an event loop: bytes in and out, and whether the other end is still there."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from pathlib import Path

_BUFFER = 256 << 10


class Gone(Exception):
    """The other end has closed the connection, or has not sent in time what was waited for."""


class Wire:
    """One connection. All of it is for one event loop; nothing is read before it is asked for."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self.socket = connection
        self._loop = asyncio.get_running_loop()

    async def receive(self, seconds: float | None = None) -> bytes:
        """The next bytes, none at the end; raises ``Gone`` when none came in time."""
        try:
            async with asyncio.timeout(seconds):
                return await self._loop.sock_recv(self.socket, _BUFFER)
        except TimeoutError:
            raise Gone("nothing came in time") from None
        except ConnectionError:
            return b""

    async def send(self, data: bytes) -> None:
        """Send all of it, as fast as the other end takes it; raises ``Gone``."""
        try:
            await self._loop.sock_sendall(self.socket, data)
        except OSError as error:
            raise Gone(str(error)) from None

    async def peek(self) -> bytes:
        """Wait for the next byte without taking it; none at the end."""
        while True:
            readable = asyncio.Event()
            self._loop.add_reader(self.socket, readable.set)
            try:
                await readable.wait()
            finally:
                self._loop.remove_reader(self.socket)
            try:
                return self.socket.recv(1, socket.MSG_PEEK)
            except BlockingIOError:
                continue
            except OSError:
                return b""

    async def drain(self, seconds: float) -> None:
        """Say that nothing more comes, and take what the other end still sends, for a while.

        A socket that is closed with unread bytes resets the connection, and the answer would be lost with it.
        """
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(seconds):
                self.socket.shutdown(socket.SHUT_WR)
                while await self._loop.sock_recv(self.socket, _BUFFER):
                    pass

    def close(self) -> None:
        self.socket.close()


async def connect(path: Path, seconds: float) -> Wire:
    """Connect to a unix socket; raises ``Gone``."""
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.setblocking(False)
        async with asyncio.timeout(seconds):
            await asyncio.get_running_loop().sock_connect(connection, str(path))
    except (OSError, TimeoutError):
        connection.close()
        raise Gone("the engine does not answer") from None
    except BaseException:
        connection.close()
        raise
    return Wire(connection)
