"""A build as the API tells of it, made from what Prefect tells of its run. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from caisson.report import BuildReport
from deployments.cli_remote import failure_of_state


class BuildState(StrEnum):
    """Where a build is; those from ``succeeded`` on are its end."""

    QUEUED = "queued"
    STARTING = "starting"
    RUNNING = "running"
    PAUSED = "paused"
    CANCELLING = "cancelling"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    CRASHED = "crashed"


STATES: Mapping[str, BuildState] = {
    "SCHEDULED": BuildState.QUEUED,
    "PENDING": BuildState.STARTING,
    "RUNNING": BuildState.RUNNING,
    "PAUSED": BuildState.PAUSED,
    "CANCELLING": BuildState.CANCELLING,
    "COMPLETED": BuildState.SUCCEEDED,
    "FAILED": BuildState.FAILED,
    "CANCELLED": BuildState.CANCELLED,
    "CRASHED": BuildState.CRASHED,
}
FINAL = frozenset({BuildState.SUCCEEDED, BuildState.FAILED, BuildState.CANCELLED, BuildState.CRASHED})


class Failure(BaseModel):
    """Why a build did not succeed; ``kind`` is one of a fixed set of words."""

    kind: str
    message: str
    hint: str = ""


class QueuePlace(BaseModel):
    """Where a queued build stands."""

    ahead: int = Field(description="Builds that come before it", ge=0)
    reason: str = Field(description="What it waits for")


class BuildSummary(BaseModel):
    """One build in the list."""

    model_config = ConfigDict(title="BuildSummary")

    id: UUID
    state: BuildState
    repository_url: str
    ref: str = Field(description="Empty: the default branch")
    image: str
    created: datetime
    started: datetime | None
    ended: datetime | None
    seconds: float = Field(description="How long it has run, or ran")
    queue: QueuePlace | None = Field(description="While it is queued")
    failure: Failure | None = Field(description="Once it has ended without success")

    @property
    def final(self) -> bool:
        return self.state in FINAL


class BuildDetail(BuildSummary):
    """One build, with its step or its report."""

    model_config = ConfigDict(title="Build")

    step: str = Field("", description="The step that runs now, such as `clone` or `build image`")
    report: BuildReport | None = Field(None, description="Once it has ended, where one was made")


class BuildPage(BaseModel):
    """A page of the list, the newest first."""

    builds: list[BuildSummary]
    next: str = Field(description="The `cursor` of the next page; empty after the last one")


class BuildAccepted(BuildDetail):
    """A build that was asked for."""

    model_config = ConfigDict(title="BuildAccepted")

    joined: bool = Field(False, description="It was asked for before: this is that build, and no other was started")


def summary_of(run: Mapping[str, Any], place: QueuePlace | None = None) -> BuildSummary:
    """A build from its flow run, as Prefect's API has it."""
    return BuildSummary.model_validate(_values(run, place))


def detail_of(
    run: Mapping[str, Any], *, step: str = "", report: BuildReport | None = None, place: QueuePlace | None = None
) -> BuildDetail:
    """The same with what its steps and its report say."""
    values = _values(run, place)
    if report is not None and values["state"] in FINAL and report.failure:
        values["failure"] = _failure(report.failure)
    return BuildDetail.model_validate({**values, "step": step, "report": report})


def _values(run: Mapping[str, Any], place: QueuePlace | None) -> dict[str, Any]:
    state = state_of(run)
    image, repository_url, ref = asked_for(run)
    return {
        "id": run["id"],
        "state": state,
        "repository_url": repository_url,
        "ref": ref,
        "image": image,
        "created": run["created"],
        "started": run.get("start_time"),
        "ended": run.get("end_time"),
        "seconds": round(float(run.get("total_run_time") or run.get("estimated_run_time") or 0), 3),
        "queue": place if state is BuildState.QUEUED else None,
        "failure": _failure_of(run, state),
    }


def state_of(run: Mapping[str, Any]) -> BuildState:
    return STATES[str(run.get("state_type") or "PENDING")]


def asked_for(run: Mapping[str, Any]) -> tuple[str, str, str]:
    """Image, repository URL and ref of a run's request; empty where it has none that could be read."""
    request = (run.get("parameters") or {}).get("request")
    request = request if isinstance(request, dict) else {}
    image, url, ref = (str(request.get(name) or "") for name in ("image", "repository_url", "ref"))
    return image, url, ref


def _failure_of(run: Mapping[str, Any], state: BuildState) -> Failure | None:
    if state not in FINAL or state is BuildState.SUCCEEDED:
        return None
    message = str((run.get("state") or {}).get("message") or "")
    return _failure(failure_of_state(str(run["id"]), str(run["state_type"]), message).to_dict())


def _failure(failure: Mapping[str, Any]) -> Failure:
    return Failure.model_validate({name: str(failure.get(name) or "") for name in Failure.model_fields})


def running_step(task_runs: Iterable[Mapping[str, Any]]) -> str:
    """The name of the step that began last of those that run; empty where none does."""
    running = [run for run in task_runs if run.get("state_type") == "RUNNING"]
    return str(max(running, key=lambda run: str(run.get("start_time") or ""))["name"]) if running else ""


def parse_report(document: Any) -> BuildReport | None:
    """A report as an artifact or a file has it; None for what this version can't read."""
    try:
        if isinstance(document, str | bytes):
            return BuildReport.model_validate_json(document)
        return BuildReport.model_validate(document)
    except ValidationError:
        return None
