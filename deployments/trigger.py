"""Trigger a build over the API, follow it live, cancel it. For the command line, the demo and benchmarks.

It polls: two or three small queries a round, answered in milliseconds, need no second protocol and lose nothing when
a connection drops.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, NewType
from urllib.parse import quote

from caisson.errors import RequestInvalid, ServiceUnreachable
from deployments.prefect_api import PrefectApi

FlowRunId = NewType("FlowRunId", str)

POLL_SECONDS = 0.1
LOGS_EVERY_SECONDS = 0.25
PAGE = 200
# Two processes log to one run, each in batches of its own: a line may arrive after a later one.
LATE = timedelta(seconds=5)
LAST_LINES_SECONDS = 30.0
QUIET_SECONDS = 1.5
FINAL = frozenset({"COMPLETED", "FAILED", "CANCELLED", "CRASHED"})
KILLED = frozenset({"CANCELLED", "CRASHED"})
FINISHED = "Finished in state"


class DeploymentUnknown(ServiceUnreachable):
    """The API answers, and has no such deployment."""


@dataclass(frozen=True)
class LogLine:
    """One message of the run's log; it may hold newlines.

    ``step`` is the name of the step that wrote it; empty for the run's own words, and where ``by_step`` says that one
    wrote it whose name is not known yet.
    """

    at: datetime
    level: int
    message: str
    step: str = ""
    by_step: bool = False


@dataclass(frozen=True)
class StepChanged:
    """A step (a task run) is in a new state, by Prefect's type (``RUNNING``, ``FAILED``) and name."""

    step: str
    state_type: str
    state_name: str
    message: str
    at: datetime
    seconds: float


@dataclass(frozen=True)
class RunChanged:
    """The run is in a new state."""

    state_type: str
    state_name: str
    message: str
    at: datetime

    @property
    def final(self) -> bool:
        return self.state_type in FINAL


RunEvent = LogLine | StepChanged | RunChanged


def trigger_build(
    api: PrefectApi, parameters: dict[str, Any], *, deployment: str, idempotency_key: str = ""
) -> FlowRunId:
    """Create a run of a deployment (``build-image/<host>``); the same key gives the same run again, no key a new one.

    Raises ``ServiceUnreachable`` when the deployment is not there, ``RequestInvalid`` when its schema refuses the
    parameters.
    """
    key = idempotency_key or uuid.uuid4().hex
    return FlowRunId(create_run(api, deployment_id_of(api, deployment), parameters, idempotency_key=key)["id"])


def create_run(
    api: PrefectApi, deployment_id: str, parameters: dict[str, Any], *, idempotency_key: str, **details: Any
) -> dict[str, Any]:
    """Create a run as ``trigger_build`` does and return it; ``details`` are further fields, such as ``tags``.

    Always with a key: the request may be sent again, after an answer that was lost.
    """
    body = {"parameters": parameters, "state": {"type": "SCHEDULED"}, "idempotency_key": idempotency_key, **details}
    try:
        run: dict[str, Any] = api.post(f"/deployments/{deployment_id}/create_flow_run", body)
    except ServiceUnreachable as error:
        if error.details.get("status") in (409, 422):
            raise RequestInvalid(
                f"The build request is invalid: {error.details['answer']}", details=error.details
            ) from None
        raise
    return run


def run_state(api: PrefectApi, flow_run_id: FlowRunId) -> RunChanged:
    """The state of a run now."""
    return _run_state(api.get(f"/flow_runs/{flow_run_id}"))


def follow(
    api: PrefectApi, flow_run_id: FlowRunId, *, sleep: Callable[[float], None] = time.sleep
) -> Iterator[RunEvent]:
    """The run's events as they come: its states, the states of its steps, its log lines in order.

    It ends when the run is in a final state and its last lines have arrived: the final ``RunChanged`` is followed
    by the lines that Prefect was still holding.
    """
    follower = _Follower(api, flow_run_id)
    next_logs = 0.0
    while True:
        yield from follower.run_changes()
        now = time.monotonic()
        if now >= next_logs or follower.final:
            next_logs = now + LOGS_EVERY_SECONDS
            yield from follower.step_changes()
            yield from follower.log_lines()
        if follower.final:
            break
        sleep(POLL_SECONDS)
    yield from follower.last_lines(sleep)


def cancel(
    api: PrefectApi, flow_run_id: FlowRunId, *, timeout_seconds: float = 60, sleep: Callable[[float], None] = time.sleep
) -> RunChanged:
    """Cancel a run and wait until it has ended; returns its final state.

    That comes after the run's own clean-up, so its builder is gone by then. Raises ``ServiceUnreachable`` when the
    run has not ended after the timeout (seconds): then no worker serves it.
    """
    request_cancel(api, flow_run_id)
    deadline = time.monotonic() + timeout_seconds
    while not (state := run_state(api, flow_run_id)).final:
        if time.monotonic() > deadline:
            raise ServiceUnreachable(
                f"Run {flow_run_id} is still {state.state_name} after {timeout_seconds:.0f} s.",
                hint="Is a Caisson running on its host?",
            )
        sleep(POLL_SECONDS)
    return state


