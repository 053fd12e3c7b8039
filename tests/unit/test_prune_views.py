"""A prune as a picture, as events and as files."""

from __future__ import annotations

import base64
import os
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from caisson.disk import DiskUsage
from caisson.errors import RequestInvalid
from caisson.policy_choice import choose_policy
from caisson.prune_events import ALERTED, failed_event, overdue_event, recovered_event
from caisson.prune_files import MOST_RUNS, plan_file, report_file, runs_to_keep, write_plan, write_report
from caisson.prune_picture import RuleBar, plan_bars, prune_picture, prune_svg, report_bars
from caisson.prune_report import Ending, ItemResult, Outcome, PruneReport, report_from_json
from caisson.prune_report_events import report_events
from caisson.retention.plan_json import plan_from_json
from caisson.retention.policy import RetentionPolicy
from caisson.retention.prune_plan import PrunePlan
from tests.prune_hosts import MIB, NOW, host, image, plan, policy, stack

HOUR = timedelta(hours=1)


def made_plan(*, free_mib: int | None = None) -> PrunePlan:
    """Two expired images of 30 and 20 MiB, and one of 50 MiB that is too young to go."""
    images = (
        image("old", "team/app:1", layers=stack(("old", 30))),
        image("older", "team/app:2", layers=stack(("older", 20))),
        image("young", "team/app:3", idle=0.5, layers=stack(("young", 50))),
    )
    return plan(host(*images), policy(), free_mib=free_mib)


def made_report(
    *outcomes: Outcome, ending: Ending = "done", problem: str = "", free_mib: int | None = None
) -> PruneReport:
    made = made_plan(free_mib=free_mib)
    results = tuple(
        ItemResult(item, outcome, item.rule, item.reason) for item, outcome in zip(made.items, outcomes, strict=True)
    )
    after = replace(made.usage, free_bytes=made.usage.free_bytes + 50 * MIB)
    return PruneReport("p1", made, results, NOW, NOW + HOUR, "the schedule", False, 50 * MIB, 7, after, ending, problem)


def texts(svg: str) -> list[str]:
    return [item.text or "" for item in ElementTree.fromstring(svg).iter() if item.tag.endswith("text")]


def widths(svg: str, kind: str) -> list[float]:
    return [float(item.attrib["width"]) for item in ElementTree.fromstring(svg).iter() if item.get("class") == kind]


def test_the_picture_of_a_plan_has_what_goes_and_what_stays_by_rule() -> None:
    bars = plan_bars(made_plan())
    assert bars == [RuleBar("expired", 50 * MIB, "goes"), RuleBar("min-age", 50 * MIB, "stays")]
    svg = prune_svg(bars)
    assert texts(svg)[:4] == ["expired", "50 MiB", "min-age", "50 MiB"]
    assert widths(svg, "goes") == widths(svg, "stays") == [720 - 200 - 90]
    assert prune_picture(bars) == f"data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}"


def test_the_picture_of_a_report_tells_what_went_from_what_was_only_planned() -> None:
    assert report_bars(made_report("removed", "kept")) == [
        RuleBar("expired", 30 * MIB, "gone"),
        RuleBar("expired", 20 * MIB, "left"),
        RuleBar("min-age", 50 * MIB, "stays"),
    ]
    # What somebody else removed is neither.
    assert [bar.kind for bar in report_bars(made_report("removed", "gone"))] == ["gone", "stays"]


def test_bars_are_in_proportion_and_the_smallest_is_seen() -> None:
    svg = prune_svg([RuleBar("a", 1000, "goes"), RuleBar("b", 500, "goes"), RuleBar("c", 1, "goes")])
    assert widths(svg, "goes") == [430, 215, 2]


def test_there_is_no_picture_of_nothing() -> None:
    assert prune_picture(plan_bars(replace(made_plan(), items=(), kept_bytes={"in-use": 0}))) == ""


def test_many_rules_are_cut_and_nothing_is_lost_of_the_sum() -> None:
    kept = {f"rule-{number:02}": number for number in range(30)} | {"several": 100}
    bars = plan_bars(replace(made_plan(), items=(), kept_bytes=kept))
    assert len(bars) == 13
    assert (bars[0].rule, bars[-1].rule) == ("several rules", "other rules")
    assert sum(bar.size for bar in bars) == sum(kept.values())


def test_a_rules_name_is_text_in_the_picture_whatever_it_is() -> None:
    assert "<b>&\ufffd" in texts(prune_svg([RuleBar("<b>&\x1b", 1, "stays")]))


