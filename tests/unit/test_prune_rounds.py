"""A prune under pressure whose estimates were too good plans anew; on the fake engine, whose inodes no plan knows."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from caisson import prune
from caisson.disk import DiskUsage
from caisson.disk_limits import parse_limits
from caisson.errors import EngineUnreachable
from caisson.leases import Leases
from caisson.ledger import Ledger
from caisson.prune import Replan, adopt_plan, apply_plan, make_plan
from caisson.prune_files import plan_file, runs_to_keep, write_plan
from caisson.prune_report import PruneReport, report_from_json, report_to_json
from caisson.prune_report_events import report_events
from caisson.prune_report_markdown import render_report, report_summary
from caisson.prune_view import HostView, PruneHost
from caisson.retention.plan import FIRST
from caisson.retention.policy import Retention, RetentionPolicy, Scope
from caisson.retention.prune_plan import Attempt, FreeTarget, PrunePlan, RemoveImage
from caisson.settings import load_settings
from tasks import apply_prune as step
from tasks.prune_run import PruneRun
from tests.fake_engine import FakeEngine
from tests.fake_host import FakeHost

MIB = 1 << 20
NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
FEW, MANY = 10, 1000
POLICY = RetentionPolicy(
    scope=Scope.HOST, allow_unrecoverable=True, otherwise=Retention(keep_last=0, max_age=None, min_age="0s")
)


class Inodes:
    """Large images of few files, small images of many: by bytes, the large ones seem to have the inodes."""

    def __init__(self, state: Path, *, wanted: int) -> None:
        self.host = FakeHost("overlay2", NOW - timedelta(days=60), total_inodes=20_000)
        self.host.other_bytes = 100 * MIB
        self.files = {}
        for number in range(4):
            for name, size, files in (("large", 50 * MIB, FEW), ("small", MIB, MANY)):
                image = self.host.new_image([(f"{name}{number}", size)], tags=[f"{name}{number}:1"])
                self.files[image] = files
        self.engine = FakeEngine(self.host)
        ledger = Ledger(state / "ledger.sqlite")
        self.pruned = PruneHost(
            engines=(self.engine,),
            ledger=ledger,
            leases=Leases(state / "leases", ledger.leases),
            read_usage=self.read_usage,
            clock=lambda: self.host.now,
        )
        HostView(self.pruned, POLICY).look(self.pruned.leases.held())
        self.host.now = NOW
        self.limits = parse_limits(
            low="2 free",
            high="1 free",
            critical="0 free",
            inodes_low=f"{self.read_usage().free_inodes + wanted} free",
            inodes_high="1 free",
            inodes_critical="0 free",
        )
        self.view = HostView(self.pruned, POLICY)

    def read_usage(self) -> DiskUsage:
        usage = self.host.read_usage()
        return replace(usage, free_inodes=10_000 - sum(self.files[image] for image in self.host.images))

    def plan(self, attempt: Attempt = FIRST) -> PrunePlan:
        return make_plan(self.view, self.limits, force_pressure=True, attempt=attempt)

    def prune(self, replan: Replan | None) -> PruneReport:
        return apply_plan(self.view, self.plan(), trigger="a test", replan=replan)

    @property
    def tags(self) -> set[str]:
        return set(self.host.tags)


def test_it_goes_on_with_a_new_plan_until_there_is_room(tmp_path: Path) -> None:
    report = Inodes(tmp_path / "one", wanted=1500).prune(None)
    assert (report.ending, report.more_rounds) == ("short", ())
    host = Inodes(tmp_path / "rounds", wanted=1500)
    report = host.prune(host.plan)
    assert report.ending == "target-reached"
    assert report.freed_inodes >= 1500
    assert len(report.more_rounds) + 1 == max(result.round for result in report.results) <= prune.MOST_ROUNDS
    # No more than it takes.
    assert sum(tag.startswith("small") for tag in host.tags) == 2
    (recorded,) = host.pruned.ledger.prunes.list()
    assert (recorded.outcome, recorded.freed_inodes) == ("target-reached", report.freed_inodes)


def test_all_rounds_are_told(tmp_path: Path) -> None:
    host = Inodes(tmp_path, wanted=1500)
    report = host.prune(host.plan)
    rounds = len(report.more_rounds) + 1
    assert rounds > 1
    assert f"planned in {rounds} rounds: " in report_summary(report)
    last = report.more_rounds[-1]
    removed = sum(result.outcome == "removed" for result in report.results if result.round == rounds)
    assert f"so it was planned anew; {removed} of {last.items} removed" in render_report(report).replace("\\", "")
    assert report_from_json(report_to_json(report)) == report
    assert report.kept_bytes == last.kept_bytes
    (event,) = report_events("host", report)
    assert event.payload["rounds"] == rounds


def test_where_nothing_is_left_to_go_it_ends_short(tmp_path: Path) -> None:
    host = Inodes(tmp_path, wanted=9000)
    plans: list[PrunePlan] = []

    def plan(attempt: Attempt) -> PrunePlan:
        plans.append(host.plan(attempt))
        return plans[-1]

    report = host.prune(plan)
    assert (report.ending, host.tags) == ("short", set())
    assert plans[-1].items == ()
    assert len(report.results) == 8


def test_what_goes_only_under_pressure_does_not_go_without_a_target(tmp_path: Path) -> None:
    host = Inodes(tmp_path, wanted=1500)
    plan = host.plan()
    assert {item.phase for item in plan.items} == {"evicted"}
    report = apply_plan(host.view, replace(plan, target=None), trigger="a test")
    assert {(result.outcome, result.rule) for result in report.results} == {("kept", "no-target")}
    assert len(host.tags) == 8


def test_a_plan_from_a_file_is_of_this_engine_and_has_the_target_of_its_disk_now(tmp_path: Path) -> None:
    host = Inodes(tmp_path, wanted=1500)
    host.pruned = replace(host.pruned, engine_id="this")
    host.view = HostView(host.pruned, POLICY)
    plan = host.plan()
    assert plan.engine == "this"
    assert adopt_plan(plan, host.pruned, host.limits) == plan
    greedy = replace(plan, target=FreeTarget(1 << 60, 1 << 60))
    assert adopt_plan(greedy, host.pruned, host.limits) == plan
    with pytest.raises(ValueError, match="engine: it was made for the engine 'other', and this one is 'this'"):
        adopt_plan(replace(plan, engine="other"), host.pruned, host.limits)
    with pytest.raises(ValueError, match="target: it has none, and what is evicted goes only until one is reached"):
        adopt_plan(replace(plan, target=None), host.pruned, host.limits)
    expired = replace(plan, target=None, items=())
    assert adopt_plan(expired, host.pruned, host.limits) == expired


def test_there_is_an_end_to_planning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where others write as fast as it removes."""
    host = Inodes(tmp_path, wanted=9000)
    monkeypatch.setattr(prune, "MOST_ROUNDS", 3)
    plans = 0

    def first_only(attempt: Attempt) -> PrunePlan:
        nonlocal plans
        plans += 1
        plan = host.plan(attempt)
        return replace(plan, items=plan.items[:1])

    report = apply_plan(host.view, replace(first := host.plan(), items=first.items[:1]), trigger="", replan=first_only)
    assert (plans, report.ending, report.counts) == (2, "short", {"removed": 3})


