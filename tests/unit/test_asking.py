"""Which run a push joins, which ones it makes needless: by when they were asked for and by whom."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from caisson.asking import ASKED_AT_LABEL, PushedRun, asked_at, askers, may_join, superseded, with_asker
from caisson.queueing import Supersede

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)
HOOK = "hook"


def run(id_: str, second: int, state: str = "SCHEDULED", *, began: bool | None = None, by: str = HOOK) -> PushedRun:
    begun = state in ("RUNNING", "COMPLETED", "FAILED") if began is None else began
    return PushedRun(id_, NOON + timedelta(seconds=second), state, begun, frozenset(by.split()))


@pytest.mark.parametrize("value", ["", "yesterday", "2026-05-01T12:00:00", 7])
def test_a_label_that_is_no_time_is_none(value: object) -> None:
    assert asked_at({ASKED_AT_LABEL: value}, NOON) == NOON


def test_an_older_push_that_comes_late_makes_no_newer_one_needless() -> None:
    late, newer, older = run("late", 1), run("newer", 2), run("older", 0)
    branch = [late, newer, older]
    assert superseded(late, branch, joined=False, mark=HOOK, superseding="queued") == ["older"]
    assert superseded(newer, branch, joined=False, mark=HOOK, superseding="queued") == ["late", "older"]


def test_those_of_one_delivery_leave_each_other() -> None:
    one, two = run("one", 1), run("two", 1)
    assert superseded(two, [one, two], joined=False, mark=HOOK, superseding="queued") == []


@pytest.mark.parametrize(
    ("superseding", "gone"), [("queued", ["waits"]), ("running", ["waits", "takes", "runs"]), ("off", [])]
)
def test_the_setting_says_which(superseding: Supersede, gone: list[str]) -> None:
    branch = [run("waits", 1), run("takes", 1, "PENDING"), run("runs", 0, "RUNNING"), run("ended", 0, "COMPLETED")]
    assert superseded(run("new", 2), branch, joined=False, mark=HOOK, superseding=superseding) == gone


def test_what_somebody_else_asks_for_too_stays() -> None:
    branch = [run("both", 0, by="hook token"), run("theirs", 1, by="token"), run("nobodys", 1, by=""), run("mine", 1)]
    assert superseded(run("new", 2), branch, joined=False, mark=HOOK, superseding="queued") == ["nobodys", "mine"]


def test_a_push_back_to_the_commit_that_runs_supersedes_what_waits_behind_it() -> None:
    running, queued = run("a", 0, "RUNNING"), run("b", 1)
    assert may_join(running, [running, queued], mark=HOOK, superseding="queued")
    assert superseded(running, [running, queued], joined=True, mark=HOOK, superseding="queued") == ["b"]


@pytest.mark.parametrize(
    ("later", "superseding", "joins"),
    [
        (run("b", 1), "off", False),
        (run("b", 1, by="hook token"), "queued", False),
        (run("b", 1, "RUNNING"), "running", False),
        (run("b", 1, "COMPLETED"), "queued", False),
        (run("b", 1, "CANCELLED", began=True), "queued", False),
        (run("b", 1, "CANCELLED"), "queued", True),
        (run("b", -1, "COMPLETED"), "queued", True),
    ],
)
def test_a_run_behind_which_another_has_begun_is_not_joined(
    later: PushedRun, superseding: Supersede, joins: bool
) -> None:
    """The branch's tags would end at the commit in between."""
    running = run("a", 0, "RUNNING")
    assert may_join(running, [later, running], mark=HOOK, superseding=superseding) is joins


def test_who_asks_again_after_withdrawing_asks() -> None:
    assert askers(with_asker(["caisson:withdrawn=me", "caisson:asker=you"], "me")) == {"me", "you"}
