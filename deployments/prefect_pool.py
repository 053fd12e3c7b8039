"""A few connections to Prefect's API that threads share: each is one thread's at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from caisson.errors import ServiceUnreachable
from deployments.prefect_api import PrefectApi

MOST = 8
WAIT_SECONDS = 30.0


class PrefectPool:
    """At most ``most`` connections at once; whoever finds none free waits for one."""

    def __init__(
        self, connect: Callable[[], PrefectApi], *, most: int = MOST, wait_seconds: float = WAIT_SECONDS
    ) -> None:
        self._connect = connect
        self._free = threading.BoundedSemaphore(most)
        self._wait_seconds = wait_seconds
        self._lock = threading.Lock()
        self._idle: list[PrefectApi] = []

    @contextmanager
    def api(self) -> Iterator[PrefectApi]:
        """A connection for the block; raises ``ServiceUnreachable`` when none gets free in time."""
        if not self._free.acquire(timeout=self._wait_seconds):
            raise ServiceUnreachable("Prefect's API is too busy to answer.", hint="Try again in a moment.")
        try:
            with self._lock:
                api = self._idle.pop() if self._idle else None
            api = api or self._connect()
            try:
                yield api
            finally:
                # Also after an error: it reads every answer to its end, and connects anew by itself.
                with self._lock:
                    self._idle.append(api)
        finally:
            self._free.release()

    def close(self) -> None:
        with self._lock:
            idle, self._idle = self._idle, []
        for api in idle:
            api.__exit__(None, None, None)
