"""A build's log: as events while it runs, or as plain text as far as it is."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

from anyio import to_thread
from fastapi import APIRouter, Depends, Header, Request
from fastapi.responses import PlainTextResponse, Response, StreamingResponse

from caisson.build import log_file
from caisson.tokens import Scope, TokenRecord
from deployments.api import sse
from deployments.api.access import allowed
from deployments.api.answers import problems, with_token
from deployments.api.build_view import BuildDetail
from deployments.api.builds import no_build
from deployments.api.context import ApiContext
from deployments.api.links import READ_BUILD_LOG, of_build
from deployments.api.log_source import MOST_BYTES, FileLog, PrefectLog
from deployments.api.log_stream import END, LogStream
from deployments.api.problems import Problem

MOST_STREAMS = 200
MOST_STREAMS_OF_A_TOKEN = 50
_ANSWER: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The log",
        "content": {
            "text/plain": {"schema": {"type": "string"}, "example": "Cloning https://github.com/team/app.git\n"},
            sse.MEDIA_TYPE: {
                "schema": {"type": "string"},
                "example": "id: f:41\nevent: log\ndata: Cloning https://github.com/team/app.git\n\n",
            },
        },
        "links": of_build("$request.path.build_id", READ_BUILD_LOG),
    },
    204: {"description": "There is nothing after `Last-Event-ID`, and never will be"},
}


class Streams:
    """How many streams are open, in all and of each token."""

    def __init__(self, *, most: int = MOST_STREAMS, most_of_a_token: int = MOST_STREAMS_OF_A_TOKEN) -> None:
        self._most = most
        self._most_of_a_token = most_of_a_token
        self._lock = threading.Lock()
        self._open: Counter[str] = Counter()

    def check(self, token: TokenRecord) -> None:
        """Raise ``Problem`` where one more would be too many."""
        with self._lock:
            if self._open.total() >= self._most or self._open[token.id] >= self._most_of_a_token:
                raise Problem(
                    HTTPStatus.TOO_MANY_REQUESTS, "Too many logs are being followed.", headers={"Retry-After": "5"}
                )

    @contextmanager
    def counted(self, token: TokenRecord) -> Iterator[None]:
        """Counts one for the block."""
        with self._lock:
            self._open[token.id] += 1
        try:
            yield
        finally:
            with self._lock:
                self._open[token.id] -= 1


def router(context: ApiContext) -> APIRouter:
    routes = APIRouter(prefix="/api/builds", tags=["builds"], dependencies=[with_token])
    may_read = Depends(allowed(Scope.BUILD, Scope.READ))
    streams = Streams()

    @routes.get(
        "/{build_id}/log",
        operation_id=READ_BUILD_LOG,
        summary="A build's log",
        response_class=Response,
        responses={**_ANSWER, **problems(404, 406)},
    )
    async def log(
        request: Request,
        build_id: UUID,
        last_event_id: Annotated[
            str,
            Header(description="The ID of the last event that was seen: the stream goes on after it", max_length=80),
        ] = "",
        caller: TokenRecord = may_read,
    ) -> Response:
        """As `text/event-stream` it goes on until the build has ended: events `log` (lines joined by newlines), `state`
        (state, step and place in the queue), and `end` (the build with its report). As `text/plain`, which is also what
        comes unasked, it is the log as far as it is now."""
        accept = request.headers.get("accept", "")
        if not sse.is_acceptable(accept):
            raise Problem(HTTPStatus.NOT_ACCEPTABLE, "The log is text/event-stream or text/plain.")

        def build() -> BuildDetail | None:
            # The token may have been revoked while the stream is open.
            known = context.tokens.get(caller.id)
            return context.builds.find(str(build_id), known.grant) if known is not None else None

        now = await to_thread.run_sync(build)
        if now is None:
            raise no_build(build_id)
        path = log_file(context.settings, str(build_id))
        if not sse.prefers_events(accept):
            return await to_thread.run_sync(lambda: _text(context, path, now))
        if last_event_id == END and now.final:
            # By this an EventSource knows that it need not come back.
            return Response(status_code=HTTPStatus.NO_CONTENT)
        stream = LogStream(
            build=build,
            open_file=lambda position: FileLog(path, position) if path.exists() else None,
            open_prefect=lambda position: PrefectLog(context.prefect, str(build_id), position),
            position=last_event_id,
        )
        streams.check(caller)

        async def events() -> AsyncIterator[bytes]:
            with streams.counted(caller):
                async for event in stream.events():
                    yield event

        return StreamingResponse(events(), media_type=sse.MEDIA_TYPE, headers={"X-Accel-Buffering": "no"})

    return routes


def _text(context: ApiContext, path: Path, build: BuildDetail) -> Response:
    if path.exists():
        return StreamingResponse(_file(path), media_type="text/plain; charset=utf-8")
    pieces = PrefectLog(context.prefect, str(build.id)).read(over=True)
    return PlainTextResponse("".join(f"{piece.text}\n" for piece in pieces))


def _file(path: Path) -> Iterator[bytes]:
    with path.open("rb") as log:
        while chunk := log.read(MOST_BYTES):
            yield chunk
