"""The API's application: routers, and the gates before them. Each router is a module with ``router(context)``."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import FastAPI
from starlette.middleware import Middleware

from caisson.settings import Settings
from deployments.api import builds, health, host, logs, metrics, webhooks
from deployments.api.answers import add_schemas
from deployments.api.context import ApiContext
from deployments.api.delivery_gate import DeliveryGate
from deployments.api.gates import (
    LOOPBACK_NAMES,
    Authentication,
    BodyLimit,
    KnownHost,
    PlainHeaders,
)
from deployments.api.problems import handle_errors
from deployments.api.rate import RateLimit
from deployments.same_origin import is_loopback

ROUTERS = (builds.router, logs.router, host.router, webhooks.router, metrics.router, health.router)
_FAILURES_PER_SECOND, _FAILURES_AT_ONCE = 5.0, 20.0
_ALL_FAILURES_PER_SECOND, _ALL_FAILURES_AT_ONCE = 20.0, 200.0
_BURST_SECONDS = 2.0


def create_app(settings: Settings) -> FastAPI:
    """The application on these settings; raises ``StoreUnusable``."""
    context = ApiContext.of(settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        context.images.start()
        yield
        context.close()

    app = FastAPI(
        title="Caisson",
        version=version("caisson"),
        description="Builds container images from git repositories, each in a throw-away builder.",
        lifespan=lifespan,
        openapi_url="/api/openapi.json",
        # The pages come from a server elsewhere, and this API is loopback's by default.
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        middleware=_gates(settings, context),
    )
    handle_errors(app)
    for router in ROUTERS:
        app.include_router(router(context))
    plain_openapi = app.openapi
    app.openapi = lambda: add_schemas(plain_openapi())  # type: ignore[method-assign]
    return app


def _gates(settings: Settings, context: ApiContext) -> list[Middleware]:
    """The outermost first."""
    names = (*LOOPBACK_NAMES, *settings.gateway_names) if is_loopback(settings.gateway_host) else ()
    rate = settings.gateway_rate
    return [
        Middleware(PlainHeaders),
        Middleware(KnownHost, names=names),
        Middleware(
            Authentication,
            find=context.tokens.find,
            rate=RateLimit(rate=rate, burst=max(1.0, rate * _BURST_SECONDS), clock=time.monotonic),
            failures=RateLimit(rate=_FAILURES_PER_SECOND, burst=_FAILURES_AT_ONCE, clock=time.monotonic),
        ),
        Middleware(
            DeliveryGate,
            failures=RateLimit(rate=_FAILURES_PER_SECOND, burst=_FAILURES_AT_ONCE, clock=time.monotonic),
            all_failures=RateLimit(rate=_ALL_FAILURES_PER_SECOND, burst=_ALL_FAILURES_AT_ONCE, clock=time.monotonic),
        ),
        Middleware(BodyLimit),
    ]
