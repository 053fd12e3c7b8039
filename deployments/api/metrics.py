"""Metrics in Prometheus' text format (version 0.0.4): the queue's, and those of this host that are in files as well."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from fastapi import APIRouter, Depends
from fastapi.responses import PlainTextResponse

from caisson.disk_metrics import metrics_directory
from caisson.metrics import render
from caisson.tokens import Scope, TokenRecord
from deployments.api.access import allowed
from deployments.api.answers import problems, with_token
from deployments.api.context import ApiContext
from deployments.api.queue_metrics import read_queue_metrics
from deployments.api.read_cache import ReadCache
from deployments.names import SHARED_QUEUE, host_queue

_QUEUE_SECONDS = 1.0
_EXAMPLE = '# TYPE caisson_queue_waiting gauge\ncaisson_queue_waiting{queue="b1"} 2.0\n'
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def router(context: ApiContext) -> APIRouter:
    routes = APIRouter(tags=["host"], dependencies=[with_token])
    caller = Depends(allowed(Scope.READ, whole_host=True))
    # Every build that waits is read for it.
    queues: ReadCache[str] = ReadCache(lambda _: _QUEUE_SECONDS, most=1)

    @routes.get(
        "/metrics",
        operation_id="read_metrics",
        summary="The host's metrics, for Prometheus",
        response_class=PlainTextResponse,
        responses={200: {"content": {"text/plain": {"example": _EXAMPLE}}}, **problems()},
    )
    def metrics(_: TokenRecord = caller) -> PlainTextResponse:
        queue = queues.get("all", lambda: _of_queue(context))
        return PlainTextResponse(queue + collected(metrics_directory(context.settings)), media_type=CONTENT_TYPE)

    return routes


def _of_queue(context: ApiContext) -> str:
    told = (host_queue(context.settings.host_name), SHARED_QUEUE)
    with context.prefect.api() as api:
        return render(read_queue_metrics(api, told, datetime.now(UTC)))


def collected(directory: Path) -> str:
    """The text of all metrics files in a directory; empty where there are none yet."""
    texts = []
    for file in sorted(directory.glob("*.prom")):
        try:
            texts.append(file.read_text())
        except OSError:
            continue
    return "".join(text if text.endswith("\n") else f"{text}\n" for text in texts)
