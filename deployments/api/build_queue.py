"""How builds get into the queue, which is Prefect's scheduled flow runs, and where in it they stand."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from caisson.queueing import Priority
from caisson.request import BuildRequest
from caisson.settings import Settings
from caisson.tokens import TokenRecord
from deployments.api.build_view import QueuePlace
from deployments.api.problems import Problem
from deployments.api.read_cache import ReadCache
from deployments.names import BUILD_FLOW
from deployments.prefect_api import PrefectApi
from deployments.prefect_pool import PrefectPool
from deployments.queue import enqueue
from deployments.queue_places import places
from deployments.trigger import DeploymentUnknown, deployment_id_of

_KNOWN_SECONDS = 5.0


@dataclass(frozen=True)
class Asked:
    """The run of a build that was asked for; ``joined``: it had been asked for before."""

    flow_run_id: str
    joined: bool
    run: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """What Prefect tells of a run that is new; empty for others."""


class BuildDeployments:
    """The IDs of the deployments by which builds are asked of hosts: they stay as long as a host is joined."""

    def __init__(self, prefect: PrefectPool) -> None:
        self._prefect = prefect
        self._ids: ReadCache[str] = ReadCache(lambda _: _KNOWN_SECONDS, most=256)

    def id_of(self, host: str) -> str:
        """Raises ``Problem`` for a host that has none, ``ServiceUnreachable``."""

        def fetch() -> str:
            with self._prefect.api() as api:
                return deployment_id_of(api, f"{BUILD_FLOW}/{host}")

        try:
            return self._ids.get(host, fetch)
        except DeploymentUnknown:
            raise Problem(
                HTTPStatus.UNPROCESSABLE_ENTITY,
                f"host: no Caisson of the name {host!r} has been up; without it, builds go to the API's own host.",
                kind="host-unknown",
                errors=[("host", "is not known")],
            ) from None

    def close(self) -> None:
        self._ids.close()


def ask_for(
    api: PrefectApi, request: BuildRequest, *, deployment_id: str, token: TokenRecord, key: str, priority: Priority
) -> Asked:
    """Ask for a build by a deployment; raises ``ServiceUnreachable``, ``RequestInvalid``, ``Problem``.

    ``key`` is the caller's Idempotency-Key, which counts for the caller's own token; empty: none.
    """
    wanted = request.model_dump(mode="json")
    made = enqueue(
        api,
        wanted,
        deployment_id=deployment_id,
        idempotency_key=_own_key(token, key),
        priority=priority,
        asker=asker_of(token),
    )
    # draft-ietf-httpapi-idempotency-key-header, 2.6: a key with another payload is an error.
    if key and not made.created and (other := _difference(api, made.flow_run_id, wanted, deployment_id)):
        raise Problem(
            HTTPStatus.UNPROCESSABLE_ENTITY,
            f"Idempotency-Key: it was used before, for another {other}; take a new one.",
            kind="key-reused",
            errors=[("Idempotency-Key", f"was used for another {other}")],
        )
    return Asked(made.flow_run_id, joined=not made.created, run=made.run)


def asker_of(token: TokenRecord) -> str:
    """The caller as one of those who ask for a build."""
    return f"token/{token.id}"


def _difference(api: PrefectApi, flow_run_id: str, wanted: dict[str, Any], deployment_id: str) -> str:
    """In what the run differs from what is asked for now; empty: in nothing."""
    run = api.get(f"/flow_runs/{flow_run_id}")
    if run["parameters"] != {"request": wanted}:
        return "request"
    return "host" if run["deployment_id"] != deployment_id else ""


def _own_key(token: TokenRecord, key: str) -> str:
    # Two callers may take the same word, and neither may find the other's build by it.
    return f"api-{token.id}-{hashlib.sha256(key.encode()).hexdigest()}" if key else ""


def queue_places(api: PrefectApi, settings: Settings) -> dict[str, QueuePlace]:
    """The place of every queued build, by its ID; raises ``ServiceUnreachable``."""
    return {
        str(place.flow_run_id): QueuePlace(ahead=place.ahead, reason=place.reason) for place in places(api, settings)
    }
