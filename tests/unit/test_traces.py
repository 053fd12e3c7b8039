"""A build's trace: what its spans are, and that a collector gets them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from caisson.report import BuildReport, DockerfileStepReport, StepReport
from caisson.settings import Settings
from caisson.traces import build_span
from tasks.export_trace import export_trace
from tests.otlp_collector import Collector

STARTED = datetime(2030, 1, 1, 12, tzinfo=UTC)


def _report(**changes: object) -> BuildReport:
    values: dict[str, object] = {
        "outcome": "failed",
        "build_id": "0123456789ab",
        "flow_run_id": "9f",
        "host": "b1",
        "repository_url": "https://example.com/a.git",
        "sha": "a" * 40,
        "image": "team/app",
        "started": STARTED,
        "seconds": 12.5,
        "steps": [
            StepReport(name="clone", state="completed", start=1.25, seconds=2),
            StepReport(name="build", state="failed", start=4, seconds=8, reason="It ended with 1."),
            StepReport(name="tag_image", state="skipped", start=12, seconds=0),
            StepReport(name="of-old", state="completed", seconds=1),
        ],
        "dockerfile_steps": [
            DockerfileStepReport(name="RUN a", start=5, seconds=1, cached=True),
            DockerfileStepReport(name="RUN b", start=6, seconds=6, cached=False, error="exit code 1"),
            DockerfileStepReport(name="RUN c", seconds=6, cached=False),
        ],
        "failure": {"kind": "build-step-failed", "message": "RUN b ended with exit code 1."},
    }
    return BuildReport.model_validate(values | changes)


def _settings(collector: Collector) -> Settings:
    return Settings(_env_file=None, otlp_endpoint=collector.url)  # type: ignore[call-arg]


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    yield made
    made.close()


def test_a_collector_gets_a_span_for_each_step_where_it_was(collector: Collector) -> None:
    export_trace(_report(), _settings(collector))
    spans = collector.spans
    assert set(spans) == {"build-image", "clone", "build", "RUN a", "RUN b"}
    root = spans["build-image"]
    assert root.start_time_unix_nano == int(STARTED.timestamp()) * 10**9
    assert root.end_time_unix_nano - root.start_time_unix_nano == 12_500_000_000
    assert spans["clone"].start_time_unix_nano - root.start_time_unix_nano == 1_250_000_000
    assert {spans[name].parent_span_id for name in ("clone", "build")} == {root.span_id}
    assert {spans[name].parent_span_id for name in ("RUN a", "RUN b")} == {spans["build"].span_id}
    assert {span.trace_id for span in spans.values()} == {root.trace_id}
    assert root.status.message == "RUN b ended with exit code 1."
    assert [name for name, span in spans.items() if span.status.code == 2] == ["RUN b", "build", "build-image"]


def test_attributes_say_what_was_built_and_leave_out_what_is_not_known() -> None:
    span = build_span(_report(outcome="built", failure=None))
    assert span.error == ""
    assert span.attributes["vcs.ref.head.revision"] == "a" * 40
    assert span.attributes["caisson.build.outcome"] == "built"
    assert not {"error.type", "container.image.id", "vcs.ref.head.name"} & span.attributes.keys()


def test_without_a_setting_nothing_is_sent(collector: Collector) -> None:
    export_trace(_report(), Settings(_env_file=None))  # type: ignore[call-arg]
    assert collector.requests == []


@pytest.mark.parametrize(("status", "seconds"), [(400, 0.0), (503, 0.0), (200, 3.0)])
def test_a_collector_that_does_not_take_it_costs_a_warning_and_a_moment(
    status: int, seconds: float, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.export_trace.SECONDS", 1.0)
    refusing = Collector(status, seconds)
    began = time.monotonic()
    export_trace(_report(), _settings(refusing))
    assert time.monotonic() - began < 2.5
    assert "The trace was not sent" in caplog.text
    refusing.close()


def test_a_collector_that_is_not_there_costs_a_warning(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.export_trace.SECONDS", 1.0)
    began = time.monotonic()
    export_trace(_report(), Settings(_env_file=None, otlp_endpoint="http://127.0.0.1:1"))  # type: ignore[call-arg]
    assert time.monotonic() - began < 2.5
    assert "The trace was not sent" in caplog.text
