"""Which state is true of a flow run whose process is gone. Pure: the worker asks, then writes the answer.

A run must never stay in a state that says it is going on when nothing executes it.
"""

from __future__ import annotations

import signal
from enum import Enum, auto

from prefect.client.schemas.objects import State, StateType
from prefect.states import AwaitingRetry, Cancelled, Crashed

CANCELLED = "The run was cancelled."


class Why(Enum):
    """Why a process is gone, as far as this worker knows."""

    ENDED = auto()
    """It ended under this worker's eyes."""
    LOST = auto()
    """Its worker died before it."""
    HOST_GONE = auto()
    """Its host is gone, and its worker with it; another host says so."""


def true_state(
    state: State | None, *, why: Why, exit_code: int | None = None, cancelled: str | None = None
) -> State | None:
    """The state to set, or ``None`` when the run's own state is true.

    ``cancelled`` is the reason of a cancellation that this worker carried out. Such a run is Cancelled even where
    the flow's engine took the SIGTERM for a crash (it does while it starts), but one that finished first stays so.
    """
    kind = state.type if state is not None else StateType.PENDING
    if kind == StateType.CRASHED and cancelled is not None:
        return Cancelled(message=cancelled)
    if state is not None and state.is_final():
        return None
    if cancelled is not None or kind == StateType.CANCELLING:
        return Cancelled(message=cancelled or CANCELLED)
    if kind in (StateType.SCHEDULED, StateType.PAUSED):
        return None
    if why is not Why.ENDED and kind == StateType.PENDING:
        return AwaitingRetry(message="The worker ended before this run had begun; it is scheduled again.")
    return Crashed(message=_how_it_ended(why, exit_code))


def needs_reaping(state: State | None) -> bool:
    """Whether the run may have left something behind: every end but the flow's own, orderly one."""
    return state is None or not (state.is_completed() or state.is_failed())


def _how_it_ended(why: Why, exit_code: int | None) -> str:
    if why is Why.HOST_GONE:
        return "The host of this run is gone: its worker has not been heard of for too long."
    if why is Why.LOST or exit_code is None:
        return "The worker that supervised this run is gone, and the run with it."
    if exit_code < 0:
        return f"The run's process was killed by {_signal_name(-exit_code)}."
    return f"The run's process ended with exit code {exit_code} and reported no state."


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
