"""A run that is watched over the API: what is shown of it, in which order, and what its end means."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta

import pytest

from caisson.errors import BuildStepFailed, RequestInvalid
from deployments.cli_remote import _Shown, failure_of_state, is_worth_showing
from deployments.cli_view import PlainView
from deployments.trigger import LogLine, RunChanged, RunEvent, StepChanged

BEGAN = datetime(2026, 5, 1, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return BEGAN + timedelta(seconds=seconds)


def line(seconds: float, message: str, *, by_step: bool = True, level: int = 20) -> LogLine:
    return LogLine(at(seconds), level, message, by_step=by_step)


def step(seconds: float, name: str, state: str, took: float = 0) -> StepChanged:
    return StepChanged(name, state, state.title(), "", at(seconds), took)


def shown(*rounds: list[RunEvent]) -> list[str]:
    """What a person sees at the end of rounds that come every half second."""
    stream = io.StringIO()
    now = 0.0
    events = _Shown(PlainView(stream), place=lambda: "", clock=lambda: now)
    for events_of_round in rounds:
        for event in events_of_round:
            events.add(event)
        events.sleep(0)
        now += 0.5
    events.flush()
    return stream.getvalue().splitlines()


def test_a_step_that_is_first_seen_when_it_has_ended_is_shown_around_its_lines() -> None:
    events: list[RunEvent] = [
        step(2, "clone", "COMPLETED", 1.5),
        step(2.1, "build", "RUNNING"),
        line(1, "cloning"),
        line(2.2, "building"),
    ]
    assert shown(events, [step(9, "build", "FAILED", 6.9)]) == [
        "• clone",
        "  cloning",
        "✓ clone (1.50 s)",
        "• build",
        "  building",
        "✗ build (6.90 s)",
    ]


def test_a_line_that_comes_after_its_steps_end_stands_below_its_step() -> None:
    assert shown(
        [step(1, "clone", "RUNNING")],
        [step(2, "clone", "COMPLETED", 1), step(2.1, "build", "RUNNING")],
        [line(1.5, "cloning")],
        [],
        [line(2.2, "building")],
        [step(3, "build", "COMPLETED", 0.9)],
    ) == ["• clone", "  cloning", "✓ clone (1.00 s)", "• build", "  building", "✓ build (0.90 s)"]


def test_a_step_is_started_once_though_both_its_states_are_seen() -> None:
    assert shown([step(1, "clone", "RUNNING"), step(2, "clone", "COMPLETED", 1)]) == ["• clone", "✓ clone (1.00 s)"]


def test_a_step_that_is_only_pending_is_not_shown() -> None:
    assert shown([step(1, "clone", "PENDING")]) == []


def test_a_line_of_a_step_is_shown_though_the_steps_name_is_not_known_yet() -> None:
    assert is_worth_showing(LogLine(BEGAN, 20, "of a step", step="", by_step=True))


@pytest.mark.parametrize(
    "line_of_prefect",
    [
        line(0, "Beginning flow run 'x' for flow 'build-image'", by_step=False),
        line(0, "Finished in state Completed()"),
        line(0, "Finished in state Failed('Task run encountered an exception BuildStepFailed: …')", level=40),
        line(0, "Task run failed with exception: x\nTraceback (most recent call last):\n  …", level=40),
    ],
)
def test_what_prefect_says_of_itself_is_not_shown(line_of_prefect: LogLine) -> None:
    assert not is_worth_showing(line_of_prefect)


def test_warnings_of_the_run_are_shown() -> None:
    assert is_worth_showing(line(0, "The report could not be written.", by_step=False, level=30))


def test_a_run_that_nobody_takes_is_told_once() -> None:
    now = 0.0
    stream = io.StringIO()
    events = _Shown(PlainView(stream), place=lambda: "", clock=lambda: now)
    events.add(RunChanged("SCHEDULED", "Scheduled", "", BEGAN))
    for seconds in (1, 9, 20):
        now = seconds
        events.sleep(0)
    assert stream.getvalue().count("Nobody has taken the run yet") == 1


def test_a_failure_without_a_report_is_known_by_the_runs_state() -> None:
    message = "Flow run encountered an exception: RequestInvalid: The build request is invalid: image: x: y."
    failure = failure_of_state("r", "FAILED", message)
    assert type(failure) is RequestInvalid
    assert failure.message == "The build request is invalid: image: x: y."
    assert type(failure_of_state("r", "FAILED", "BuildStepFailed: RUN x\nended.")) is BuildStepFailed


@pytest.mark.parametrize(
    ("state_type", "message", "kind", "says"),
    [
        ("CANCELLED", "", "cancelled", "cancelled"),
        ("CRASHED", "Flow run process exited with non-zero status code -9.", "error", "crashed: Flow run process"),
        ("FAILED", "", "error", "failed: it gave no reason."),
        ("FAILED", "Flow run encountered an exception: ValueError: boom", "error", "ValueError: boom"),
    ],
)
def test_any_other_end_is_told_as_prefect_tells_it(state_type: str, message: str, kind: str, says: str) -> None:
    failure = failure_of_state("r", state_type, message)
    assert (failure.kind, says in failure.message) == (kind, True)


def test_why_a_build_waits_is_told_when_it_changes() -> None:
    now = 0.0
    stream = io.StringIO()
    reasons = iter(["waits: 2 builds ahead", "waits: 2 builds ahead", "waits: disk critical on host b2", "", "x"])
    events = _Shown(PlainView(stream), place=lambda: next(reasons), clock=lambda: now)
    events.add(RunChanged("SCHEDULED", "Scheduled", "", BEGAN))
    for seconds in (1, 3, 4, 8, 13, 18):
        now = seconds
        events.sleep(0)
    events.add(RunChanged("RUNNING", "Running", "", BEGAN))
    now = 20
    events.sleep(0)
    events.sleep(0)
    assert [line.strip() for line in stream.getvalue().splitlines()] == [
        "The build waits: 2 builds ahead.",
        "The build waits: disk critical on host b2.",
    ]
