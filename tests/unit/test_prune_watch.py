"""A prune starts at once under pressure, and it is told when none has succeeded for long."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from caisson.disk import DiskUsage
from caisson.disk_limits import Zone
from caisson.disk_places import Place
from caisson.disk_watch import Reading
from caisson.ledger import Prune
from caisson.pressure import Change, Level, Pressure
from caisson.prune_watch import PruneWatch, wants_prune, watch_prunes

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)
INTERVAL = 6 * HOUR


def prune(began: timedelta, *, took: timedelta | None = MINUTE, outcome: str = "done") -> Prune:
    started = NOW - began
    ended = None if took is None else started + took
    return Prune("p", started, ended, "a person", 0, 0, outcome if ended else "", {})


def reading(level: Level, *, before: Level | None = None, holds: str = "images and containers") -> Reading:
    change = Change(before, level, NOW) if before else None
    usage = DiskUsage("/d", 100, 10, 0, 0)
    return Reading(Place(path="/d", holds=(holds,)), usage, Zone.HIGH, Pressure(level, NOW), change)


def wants(*readings: Reading, prunes: tuple[Prune, ...] = (), asked: timedelta | None = None) -> bool:
    return wants_prune(readings, prunes, asked=NOW - asked if asked is not None else None, now=NOW)


@pytest.mark.parametrize("level", ["high", "critical"])
def test_pressure_that_begins_starts_a_prune_whenever_the_last_one_was(level: Level) -> None:
    assert wants(reading(level, before="normal"), prunes=(prune(2 * MINUTE),), asked=3 * MINUTE)


def test_pressure_that_goes_on_starts_one_every_ten_minutes_after_the_last() -> None:
    assert wants(reading("high"))
    assert not wants(reading("high"), prunes=(prune(30 * MINUTE, took=21 * MINUTE),))
    assert wants(reading("high"), prunes=(prune(30 * MINUTE, took=20 * MINUTE),))
    assert not wants(reading("high"), prunes=(prune(9 * MINUTE, took=None),))
    assert not wants(reading("high"), asked=9 * MINUTE)
    assert wants(reading("high"), asked=10 * MINUTE)
    assert wants(reading("high"), asked=-HOUR), "of a clock that was set back"
    assert not wants(reading("critical", before="high"), asked=MINUTE)


def test_without_pressure_on_a_disk_of_images_none_starts() -> None:
    assert not wants(reading("normal"))
    assert not wants(reading("normal", before="high"))
    assert not wants(reading("critical", before="normal", holds="volumes"))
    assert wants(reading("normal"), reading("high", before="normal", holds="containerd's images"))


def look(
    watch: PruneWatch, *prunes: Prune, interval: timedelta = INTERVAL, now: datetime = NOW
) -> tuple[PruneWatch, str]:
    found = watch_prunes(watch, prunes, interval=interval, now=now)
    return found.watch, found.finding


def test_no_success_for_twice_the_interval_is_told_once_a_day_until_one_succeeds() -> None:
    _, finding = look(PruneWatch(NOW - 30 * HOUR), prune(12 * HOUR))
    assert finding == "", "twelve hours less a minute are no more than twelve hours"
    watch, finding = look(PruneWatch(NOW - 30 * HOUR), prune(12 * HOUR + 2 * MINUTE))
    assert (watch.told, finding) == (NOW, "overdue")
    for hours in (1, 23.9):
        watch, finding = look(watch, now=NOW + hours * HOUR)
        assert finding == ""
    watch, finding = look(watch, now=NOW + 24 * HOUR)
    assert (watch.told, finding) == (NOW + 24 * HOUR, "overdue")
    watch, finding = look(watch, prune(-25 * HOUR), now=NOW + 26 * HOUR)
    assert (watch.told, finding) == (None, "recovered")
    assert look(watch, prune(-25 * HOUR), now=NOW + 26 * HOUR)[1] == ""


@pytest.mark.parametrize("outcome", ["stopped: the engine does not answer", "planned", ""])
def test_what_did_not_come_to_its_end_is_no_success(outcome: str) -> None:
    assert look(PruneWatch(NOW - 13 * HOUR), prune(HOUR, outcome=outcome))[1] == "overdue"
    assert look(PruneWatch(NOW - 13 * HOUR), prune(HOUR, took=None))[1] == "overdue"


@pytest.mark.parametrize("outcome", ["done", "target-reached", "short"])
def test_a_prune_that_came_to_its_end_is_one_even_if_it_freed_too_little(outcome: str) -> None:
    assert look(PruneWatch(NOW - 13 * HOUR), prune(HOUR, outcome=outcome))[1] == ""


def test_a_new_host_is_not_overdue_before_two_intervals_have_passed() -> None:
    watch, finding = look(PruneWatch())
    assert (watch, finding) == (PruneWatch(NOW), "")
    assert look(watch, now=NOW + 12 * HOUR)[1] == ""
    assert look(watch, now=NOW + 12 * HOUR + MINUTE)[1] == "overdue"


def test_who_wants_no_prunes_is_told_nothing_and_begins_anew_when_they_do() -> None:
    watch, finding = look(PruneWatch(NOW - 90 * HOUR, NOW - 50 * HOUR), interval=timedelta())
    assert (watch, finding) == (PruneWatch(), "")
    assert look(watch) == (PruneWatch(NOW), "")


def test_a_longer_interval_ends_the_alarm_without_the_word_that_one_succeeded() -> None:
    assert look(PruneWatch(NOW - 13 * HOUR, NOW - HOUR), interval=12 * HOUR) == (PruneWatch(NOW - 13 * HOUR), "")


def test_a_success_is_remembered_though_the_ledger_is_not_asked_so_far_back() -> None:
    succeeded = NOW - 11 * HOUR
    watch, _ = look(PruneWatch(NOW - 90 * HOUR), prune(11 * HOUR, took=timedelta()))
    assert watch.success == succeeded
    found = watch_prunes(watch, [], interval=INTERVAL, now=NOW + 9 * HOUR)
    assert (found.finding, found.since, found.watch.success) == ("overdue", succeeded, succeeded)
    assert watch_prunes(watch, [prune(HOUR)], interval=INTERVAL, now=NOW).since == NOW - HOUR + MINUTE


def test_times_that_lie_ahead_are_of_a_clock_that_was_set_back() -> None:
    assert look(PruneWatch(NOW + HOUR, NOW + HOUR, NOW + HOUR)) == (PruneWatch(NOW), "")
