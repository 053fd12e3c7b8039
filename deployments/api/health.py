"""Whether the API lives, and whether it can take builds. Without a token, and telling nothing else."""

from __future__ import annotations

import time
from http import HTTPStatus
from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel

from caisson.errors import ServiceUnreachable
from deployments.api.answers import of_statuses
from deployments.api.context import ApiContext
from deployments.api.problems import Problem

_KEEP_SECONDS = 1.0


class Health(BaseModel):
    """It is well."""

    status: Literal["ok"] = "ok"


def router(context: ApiContext) -> APIRouter:
    routes = APIRouter(tags=["health"])
    ready_until = 0.0

    @routes.get("/healthz", summary="Whether the API lives")
    async def healthz() -> Health:
        return Health()

    @routes.get("/readyz", summary="Whether builds can be asked for", responses=of_statuses(503))
    def readyz() -> Health:
        nonlocal ready_until
        if time.monotonic() >= ready_until:
            try:
                with context.prefect.api() as api:
                    api.get("/health")
                    context.tokens.all()
            except ServiceUnreachable:
                raise Problem(
                    HTTPStatus.SERVICE_UNAVAILABLE, "Prefect's API does not answer.", headers={"Retry-After": "1"}
                ) from None
            ready_until = time.monotonic() + _KEEP_SECONDS
        return Health()

    return routes