def request_cancel(api: PrefectApi, flow_run_id: FlowRunId) -> None:
    """Ask for the end of a run, and don't wait for it; one that has ended stays as it is."""
    state = run_state(api, flow_run_id)
    if not state.final and state.state_type != "CANCELLING":
        api.post(f"/flow_runs/{flow_run_id}/set_state", {"state": {"type": "CANCELLING", "name": "Cancelling"}})


@dataclass
class _Follower:
    api: PrefectApi
    flow_run_id: FlowRunId
    final: bool = False
    _state_id: str = ""
    _steps: dict[str, str] = field(default_factory=dict)
    _step_states: dict[str, str] = field(default_factory=dict)
    _seen: dict[str, datetime] = field(default_factory=dict)
    _newest: datetime | None = None
    _finished_line: bool = False
    _killed: bool = False

    def run_changes(self) -> Iterator[RunChanged]:
        run = self.api.get(f"/flow_runs/{self.flow_run_id}")
        if run.get("state_id") == self._state_id:
            return
        self._state_id = run.get("state_id") or ""
        change = _run_state(run)
        self.final = change.final
        self._killed = change.state_type in KILLED
        yield change

    def step_changes(self) -> Iterator[StepChanged]:
        runs = self.api.post(
            "/task_runs/filter",
            {"flow_runs": {"id": {"any_": [self.flow_run_id]}}, "sort": "EXPECTED_START_TIME_ASC", "limit": PAGE},
        )
        for run in runs:
            self._steps[run["id"]] = run["name"]
            state = run.get("state") or {}
            if state.get("id") and self._step_states.get(run["id"]) != state["id"]:
                self._step_states[run["id"]] = state["id"]
                yield StepChanged(
                    step=run["name"],
                    state_type=state["type"],
                    state_name=state["name"],
                    message=state.get("message") or "",
                    at=_time(state["timestamp"]),
                    seconds=float(run.get("total_run_time") or run.get("estimated_run_time") or 0),
                )

    def log_lines(self) -> Iterator[LogLine]:
        conditions: dict[str, Any] = {"flow_run_id": {"any_": [self.flow_run_id]}}
        if self._newest is not None:
            conditions["timestamp"] = {"after_": (self._newest - LATE).isoformat()}
        offset = 0
        while True:
            page = self.api.post(
                "/logs/filter", {"logs": conditions, "sort": "TIMESTAMP_ASC", "limit": PAGE, "offset": offset}
            )
            for log in page:
                if log["id"] not in self._seen:
                    yield self._line(log)
            if len(page) < PAGE:
                break
            offset += PAGE
        if self._newest is not None:
            self._seen = {key: at for key, at in self._seen.items() if at >= self._newest - 2 * LATE}

    def last_lines(self, sleep: Callable[[float], None]) -> Iterator[LogLine]:
        """What the run's process still held when it reported its end, up to the engine's own last word.

        A run that was killed has no last word: it is waited for until nothing has come for a moment.
        """
        begun = quiet_since = time.monotonic()
        while time.monotonic() - begun < LAST_LINES_SECONDS:
            complete = self._finished_line
            for line in self.log_lines():
                quiet_since = time.monotonic()
                yield line
            if complete or (self._killed and time.monotonic() - quiet_since > QUIET_SECONDS):
                break
            if not self._finished_line:
                sleep(POLL_SECONDS)

    def _line(self, log: dict[str, Any]) -> LogLine:
        at = _time(log["timestamp"])
        self._seen[log["id"]] = at
        self._newest = max(at, self._newest or at)
        if log["name"] == "prefect.flow_runs" and log["message"].startswith(FINISHED):
            self._finished_line = True
        task_run_id = log.get("task_run_id") or ""
        return LogLine(
            at=at,
            level=log["level"],
            message=log["message"],
            step=self._steps.get(task_run_id, ""),
            by_step=bool(task_run_id),
        )


def deployment_id_of(api: PrefectApi, deployment: str) -> str:
    """The ID of a deployment (``build-image/<host>``); raises ``DeploymentUnknown``, ``ServiceUnreachable``."""
    flow, _, host = deployment.partition("/")
    try:
        return str(api.get(f"/deployments/name/{quote(flow, safe='')}/{quote(host, safe='')}")["id"])
    except ServiceUnreachable as error:
        if error.details.get("status") == 404:
            raise DeploymentUnknown(
                f"{api.api_url} has no deployment {deployment}.", hint="Start `caisson up` on that host."
            ) from None
        raise


def _run_state(run: dict[str, Any]) -> RunChanged:
    state = run.get("state") or {"type": "PENDING", "name": "Pending", "timestamp": None}
    return RunChanged(
        state_type=state["type"],
        state_name=state["name"],
        message=state.get("message") or "",
        at=_time(state["timestamp"]),
    )


def _time(text: str | None) -> datetime:
    return datetime.fromisoformat(text) if text else datetime.now(UTC)
