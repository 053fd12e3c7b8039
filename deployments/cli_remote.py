"""A build over Prefect's API: started, watched, cancelled, and what its run left behind."""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from caisson.build import report_file
from caisson.errors import BuildCancelled, CaissonError, ServiceUnreachable, all_failures
from caisson.queueing import NEXT, Priority
from caisson.report import REPORT_DATA_KEY, BuildReport
from caisson.request import BuildRequest
from caisson.settings import Settings
from deployments.cli_report import Ended
from deployments.cli_signals import signals_cancel
from deployments.cli_view import BuildView, StepState
from deployments.host_states import waiting_reason
from deployments.names import BUILD_FLOW
from deployments.prefect_api import PrefectApi
from deployments.queue import Enqueued, enqueue, withdraw
from deployments.queue_places import places
from deployments.trigger import (
    FlowRunId,
    LogLine,
    RunChanged,
    RunEvent,
    StepChanged,
    cancel,
    follow,
    run_state,
)

_WARNING = 30
_WAITING_SECONDS = 8.0
_PLACE_SECONDS, _PLACE_AGAIN_SECONDS = 2.0, 5.0
# Lines are sent every 0.3 s (deployments.server) and asked for every 0.25 s (deployments.trigger).
_HELD_SECONDS = 0.7

# Prefect's own last word on a task, in the task's log.
_PREFECT_SAYS = re.compile(r"Finished in state \w+\(.*\)", re.DOTALL)
_STATES: Mapping[str, StepState] = {"COMPLETED": "completed", "FAILED": "failed", "CRASHED": "failed"}
_KINDS = {kind.__name__: kind for kind in all_failures()}


def start(api: PrefectApi, request: BuildRequest, host: str, *, priority: Priority = Priority.NORMAL) -> Enqueued:
    """Ask for the build; an equal one that waits is joined. Raises ``ServiceUnreachable``, ``RequestInvalid``."""
    asker = f"cli/{uuid.uuid4().hex}"
    asked = enqueue(
        api, request.model_dump(mode="json"), deployment=f"{BUILD_FLOW}/{host}", priority=priority, asker=asker
    )
    return replace(asked, asker=asker)


def run_url(api: PrefectApi, run: str) -> str:
    """The run's page in Prefect's UI."""
    return f"{api.api_url.removesuffix('/api')}/runs/flow-run/{run}"


def watch(api: PrefectApi, asked: Enqueued, settings: Settings, view: BuildView) -> Ended:
    """Show the run until it has ended. A signal cancels it and waits for its end; a second one waits no more.

    A run that others have asked for as well goes on for them: a signal ends the showing alone.
    """
    run = asked.flow_run_id
    view.say(f"Run {run}: {run_url(api, run)}")
    if asked.joined:
        view.say("The same build had been asked for already: this is its run.")
    with signals_cancel(times=2):
        try:
            try:
                state = _show(api, run, settings, view)
            except KeyboardInterrupt:
                if not withdraw(api, run, asker=asked.asker):
                    return _left_alone(api, run)
                view.say("Cancelling: waiting until the builder is gone (Ctrl-C again: not waiting).")
                state = cancel(api, run)
        except KeyboardInterrupt:
            failure = BuildCancelled(
                f"Run {run} is being cancelled, and this command did not wait for it.",
                hint=f"See `caisson logs {run}`.",
            )
            return Ended(failure=failure.to_dict(), run=run, url=run_url(api, run))
        except ServiceUnreachable as error:
            raise ServiceUnreachable(
                error.message, hint=f"The build may go on; see `caisson logs {run} --follow` when it answers again."
            ) from None
        return ended(api, run, state, settings)


def _left_alone(api: PrefectApi, run: FlowRunId) -> Ended:
    failure = BuildCancelled(
        f"Run {run} goes on: others have asked for it, too.",
        hint=f"It can be cancelled in Prefect's UI; see `caisson logs {run} --follow`.",
    )
    return Ended(failure=failure.to_dict(), run=run, url=run_url(api, run))


def _show(api: PrefectApi, run: FlowRunId, settings: Settings, view: BuildView) -> RunChanged:
    shown = _Shown(view, place=lambda: _place(api, run, settings), why=lambda: waiting_reason(api, run))
    for event in follow(api, run, sleep=shown.sleep):
        shown.add(event)
    shown.flush()
    return shown.state or run_state(api, run)


def _place(api: PrefectApi, run: FlowRunId, settings: Settings) -> str:
    return next((place.reason for place in places(api, settings) if place.flow_run_id == run), "")


