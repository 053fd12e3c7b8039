"""A build's log as a stream of events: ``log``; ``state`` when state, step or place in the queue change; ``end`` with
the build."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import anyio
from anyio import to_thread

from deployments.api import sse
from deployments.api.build_view import BuildDetail, BuildState, QueuePlace
from deployments.api.log_source import FileLog, LogSource, PrefectLog

LOG_SECONDS = 0.1
STATE_SECONDS = 0.5
KEEP_ALIVE_SECONDS = 15.0
RETRY_MILLISECONDS = 1000
LAST_LINES_SECONDS = 5.0
"""How long the last lines of a build that has ended are waited for, where they come by way of Prefect."""
# Longer than a build needs from its start to its first line: until then its log may still be a file of this host.
ELSEWHERE_SECONDS = 3.0
PREFECT_LOG_SECONDS = 1.0
END = "end"
"""The ID of the last event: who comes back with it has seen everything."""


@dataclass
class LogStream:
    """One reader's way through one log.

    ``build`` tells of the build now, None when it is gone or the reader may not see it any more.
    """

    build: Callable[[], BuildDetail | None]
    open_file: Callable[[str], FileLog | None]
    open_prefect: Callable[[str], PrefectLog]
    position: str = ""
    _source: LogSource | None = None
    _told: tuple[str, str, QueuePlace | None] | None = None
    _seen_running: float | None = None
    _next_read: float = 0.0
    _last_sent: float = field(default_factory=time.monotonic)

    async def events(self) -> AsyncIterator[bytes]:
        """Everything from the position on, until the build has ended and its last line is out."""
        yield sse.reconnect_after(RETRY_MILLISECONDS)
        next_state, build = 0.0, None
        while True:
            now = time.monotonic()
            if now >= next_state:
                next_state = now + STATE_SECONDS
                build = await to_thread.run_sync(self.build)
                if build is None:
                    return
                if (told := (build.state.value, build.step, build.queue)) != self._told and not build.final:
                    self._told = told
                    yield self._sent(
                        sse.frame("state", build.model_dump_json(include={"id", "state", "step", "queue"}))
                    )
            assert build is not None
            if build.final:
                break
            async for piece in self._pieces(build):
                yield piece
            if now - self._last_sent > KEEP_ALIVE_SECONDS:
                yield self._sent(sse.KEEP_ALIVE)
            await anyio.sleep(LOG_SECONDS)
        deadline = time.monotonic() + LAST_LINES_SECONDS
        while True:
            self._next_read = 0.0
            async for piece in self._pieces(build):
                yield piece
            if self._source is None or self._source.complete or time.monotonic() > deadline:
                break
            await anyio.sleep(LOG_SECONDS)
        yield sse.frame("end", build.model_dump_json(), id=END)

    async def _pieces(self, build: BuildDetail) -> AsyncIterator[bytes]:
        if self._source is None:
            self._source = self._choose(build)
        now = time.monotonic()
        if self._source is None or now < self._next_read:
            return
        self._next_read = now + (LOG_SECONDS if isinstance(self._source, FileLog) else PREFECT_LOG_SECONDS)
        source = self._source
        for piece in await to_thread.run_sync(lambda: source.read(over=build.final)):
            yield self._sent(sse.frame("log", piece.text, id=piece.position))

    def _choose(self, build: BuildDetail) -> LogSource | None:
        """The build's file, as soon as there is one; Prefect's log where there is none by the time there should be."""
        if (file := self.open_file(self.position)) is not None:
            return file
        if build.state is BuildState.RUNNING:
            self._seen_running = self._seen_running or time.monotonic()
        waited = self._seen_running is not None and time.monotonic() - self._seen_running > ELSEWHERE_SECONDS
        return self.open_prefect(self.position) if build.final or waited else None

    def _sent(self, event: bytes) -> bytes:
        self._last_sent = time.monotonic()
        return event
