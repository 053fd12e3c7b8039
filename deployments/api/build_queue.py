"""How builds get into the queue, which is Prefect's scheduled flow runs, and where in it they stand."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from caisson.queueing import Priority
from caisson.request import BuildRequest
from caisson.settings import Settings
from caisson.tokens import TokenRecord
from deployments.api.build_view import QueuePlace
from deployments.api.problems import Problem
from deployments.names import BUILD_FLOW
from deployments.prefect_api import PrefectApi
from deployments.queue import enqueue
from deployments.queue_places import places
from deployments.trigger import DeploymentUnknown, deployment_id_of


@dataclass(frozen=True)
class Asked:
    """The run of a build that was asked for; ``joined``: it had been asked for before."""

    flow_run_id: str
    joined: bool


def ask_for(
    api: PrefectApi, request: BuildRequest, *, host: str, token: TokenRecord, key: str, priority: Priority
) -> Asked:
    """Ask for a build; raises ``ServiceUnreachable``, ``RequestInvalid``, ``Problem``.

    ``key`` is the caller's Idempotency-Key, which counts for the caller's own token; empty: none.
    """
    wanted = request.model_dump(mode="json")
    try:
        made = enqueue(
            api,
            wanted,
            deployment=f"{BUILD_FLOW}/{host}",
            idempotency_key=_own_key(token, key),
            priority=priority,
            asker=asker_of(token),
        )
    except DeploymentUnknown:
        raise Problem(
            HTTPStatus.UNPROCESSABLE_ENTITY,
            f"host: no Caisson of the name {host!r} has been up; without it, builds go to the API's own host.",
            kind="host-unknown",
            errors=[("host", "is not known")],
        ) from None
    # draft-ietf-httpapi-idempotency-key-header, 2.6: a key with another payload is an error.
    if key and not made.created and (other := _difference(api, made.flow_run_id, wanted, host)):
        raise Problem(
            HTTPStatus.UNPROCESSABLE_ENTITY,
            f"Idempotency-Key: it was used before, for another {other}; take a new one.",
            kind="key-reused",
            errors=[("Idempotency-Key", f"was used for another {other}")],
        )
    return Asked(made.flow_run_id, joined=not made.created)


def asker_of(token: TokenRecord) -> str:
    """The caller as one of those who ask for a build."""
    return f"token/{token.id}"


def _difference(api: PrefectApi, flow_run_id: str, wanted: dict[str, Any], host: str) -> str:
    """In what the run differs from what is asked for now; empty: in nothing."""
    run = api.get(f"/flow_runs/{flow_run_id}")
    if run["parameters"] != {"request": wanted}:
        return "request"
    return "host" if run["deployment_id"] != deployment_id_of(api, f"{BUILD_FLOW}/{host}") else ""


def _own_key(token: TokenRecord, key: str) -> str:
    # Two callers may take the same word, and neither may find the other's build by it.
    return f"api-{token.id}-{hashlib.sha256(key.encode()).hexdigest()}" if key else ""


def queue_places(api: PrefectApi, settings: Settings) -> dict[str, QueuePlace]:
    """The place of every queued build, by its ID; raises ``ServiceUnreachable``."""
    return {
        str(place.flow_run_id): QueuePlace(ahead=place.ahead, reason=place.reason) for place in places(api, settings)
    }
