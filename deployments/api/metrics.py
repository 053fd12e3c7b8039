"""The host's metrics in Prometheus' text format (version 0.0.4): those that are written as files for node_exporter."""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter, Depends
from fastapi.responses import PlainTextResponse

from caisson.tokens import Scope, TokenRecord
from deployments.api.access import allowed
from deployments.api.answers import problems, with_token
from deployments.api.context import ApiContext

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def router(context: ApiContext) -> APIRouter:
    routes = APIRouter(tags=["host"], dependencies=[with_token])
    caller = Depends(allowed(Scope.READ, whole_host=True))

    @routes.get(
        "/metrics", summary="The host's metrics, for Prometheus", response_class=PlainTextResponse, responses=problems()
    )
    def metrics(_: TokenRecord = caller) -> PlainTextResponse:
        settings = context.settings
        directory = Path(settings.metrics_dir) if settings.metrics_dir else settings.state_dir / "metrics"
        return PlainTextResponse(collected(directory), media_type=CONTENT_TYPE)

    return routes


def collected(directory: Path) -> str:
    """The text of all metrics files in a directory; empty where there are none yet."""
    texts = []
    for file in sorted(directory.glob("*.prom")):
        try:
            texts.append(file.read_text())
        except OSError:
            continue
    return "".join(text if text.endswith("\n") else f"{text}\n" for text in texts)
