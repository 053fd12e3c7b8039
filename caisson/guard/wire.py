"""A connected unix socket in an event loop: bytes in and out, and whether the other end is still there."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from pathlib import Path

_BUFFER = 256 << 10
# What may wait for the engine: with the kernel's own 208 KiB, client, guard and engine wait for each other in turns.
_TO_ENGINE = 2 << 20
_SO_SNDBUFFORCE = 32
# For all wires, each of which takes out at once what it has read: a new buffer for each read costs more than the read.
_shared = threading.local()


class Gone(Exception):
    """The other end has closed the connection, or has not sent in time what was waited for."""


class Wire:
    """One connection. All of it is for one event loop, with one reader at a time.

    Nothing is read before it is asked for, by ``receive`` or ``readable``; what is read ahead is one buffer at most.
    ``send_seconds`` is how long the other end may take nothing of what it is sent; None: as long as it likes.
    """

    def __init__(self, connection: socket.socket, send_seconds: float | None = None) -> None:
        connection.setblocking(False)
        self._send_seconds = send_seconds
        self.socket = connection
        self._loop = asyncio.get_running_loop()
        self._ahead: bytes | None = None
        self._waiting: asyncio.Future[bool] | None = None
        self._watched = False

    async def receive(self, seconds: float | None = None) -> bytes:
        """The next bytes, none at the end; raises ``Gone`` when none came in time."""
        if not await self.readable(seconds):
            raise Gone("nothing came in time")
        data, self._ahead = self._ahead, None
        return data or b""

    async def readable(self, seconds: float | None = None) -> bool:
        """Wait for bytes or the end, which ``receive`` gives then at once; False when neither came in time."""
        if self._ahead is None:
            self._ahead = self._take()
        if self._ahead is not None:
            return True
        self._waiting = waiting = self._loop.create_future()
        timer = None if seconds is None else self._loop.call_later(seconds, _tell, waiting, False)
        if not self._watched:
            self._watched = True
            # By its number: the loop formats what it does not know, and a socket then asks the kernel for its names.
            self._loop.add_reader(self.socket.fileno(), self._arrived)
        try:
            found: bool = await waiting
            return found
        finally:
            self._waiting = None
            if timer is not None:
                timer.cancel()

    def _arrived(self) -> None:
        # It stays watched from wait to wait: to begin and to end that costs more than to read.
        if self._waiting is None or self._waiting.done():
            self._unwatch()
            return
        self._ahead = self._take()
        if self._ahead is not None:
            _tell(self._waiting, True)

    def _unwatch(self) -> None:
        if self._watched:
            self._watched = False
            self._loop.remove_reader(self.socket.fileno())

    def _take(self) -> bytes | None:
        """What has come, nothing at the end; None where nothing has."""
        try:
            size = self.socket.recv_into(_buffer())
        except (BlockingIOError, InterruptedError):
            return None
        except ConnectionError:
            return b""
        return bytes(_buffer()[:size])

    async def send(self, data: bytes) -> None:
        """Send all of it, as fast as the other end takes it; raises ``Gone``."""
        rest = memoryview(data)
        try:
            while rest := rest[self._put(rest) :]:
                await self._writable()
        except OSError as error:
            raise Gone(str(error)) from None

    def _put(self, data: memoryview) -> int:
        try:
            return self.socket.send(data)
        except (BlockingIOError, InterruptedError):
            return 0

    async def _writable(self) -> None:
        writable = self._loop.create_future()
        number = self.socket.fileno()
        self._loop.add_writer(number, _tell, writable, True)
        timer = (
            None if self._send_seconds is None else self._loop.call_later(self._send_seconds, _tell, writable, False)
        )
        try:
            if not await writable:
                raise Gone("nothing was taken in time")
        finally:
            self._loop.remove_writer(number)
            if timer is not None:
                timer.cancel()

    async def says_more(self) -> bool:
        """Wait for what comes next, and leave it there: bytes, or the end (False)."""
        await self.readable()
        return bool(self._ahead)

    def is_quiet(self) -> bool:
        """Whether there is neither a byte nor the end now."""
        if self._ahead is None:
            self._ahead = self._take()
        return self._ahead is None

    async def drain(self, seconds: float) -> None:
        """Say that nothing more comes, and take what the other end still sends, for a while.

        A socket that is closed with unread bytes resets the connection, and the answer would be lost with it.
        """
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(seconds):
                self.socket.shutdown(socket.SHUT_WR)
                while await self.receive():
                    pass

    def close(self) -> None:
        self._unwatch()
        self.socket.close()


def _tell(waiting: asyncio.Future[bool], value: bool) -> None:
    if not waiting.done():
        waiting.set_result(value)


def _buffer() -> memoryview:
    """This thread's buffer."""
    if not hasattr(_shared, "view"):
        _shared.view = memoryview(bytearray(_BUFFER))
    view: memoryview = _shared.view
    return view


def _enlarge(connection: socket.socket) -> None:
    # Beyond net.core.wmem_max only for CAP_NET_ADMIN, socket(7); without it, as far as that goes.
    try:
        connection.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, _TO_ENGINE)
    except PermissionError:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _TO_ENGINE)


async def connect(path: Path, seconds: float) -> Wire:
    """Connect to a unix socket; raises ``Gone``."""
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.setblocking(False)
        _enlarge(connection)
        async with asyncio.timeout(seconds):
            await asyncio.get_running_loop().sock_connect(connection, str(path))
    except (OSError, TimeoutError):
        connection.close()
        raise Gone("the engine does not answer") from None
    except BaseException:
        connection.close()
        raise
    return Wire(connection)
