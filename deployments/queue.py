"""How builds get into the queue, which is Prefect's scheduled flow runs: nothing of a build is kept elsewhere.

- A request that equals one that waits joins it. One that names its whole commit joins also one that runs.
- Of pushes to one branch the newest is built: an older one that waits is cancelled, and told by which, unless somebody
  else asked for it, too. Which is newer is decided by when they were asked for, not by when they came into the queue.

What this needs to know of a run is in its tags.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from caisson.asking import (
    ASKED_AT_LABEL,
    ASKER_TAG,
    WAITS,
    PushedRun,
    asked_at,
    askers,
    mark_of,
    may_join,
    superseded,
    with_asker,
    without_asker,
)
from caisson.git import is_full_sha
from caisson.queueing import PRIORITY_TAG, SHIFT, Priority, Supersede, priority_of
from caisson.request import BuildRequest
from caisson.spec import parse_request
from deployments.prefect_api import PrefectApi
from deployments.queued import one_spelling
from deployments.trigger import PAGE, FlowRunId, create_run, deployment_id_of, request_cancel

REQUEST_TAG = "caisson:request="
BRANCH_TAG = "caisson:branch="
KEY_TAG = "caisson:key="
ASKED_LABEL = "caisson.asked"
_ENDED_LATELY = timedelta(hours=2)
_GOES_ON = (WAITS, "PENDING", "RUNNING")
_ENDS = ("CANCELLING", "CANCELLED", "COMPLETED", "FAILED", "CRASHED")


@dataclass(frozen=True)
class Enqueued:
    """The run of a build that was asked for.

    ``created``: it is a new one. ``joined``: it is that of an equal request; neither: the same key asked before.
    ``superseded`` are the older runs that it has made needless. ``asker`` is for who may withdraw.
    """

    flow_run_id: FlowRunId
    created: bool
    joined: bool = False
    superseded: tuple[FlowRunId, ...] = ()
    asker: str = ""
    run: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)
    """What Prefect tells of a run that is new; empty for others."""


def enqueue(
    api: PrefectApi,
    request: dict[str, Any],
    *,
    deployment: str = "",
    deployment_id: str = "",
    idempotency_key: str = "",
    priority: Priority = Priority.NORMAL,
    supersede: bool = False,
    superseding: Supersede = "queued",
    asker: str = "",
    asked: datetime | None = None,
    tags: Sequence[str] = (),
) -> Enqueued:
    """Ask for a build by a deployment (``build-image/<host>``), or by its ID where that is known.

    The same ``idempotency_key`` gives the same run again. ``supersede`` says that the build is of a push, which makes
    older ones of its repository, ref and image needless; ``superseding`` which of them: see ``CAISSON_SUPERSEDE``.
    ``asker`` is who asks, so that one of several can withdraw; ``asked`` is when that was, now where it is None.

    Raises ``ServiceUnreachable`` when the deployment is not there, ``RequestInvalid`` when the request is not one.
    """
    wanted = parse_request(request)
    target = deployment_id or deployment_id_of(api, deployment)
    if idempotency_key and (earlier := _by_key(api, idempotency_key)):
        return Enqueued(FlowRunId(earlier["id"]), created=False)
    parameters = {"request": wanted.model_dump(mode="json")}
    equal = _tag(REQUEST_TAG, target, parameters)
    mark = mark_of(asker) if asker else ""
    marks = [equal, *([ASKER_TAG + mark] if mark else [])]
    branch: list[PushedRun] = []
    found = _find_equal(api, equal, wanted)
    if supersede:
        marks.append(_branch_tag(target, wanted))
        branch = _branch(api, marks[-1], [_pushed(run) for run in found])
        found = [run for run in found if may_join(_pushed(run), branch, mark=mark, superseding=superseding)]
    if found:
        run, created = found[-1], False
        _join(api, run, priority, idempotency_key, marks, mark)
    else:
        key = idempotency_key or _key(api, equal)
        marks += [f"{PRIORITY_TAG}{priority.value}", *tags]
        # A second one that was asked for at the same moment has the same key, and gets the same run.
        run, created = _create(api, target, parameters, key, marks, asked or datetime.now(UTC))
        if not created and not idempotency_key:
            _join(api, run, priority, "", marks, mark)
    needless: list[str] = []
    if supersede:
        needless = superseded(_pushed(run), branch, joined=bool(found), mark=mark, superseding=superseding)
    for other in needless:
        _cancel(api, other, f"A newer push to this branch is built instead, by run {run['id']}.")
    return Enqueued(
        FlowRunId(run["id"]),
        created,
        joined=not created,
        superseded=tuple(FlowRunId(other) for other in needless),
        run=run if created else {},
    )


def withdraw(api: PrefectApi, flow_run_id: FlowRunId, *, asker: str) -> bool:
    """Ask for the end of a build for one of those who asked for it; raises ``ServiceUnreachable``.

    False: others asked for it, too, and it goes on for them.
    """
    tags = api.get(f"/flow_runs/{flow_run_id}")["tags"]
    left = without_asker(tags, mark_of(asker))
    if left is None:
        request_cancel(api, flow_run_id)
        return True
    if left != tags:
        api.patch(f"/flow_runs/{flow_run_id}", {"tags": left})
    return False


def _tag(prefix: str, *parts: object) -> str:
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
    return f"{prefix}{digest[:24]}"


def _branch_tag(target: str, asked: BuildRequest) -> str:
    return _tag(BRANCH_TAG, target, one_spelling(asked.repository_url), asked.ref, asked.image)


def _find(
    api: PrefectApi, *, limit: int = PAGE, states: Iterable[str] = (), tags: Iterable[str] = (), **filters: Any
) -> list[dict[str, Any]]:
    conditions: dict[str, Any] = dict(filters)
    if states:
        conditions["state"] = {"type": {"any_": list(states)}}
    if tags:
        conditions["tags"] = {"all_": list(tags)}
    body = {"flow_runs": conditions, "sort": "EXPECTED_START_TIME_DESC", "limit": limit}
    found: list[dict[str, Any]] = api.post("/flow_runs/filter", body)
    return found


def _by_key(api: PrefectApi, key: str) -> dict[str, Any] | None:
    # The run that it made, or else the one that it joined.
    found = _find(api, limit=1, tags=[_tag(KEY_TAG, key)], idempotency_key={"any_": [key]}, operator="or_")
    return found[0] if found else None


def _find_equal(api: PrefectApi, equal: str, asked: BuildRequest) -> list[dict[str, Any]]:
    """The runs of an equal request that may be joined, the latest first."""
    # What a branch means may have changed since a build of it began.
    fixed = bool(asked.commit) or is_full_sha(asked.ref)
    return _find(api, states=_GOES_ON if fixed else (WAITS,), tags=[equal])


def _branch(api: PrefectApi, tag: str, equal: Sequence[PushedRun]) -> list[PushedRun]:
    """The runs of a branch: those that go on, and those that have ended since ``equal`` ones were asked for."""
    runs = _find(api, states=_GOES_ON, tags=[tag])
    if equal:
        # By Prefect's clock, which may not be the asker's.
        since = min(run.asked for run in equal) - _ENDED_LATELY
        runs += _find(api, states=_ENDS, tags=[tag], expected_start_time={"after_": since.isoformat()})
    return [_pushed(run) for run in runs]


def _pushed(run: Mapping[str, Any]) -> PushedRun:
    created = datetime.fromisoformat(run["created"])
    return PushedRun(
        run["id"],
        asked_at(run.get("labels") or {}, created),
        str(run.get("state_type") or WAITS),
        began=bool(run.get("start_time")),
        askers=askers(run["tags"]),
    )


def _key(api: PrefectApi, equal: str) -> str:
    """A key that all who ask for the same at this moment come to, and none who asks after that build has begun."""
    now = datetime.now(UTC)
    latest = _find(api, limit=1, tags=[equal], expected_start_time={"after_": (now - _ENDED_LATELY).isoformat()})
    return f"{equal}/after/{latest[0]['id'] if latest else now.strftime('%Y-%m-%dT%H')}"


def _create(
    api: PrefectApi, target: str, parameters: dict[str, Any], key: str, tags: Sequence[str], asked: datetime
) -> tuple[dict[str, Any], bool]:
    mine = uuid.uuid4().hex
    run = create_run(
        api,
        target,
        parameters,
        idempotency_key=key,
        tags=list(tags),
        labels={ASKED_LABEL: mine, ASKED_AT_LABEL: asked.isoformat()},
        name=parameters["request"]["image"],
        # By the same model, it was judged already; that check takes as long as all else, and nobody writes meanwhile.
        enforce_parameter_schema=False,
    )
    return run, (run.get("labels") or {}).get(ASKED_LABEL) == mine


def _join(api: PrefectApi, run: dict[str, Any], priority: Priority, key: str, marks: Sequence[str], mark: str) -> None:
    """What the run has to know of who joins it: the higher priority counts, and their key means this run."""
    tags = [tag for tag in run["tags"] if not tag.startswith(PRIORITY_TAG)]
    tags.append(f"{PRIORITY_TAG}{min(priority, priority_of(run['tags']), key=SHIFT.__getitem__).value}")
    tags += [tag for tag in marks if tag not in tags and not tag.startswith(PRIORITY_TAG)]
    if mark:
        tags = with_asker(tags, mark)
    if key:
        tags.append(_tag(KEY_TAG, key))
    if set(tags) != set(run["tags"]):
        api.patch(f"/flow_runs/{run['id']}", {"tags": tags})


def _cancel(api: PrefectApi, run: str, why: str) -> None:
    # Prefect itself tells one that still waits from one that a worker has just taken.
    asked = {"state": {"type": "CANCELLING", "name": "Cancelling", "message": why}}
    state = (api.post(f"/flow_runs/{run}/set_state", asked) or {}).get("state") or {}
    if state.get("type") == "CANCELLED":
        ended = {"type": "CANCELLED", "name": "Cancelled", "message": why}
        api.post(f"/flow_runs/{run}/set_state", {"state": ended, "force": True})