class _Shown:
    """Events as they come in, brought into their order of time before they are shown.

    A step's state comes at once and its lines later: what is new is held for ``_HELD_SECONDS``, so that lines stand
    below the step that wrote them.
    """

    def __init__(
        self,
        view: BuildView,
        *,
        place: Callable[[], str] = str,
        why: Callable[[], str] = str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._view = view
        self._place = place
        self._why = why
        self._clock = clock
        self._events: list[tuple[float, RunEvent]] = []
        self._running: set[str] = set()
        self._began = clock()
        self._said = False
        self._told = ""
        self._tell_at = self._began + _PLACE_SECONDS
        self.state: RunChanged | None = None

    def add(self, event: RunEvent) -> None:
        self._events.append((self._clock(), event))

    def sleep(self, seconds: float) -> None:
        self._show_until(self._clock() - _HELD_SECONDS)
        if not self._said and self._is_waiting() and self._clock() - self._began > _WAITING_SECONDS:
            self._said = True
            why = self._why() or "is its host's Caisson running, or busy with other builds?"
            self._view.say(f"Nobody has taken the run yet: {why}")
        self._tell_place()
        time.sleep(seconds)

    def _tell_place(self) -> None:
        """Why the build waits, when it has waited for a moment, and each time when that has changed."""
        now = self._clock()
        if now < self._tell_at or self.state is None or self.state.state_type != "SCHEDULED":
            return
        self._tell_at = now + _PLACE_AGAIN_SECONDS
        reason = self._place()
        if reason and reason != self._told:
            self._told, self._said = reason, NEXT not in reason
            self._view.say(f"The build {reason}.")

    def flush(self) -> None:
        """Show all that has come in, in the order in which it happened."""
        self._show_until(self._clock())

    def _show_until(self, horizon: float) -> None:
        """Show what came in until then, and what happened before any of that."""
        due = [event for came, event in self._events if came <= horizon]
        if not due:
            return
        last = max(event.at for event in due)
        due = [event for _, event in self._events if event.at <= last]
        self._events = [(came, event) for came, event in self._events if event.at > last]
        for event in sorted(self._with_starts(due), key=lambda event: event.at):
            self._one(event)

    def _with_starts(self, events: list[RunEvent]) -> Iterator[RunEvent]:
        """A short step is first seen when it has ended already: then its start is told from how long it took."""
        started = {event.step for event in events if isinstance(event, StepChanged) and event.state_type == "RUNNING"}
        for event in events:
            ended = isinstance(event, StepChanged) and event.state_type in _STATES
            if isinstance(event, StepChanged) and ended and event.step not in self._running | started:
                yield replace(event, state_type="RUNNING", at=event.at - timedelta(seconds=event.seconds))
            yield event

    def _is_waiting(self) -> bool:
        return self.state is not None and self.state.state_type in ("SCHEDULED", "PENDING")

    def _one(self, event: RunEvent) -> None:
        if isinstance(event, RunChanged):
            self.state = event
        elif isinstance(event, StepChanged):
            self._step(event)
        elif is_worth_showing(event):
            self._view.log(event.message)

    def _step(self, event: StepChanged) -> None:
        state = _STATES.get(event.state_type)
        if event.state_type == "RUNNING":
            self._running.add(event.step)
            self._view.step_started(event.step)
        if state:
            self._running.discard(event.step)
            self._view.step_ended(event.step, state, event.seconds)


def is_worth_showing(line: LogLine) -> bool:
    """Whether a line of the run's log is the build's: steps speak for it, Prefect's own remarks do not."""
    if _PREFECT_SAYS.fullmatch(line.message) or "Traceback (most recent call last)" in line.message:
        return False
    return line.by_step or line.level >= _WARNING


def ended(api: PrefectApi, run: FlowRunId, state: RunChanged, settings: Settings) -> Ended:
    """How the run ended, from the report that it published, else from its state."""
    report = read_report(api, run) or _read_file(report_file(settings, run))
    url = run_url(api, run)
    if state.state_type == "COMPLETED":
        return Ended(report=report, run=run, url=url)
    if report is not None and report.failure:
        return Ended(report=report, failure=report.failure, run=run, url=url)
    return Ended(failure=failure_of_state(run, state.state_type, state.message).to_dict(), run=run, url=url)


def read_report(api: PrefectApi, run: str) -> BuildReport | None:
    """The report that the run published, None where there is none that this version can read."""
    wanted = {"artifacts": {"key": {"any_": [REPORT_DATA_KEY]}, "flow_run_id": {"any_": [run]}}, "limit": 1}
    return next(_parsed(artifact.get("data") for artifact in api.post("/artifacts/filter", wanted)), None)


def _parsed(documents: Iterator[Any]) -> Iterator[BuildReport]:
    for document in documents:
        try:
            yield (
                BuildReport.model_validate_json(document)
                if isinstance(document, str | bytes)
                else BuildReport.model_validate(document)
            )
        except ValidationError:
            continue


def _read_file(path: Path) -> BuildReport | None:
    try:
        return next(_parsed(iter([path.read_bytes()])), None)
    except OSError:
        return None


def failure_of_state(run: str, state_type: str, message: str) -> CaissonError:
    """The failure that a final state tells of, for a run that published no report.

    Prefect writes ``Flow run encountered an exception: RequestInvalid: The build request …``.
    """
    if state_type == "CANCELLED":
        return BuildCancelled("The build was cancelled.", details={"state": message})
    match = re.search(rf"\b({'|'.join(_KINDS)}): (.*)", message, re.DOTALL)
    if match:
        return _KINDS[match[1]](match[2].strip())
    ended = "crashed" if state_type == "CRASHED" else "failed"
    return CaissonError(
        f"The run {ended}: {message.strip() or 'it gave no reason.'}", hint=f"See `caisson logs {run}`."
    )
