"""Reports as values: what a build did, for people and machines. Rendered in ``caisson.report_markdown``."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from caisson.errors import BuildCancelled, CaissonError

REPORT_KEY = "build-report"
"""Key of the Prefect artifact for people: markdown."""
REPORT_DATA_KEY = "build-report-data"
"""Key of the Prefect artifact for machines: the report as JSON."""

_FROZEN = ConfigDict(frozen=True, extra="forbid")

Outcome = Literal["built", "reused", "failed", "cancelled"]


class StepReport(BaseModel):
    """One step of the chain (``clone``, ``build``, …): how many seconds after the build's beginning, and how long.

    ``start`` is None in reports of before it was recorded.
    """

    model_config = _FROZEN

    name: str
    state: Literal["completed", "failed", "skipped"]
    start: float | None = None
    seconds: float
    reason: str = ""


class DockerfileStepReport(BaseModel):
    """One step of the Dockerfile; ``start`` in seconds after the build's beginning, None where it is not known."""

    model_config = _FROZEN

    name: str
    start: float | None = None
    seconds: float
    cached: bool
    error: str = ""


class TagReport(BaseModel):
    """One tag: why it was set, what it pointed to before, the digest that the registry recorded."""

    model_config = _FROZEN

    reference: str
    rule: str
    reason: str
    previous: str = ""
    digest: str = ""


class LimitsReport(BaseModel):
    """The limits as the kernel told them; ``status`` says how far they hold.

    verified: read back, and the RUN steps' groups were seen below the one that is limited. builder only: the builder is
    held, its RUN steps are not. no steps: nothing ran that could have been held. unverified: the kernel's files could
    not be read, or tell of other limits.
    """

    model_config = _FROZEN

    status: Literal["verified", "builder only", "no steps", "unverified"]
    reason: str
    asked_memory: int | None = None
    asked_pids: int | None = None
    asked_cpus: float | None = None
    memory: int | None = None
    memory_and_swap: int | None = None
    pids: int | None = None
    cpus: float | None = None
    step_groups: int = 0
    workspace: int = 0
    timeout_seconds: float = 0


class PostureReport(BaseModel):
    """One item of the builder's security posture."""

    model_config = _FROZEN

    title: str
    status: Literal["pass", "fail", "not applicable"]
    reason: str
    source: str = ""


class GuardCount(BaseModel):
    """How often the guard decided so by that rule."""

    model_config = _FROZEN

    verdict: str
    rule: str
    count: int


class GuardDenial(BaseModel):
    """One thing that the guard denied."""

    model_config = _FROZEN

    time: str
    method: str
    path: str
    rule: str
    reason: str


class GuardReport(BaseModel):
    """What the guard of the build's socket decided; ``denied`` counts also those that are not in ``denials``."""

    model_config = _FROZEN

    counts: list[GuardCount] = []
    denied: int = 0
    denials: list[GuardDenial] = []
    audit_file: str = ""


class BuildReport(BaseModel):
    """All that a build did, successful or not. Never holds a secret.

    ``size`` and ``new_bytes`` are bytes of the image: all of them, and those that the build brought to this host. Where
    ``new_bytes_exact`` is False, base images that it pulled are not among the latter.
    """

    model_config = _FROZEN

    outcome: Outcome
    build_id: str
    flow_run_id: str = ""
    host: str
    engine: str = ""
    repository_url: str
    ref: str = ""
    sha: str = ""
    spec_hash: str = ""
    builder: str = ""
    builder_reason: str = ""
    image_id: str = ""
    image: str
    tags: list[TagReport] = []
    size: int = 0
    new_bytes: int = 0
    new_bytes_exact: bool = True
    started: datetime
    seconds: float = 0
    steps: list[StepReport] = []
    dockerfile_steps: list[DockerfileStepReport] = []
    limits: LimitsReport | None = None
    posture: list[PostureReport] = []
    guard: GuardReport | None = None
    builder_removed: bool | None = None
    notes: list[str] = []
    log_tail: list[str] = []
    log_file: str = ""
    failure: dict[str, Any] | None = None

    @property
    def cache_hits(self) -> int:
        return sum(step.cached for step in self.dockerfile_steps)

    @property
    def cache_misses(self) -> int:
        return len(self.dockerfile_steps) - self.cache_hits


def outcome_of_failure(failure: BaseException) -> Outcome:
    """Whether what ended a build was a failure or a cancel, which reaches Python as no ``Exception``."""
    return "cancelled" if isinstance(failure, BuildCancelled) or not isinstance(failure, Exception) else "failed"


def describe_failure(failure: BaseException) -> dict[str, Any]:
    """The failure as a report has it; of what is no ``CaissonError`` only its type, for its text may be anything."""
    if isinstance(failure, CaissonError):
        return failure.to_dict()
    if isinstance(failure, Exception):
        return CaissonError(f"Caisson failed: {type(failure).__name__}.").to_dict()
    return BuildCancelled("The build was cancelled.").to_dict()
