"""A build as a trace: one span for the build, one for each of its steps, one for each step of its Dockerfile. Pure.

Attribute names are OpenTelemetry's where it has one (semantic conventions: vcs, container, error), else ``caisson.…``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from caisson.report import BuildReport

Value = str | int | bool


@dataclass(frozen=True)
class Span:
    """One span; ``error`` is why it failed, empty where it did not."""

    name: str
    start: datetime
    end: datetime
    attributes: dict[str, Value] = field(default_factory=dict)
    error: str = ""
    children: tuple[Span, ...] = ()


def build_span(report: BuildReport) -> Span:
    """The build's span with all below it; steps of reports that don't tell when they began are left out."""
    steps = []
    for step in report.steps:
        if step.start is None or step.state == "skipped":
            continue
        start, end = _times(report, step.start, step.seconds)
        children = _dockerfile_spans(report) if step.name == "build" else ()
        steps.append(Span(step.name, start, end, {}, step.reason if step.state == "failed" else "", children))
    start, end = _times(report, 0, report.seconds)
    failure = report.failure or {}
    attributes: dict[str, Value] = {
        "caisson.build.id": report.build_id,
        "caisson.build.outcome": report.outcome,
        "caisson.host": report.host,
        "container.image.name": report.image,
        "vcs.repository.url.full": report.repository_url,
        "prefect.flow_run.id": report.flow_run_id,
        "caisson.builder": report.builder,
        "container.image.id": report.image_id,
        "vcs.ref.head.name": report.ref,
        "vcs.ref.head.revision": report.sha,
        "error.type": str(failure.get("kind", "")),
    }
    told = {name: value for name, value in attributes.items() if value != ""}
    return Span("build-image", start, end, told, str(failure.get("message", "")), tuple(steps))


def _dockerfile_spans(report: BuildReport) -> tuple[Span, ...]:
    return tuple(
        Span(step.name, *_times(report, step.start, step.seconds), {"caisson.step.cached": step.cached}, step.error)
        for step in report.dockerfile_steps
        if step.start is not None
    )


def _times(report: BuildReport, start: float, seconds: float) -> tuple[datetime, datetime]:
    begun = report.started + timedelta(seconds=start)
    return begun, begun + timedelta(seconds=seconds)
