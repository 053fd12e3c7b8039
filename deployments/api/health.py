"""Whether the API lives, and whether it can take builds. Without a token, and telling nothing else."""

from __future__ import annotations

import time
from http import HTTPStatus
from typing import Literal

import anyio
import anyio.to_thread
from fastapi import APIRouter
from pydantic import BaseModel

from caisson.errors import CaissonError
from deployments.api.answers import of_statuses
from deployments.api.context import ApiContext
from deployments.api.problems import Problem
from deployments.server import is_healthy, server_url

_KEEP_SECONDS = 1.0


class Health(BaseModel):
    """It is well."""

    status: Literal["ok"] = "ok"


def router(context: ApiContext) -> APIRouter:
    routes = APIRouter(tags=["health"])
    readiness = _Readiness(context)

    @routes.get("/healthz", operation_id="read_health", summary="Whether the API lives")
    async def healthz() -> Health:
        return Health()

    @routes.get(
        "/readyz",
        operation_id="read_readiness",
        summary="Whether builds can be asked for",
        responses=of_statuses(503),
    )
    async def readyz() -> Health:
        await readiness.check()
        return Health()

    return routes


class _Readiness:
    """Looked at once a second at most, however many ask: it is open to everybody, and must cost the others nothing."""

    def __init__(self, context: ApiContext) -> None:
        self._context = context
        self._api_url = context.settings.api_url or f"{server_url(context.settings)}/api"
        self._looking = anyio.Lock()
        self._failure: Exception | None = None
        self._until = 0.0

    async def check(self) -> None:
        """Raise what is wrong, a moment old at most."""
        async with self._looking:
            if time.monotonic() >= self._until:
                self._failure = await anyio.to_thread.run_sync(self._look)
                self._until = time.monotonic() + _KEEP_SECONDS
        if self._failure is not None:
            raise self._failure.with_traceback(None)

    def _look(self) -> Exception | None:
        try:
            self._context.tokens.all()
        except CaissonError as error:
            return error
        if is_healthy(self._api_url):
            return None
        return Problem(HTTPStatus.SERVICE_UNAVAILABLE, "Prefect's API does not answer.", headers={"Retry-After": "1"})