def test_a_prune_that_is_done_is_an_event_and_no_alert() -> None:
    (event,) = report_events("build-1", made_report("removed", "removed"))
    assert (event.name, event.path) == ("caisson.prune.finished", "/var/lib/docker")
    assert event.name not in ALERTED
    assert event.message == "A prune of build-1 is done. Removed 2 of 2 planned: 50 MiB freed."
    assert event.payload["message"] == event.message
    assert (event.payload["removed"], event.payload["freed_bytes"], event.payload["seconds"]) == (2, 50 * MIB, 3600)


def test_a_prune_that_was_stopped_has_failed() -> None:
    report = made_report("removed", "not-reached", ending="stopped", problem="The engine does not answer.")
    (event,) = report_events("build-1", report)
    assert event.name == "caisson.prune.failed"
    assert event.name in ALERTED
    assert "A prune of build-1 has failed." in event.message
    assert "The engine does not answer." in event.message


def test_a_prune_that_freed_too_little_says_what_is_missing_and_what_holds_the_rest() -> None:
    finished, short = report_events("build-1", made_report("removed", "removed", ending="short", free_mib=250))
    assert (finished.name, short.name) == ("caisson.prune.finished", "caisson.prune.short")
    assert short.message == (
        "A prune of build-1 could not reach the low threshold of /var/lib/docker: 100 MiB are missing. "
        "Images that stay hold, by rule: min-age 50 MiB."
    )
    assert short.payload["kept_bytes"] == {"min-age": 50 * MIB}


def test_the_other_events_say_to_people_what_is_wrong() -> None:
    overdue = overdue_event("build-1", NOW - 13 * HOUR, NOW, 6 * HOUR)
    assert overdue.message.startswith(
        "No prune of build-1 has succeeded for 13 h; one is expected every 6 h. See the runs of prune-images in Prefect"
    )
    assert overdue.payload["since"] == (NOW - 13 * HOUR).isoformat()
    assert recovered_event("build-1", NOW).message == "A prune of build-1 has succeeded again, at 2026-06-01 12:00 UTC."
    assert failed_event("b", "the schedule", "No engine.").payload["message"] == "A prune of b has failed. No engine."


def test_plan_and_report_of_a_run_are_kept_as_they_were(tmp_path: Path) -> None:
    report = made_report("removed", "kept")
    assert write_plan(tmp_path, "run-1", report.plan) == plan_file(tmp_path, "run-1")
    assert write_report(tmp_path, "run-1", report) == report_file(tmp_path, "run-1")
    assert plan_from_json(plan_file(tmp_path, "run-1").read_text()) == report.plan
    assert report_from_json(report_file(tmp_path, "run-1").read_text()) == report
    assert plan_file(tmp_path, "run-1").stat().st_mode & 0o777 == 0o600


def test_files_of_the_newest_runs_are_kept_and_no_other_file_is_touched(tmp_path: Path) -> None:
    made = made_plan()
    for number in range(MOST_RUNS):
        os.utime(write_plan(tmp_path, f"run-{number:03}", made), (number, number))
    other = tmp_path / "prunes" / "mine.json"
    other.touch()
    write_plan(tmp_path, "newest", made)
    left = {path.name for path in (tmp_path / "prunes").iterdir()}
    assert left == {"mine.json", "newest.plan.json", *(f"run-{n:03}.plan.json" for n in range(1, MOST_RUNS))}


def test_files_are_bounded_by_their_bytes_and_the_newest_run_stays_whatever_it_takes() -> None:
    huge = 1 << 40
    assert runs_to_keep([("old", 1, 10), ("new", 2, huge)]) == {"new"}
    assert runs_to_keep([("old", 1, huge), ("new", 2, 10)]) == {"new"}
    assert runs_to_keep([("old", 1, 10), ("new", 2, 10)]) == {"old", "new"}
    assert runs_to_keep([]) == set()


def test_the_hosts_policy_holds_unless_another_one_is_switched_on() -> None:
    of_host, other = policy(), RetentionPolicy(keep_deployed=7)
    assert choose_policy(of_host, RetentionPolicy(), own_policy=False) == of_host
    assert choose_policy(of_host, other, own_policy=True) == other
    assert choose_policy(of_host, RetentionPolicy(), own_policy=True) == RetentionPolicy()
    with pytest.raises(RequestInvalid, match="Switch own_policy on"):
        choose_policy(of_host, other, own_policy=False)


def test_a_usage_of_nothing_is_drawn_as_nothing() -> None:
    empty = PrunePlan(NOW, NOW, DiskUsage("/", 0, 0, 0, 0), None, (), ())
    assert plan_bars(empty) == []