def test_where_nothing_could_be_removed_it_is_not_planned_again(tmp_path: Path) -> None:
    host = Inodes(tmp_path, wanted=9000)
    plan = host.plan()
    for item in plan.items:
        assert isinstance(item, RemoveImage)
        host.host.create(item.image.id)
    report = apply_plan(host.view, plan, trigger="", replan=lambda _: pytest.fail("planned again"))
    assert report.ending == "short"
    assert set(report.counts) == {"kept"}


def test_a_read_that_fails_between_two_rounds_ends_it(tmp_path: Path) -> None:
    host = Inodes(tmp_path, wanted=9000)

    def plan(_: Attempt) -> PrunePlan:
        raise EngineUnreachable("The engine does not answer.")

    report = host.prune(plan)
    assert (report.ending, report.problem) == ("stopped", "The engine does not answer.")
    assert report.counts["removed"] == len(report.results)


def test_the_plan_of_each_round_is_a_file_of_its_run(tmp_path: Path) -> None:
    host = Inodes(tmp_path, wanted=100)
    first, second = host.plan(), replace(host.plan(), items=())
    assert write_plan(tmp_path, "run", first) == plan_file(tmp_path, "run")
    assert write_plan(tmp_path, "run", second, 2).name == "run.2.plan.json"
    assert plan_file(tmp_path, "run").stat().st_size > plan_file(tmp_path, "run", 2).stat().st_size
    assert {file.name.partition(".")[0] for file in (tmp_path / "prunes").iterdir()} == {"run"}
    assert runs_to_keep([("run", 1, 1), ("run", 2, 1)]) == {"run"}


def test_the_flows_step_keeps_the_plan_of_each_round(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = Inodes(tmp_path, wanted=1500)
    settings = load_settings(_env_file=None, state_dir=tmp_path / "state")
    monkeypatch.setattr(type(settings), "disk_limits", host.limits)
    run = PruneRun(settings, host.view, run="run", trigger="a test")
    run.plan = host.plan()
    assert step.apply_prune.fn(run) == ""
    assert run.report is not None
    assert run.report.ending == "target-reached"
    rounds = range(2, len(run.report.more_rounds) + 2)
    assert sorted(file.name for file in (tmp_path / "state/prunes").iterdir()) == [f"run.{n}.plan.json" for n in rounds]
