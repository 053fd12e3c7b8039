"""``POST /webhooks/NAME``: a git host's delivery, checked, remembered, and answered before anything is built."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

from anyio import sleep, to_thread
from fastapi import APIRouter, FastAPI, Request, Response
from pydantic import BaseModel, Field

from caisson.errors import SecretMissing, SettingsInvalid
from caisson.webhooks.decision import Decision, decide
from caisson.webhooks.event import Malformed
from caisson.webhooks.providers import parse_events
from caisson.webhooks.rules import Hook
from caisson.webhooks.signature import Delivery, NotAuthentic, authenticate
from deployments.api.context import ApiContext
from deployments.api.hook_secrets import HookSecrets
from deployments.api.problems import MEDIA_TYPE, Problem
from deployments.api.statuses import WebhookWorker
from deployments.webhook_rules import RulesFile
from deployments.webhook_store import Acceptance, AskedBuild, WebhookStore

# How long an answer waits for the runs' IDs; without them it is as true.
WAIT_SECONDS = 1.0
_LOOK_SECONDS = 0.02


class BegunBuild(BaseModel):
    """A build that the delivery asked for."""

    image: str
    ref: str
    commit: str = Field("", description="The whole SHA of its commit; empty where the delivery has none")
    flow_run_id: str = Field("", description="Its run; empty while it is not in the queue yet")


class Answer(BaseModel):
    """What came of a delivery."""

    builds: list[BegunBuild] = []
    reasons: list[str] = Field(default=[], description="Why rules or events built nothing")


_PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {
        "description": words,
        "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }
    for status, words in {
        400: "The payload is none that the provider documents",
        401: "The signature is missing or wrong",
        404: "There is no such webhook",
        408: "The payload took too long to come in",
        409: "The same payload was here before, under another ID",
        413: "The payload is too large",
        422: "The webhook's name can't be read",
        503: "The webhook's secret or the file of webhooks is missing or wrong, or too many deliveries come in at once",
    }.items()
}


def router(context: ApiContext) -> APIRouter:
    rules = RulesFile(context.settings)
    store = WebhookStore(context.store)
    secrets = HookSecrets(context.prefect)
    worker = WebhookWorker(context.settings, store, context.prefect, rules, secrets)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        worker.start()
        yield
        await to_thread.run_sync(worker.close)
        secrets.close()

    routes = APIRouter(tags=["webhooks"], lifespan=lifespan)

    @routes.post(
        "/webhooks/{name}",
        status_code=HTTPStatus.ACCEPTED,
        operation_id="take_delivery",
        summary="Take a delivery of a git host",
        responses={200: {"model": Answer, "description": "Nothing is built, for these reasons"}, **_PROBLEMS},
    )
    async def take(name: str, request: Request, response: Response) -> Answer:
        hook = await to_thread.run_sync(_hook, rules, name)
        secret = await to_thread.run_sync(_secret, secrets, hook)
        body = await request.body()
        delivery = _authentic(hook, request, body, secret)
        decision = await to_thread.run_sync(_decide, hook, delivery, body)
        acceptance, keys = await to_thread.run_sync(store.accept, hook.name, delivery, decision.builds, _now())
        if acceptance is Acceptance.REPLAYED:
            raise Problem(
                HTTPStatus.CONFLICT, "This payload was delivered before, under another ID.", kind="delivery-replayed"
            )
        if acceptance is Acceptance.SEEN:
            decision = Decision(reasons=("this delivery was taken before; what it asked for was begun then",))
        if not keys:
            response.status_code = HTTPStatus.OK
            return Answer(reasons=list(decision.reasons))
        worker.wake()
        return Answer(builds=[_begun(each) for each in await _begin(store, keys)], reasons=list(decision.reasons))

    return routes


def _hook(rules: RulesFile, name: str) -> Hook:
    try:
        hook = rules.current().find(name)
    except SettingsInvalid:
        # What is wrong with it is for whoever may see the host's log.
        raise Problem(
            HTTPStatus.SERVICE_UNAVAILABLE, "The file of webhooks is not valid; `caisson webhooks check` says why."
        ) from None
    if hook is None:
        raise Problem(HTTPStatus.NOT_FOUND, "There is no webhook of that name.")
    return hook


def _secret(secrets: HookSecrets, hook: Hook) -> str:
    try:
        return secrets.value(hook.secret)
    except SecretMissing:
        raise Problem(
            HTTPStatus.SERVICE_UNAVAILABLE, "The webhook's secret is not set; `caisson webhooks check` names it."
        ) from None


def _authentic(hook: Hook, request: Request, body: bytes, secret: str) -> Delivery:
    # Of a header that came several times the first counts, for everybody.
    headers: dict[str, str] = {}
    for name, value in request.headers.items():
        headers.setdefault(name.lower(), value)
    try:
        return authenticate(hook.provider, headers, body, secret, now=_now())
    except NotAuthentic as error:
        raise Problem(HTTPStatus.UNAUTHORIZED, f"The delivery is not authentic: {error}.") from None


def _decide(hook: Hook, delivery: Delivery, body: bytes) -> Decision:
    try:
        return decide(hook, parse_events(hook.provider, delivery.event, body))
    except Malformed as error:
        raise Problem(HTTPStatus.BAD_REQUEST, f"The delivery can't be read: {error}.", kind="body-invalid") from None


async def _begin(store: WebhookStore, keys: list[str]) -> list[AskedBuild]:
    """The builds, with their runs where they are in the queue within a moment."""
    waited = 0.0
    while True:
        builds = await to_thread.run_sync(store.builds, keys)
        if waited >= WAIT_SECONDS or all(build.flow_run_id or build.state.final for build in builds):
            return builds
        await sleep(_LOOK_SECONDS)
        waited += _LOOK_SECONDS


def _begun(build: AskedBuild) -> BegunBuild:
    return BegunBuild(
        image=str(build.request["image"]),
        ref=build.ref,
        commit=str(build.request.get("commit", "")),
        flow_run_id=build.flow_run_id,
    )


def _now() -> datetime:
    return datetime.now(UTC)
