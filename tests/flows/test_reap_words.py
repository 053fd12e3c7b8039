"""What Prefect says of the runs whose builders are on the engine, as the reaper understands it."""

from __future__ import annotations

from uuid import UUID, uuid4

from prefect.client.schemas.objects import FlowRun
from prefect.states import AwaitingRetry, Cancelled, Cancelling, Completed, Crashed, Failed, Pending, Running, State

from caisson.reaping import Word
from tasks.reap import MOST_RUNS, flow_run_ids, words_of

RUN = "00000000-0000-0000-0000-000000000001"


def _word(state: State | None, *, executed: bool = False) -> Word:
    run = FlowRun(id=UUID(RUN), flow_id=uuid4(), state=state)
    return words_of([run.id], [run], executed=[run.id] if executed else [])[RUN]


def test_prefects_word_is_that_of_the_state_and_a_run_that_is_executed_lives() -> None:
    for state in (Completed(), Failed(), Cancelled(), Crashed()):
        assert (_word(state), _word(state, executed=True)) == (Word.DEAD, Word.LIVE)
    for state in (Running(), Pending(), Cancelling(), AwaitingRetry(), None):
        assert _word(state) is Word.LIVE
    assert words_of([UUID(RUN)], []) == {RUN: Word.NONE}


def test_no_more_runs_are_asked_for_than_prefect_answers() -> None:
    """One that the answer has no room for would seem to be gone."""
    runs = [str(uuid4()) for _ in range(MOST_RUNS + 50)]
    asked = flow_run_ids([*runs, "", "not-a-run", "{00000000-0000-0000-0000-000000000001}"])
    assert len(asked) == MOST_RUNS
    assert {str(run) for run in asked} < set(runs)
