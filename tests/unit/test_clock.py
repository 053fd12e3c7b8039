"""When a host's clock is believed, and that nothing is removed by one that is not."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from caisson.boot import Boot, read_boot
from caisson.clock import KnownClock, Reading, judge_clock
from caisson.disk_limits import parse_limits
from caisson.ledger import Ledger
from caisson.prune import apply_plan, make_plan
from caisson.prune_view import HostView
from tests.unit.test_prune_beside_others import NOW, POLICY, World

START = datetime(2030, 1, 1, tzinfo=UTC)
HOUR, DAY, YEAR = timedelta(hours=1), timedelta(days=1), timedelta(days=365)


class Looks:
    """Looks at one host's clock, one after the other; ``passed`` is what has passed since the start, in truth."""

    def __init__(self) -> None:
        self.known: KnownClock | None = None
        self.boot, self._booted = "first", timedelta()

    def restart(self, passed: timedelta) -> None:
        self.boot, self._booted = "second", passed

    def look(self, passed: timedelta, ahead: timedelta = timedelta()) -> str:
        boot = Boot(self.boot, (passed - self._booted).total_seconds())
        self.known, doubt = judge_clock(self.known, Reading(START + passed + ahead, boot))
        assert bool(doubt) == (self.known.doubted is not None)
        return doubt


@pytest.fixture
def looks() -> Looks:
    """After a first look."""
    looks = Looks()
    assert looks.look(timedelta()) == ""
    return looks


def test_a_clock_that_keeps_step_with_the_boots_seconds_is_believed(looks: Looks) -> None:
    assert [looks.look(passed) for passed in (timedelta(seconds=1), HOUR, 30 * DAY, YEAR)] == [""] * 4


def test_one_that_went_ahead_of_them_is_not_and_the_way_out_is_told(looks: Looks) -> None:
    assert looks.look(6 * HOUR, ahead=YEAR) == (
        "the clock of this host went 365 days ahead of the 6 h since the last look, and until it has kept that time "
        "for 1 h nothing is removed: see whether it is right (`timedatectl`), and prune again after 2031-01-01 07:00 "
        "UTC by it."
    )


def test_what_a_clock_is_set_by_at_times_is_no_jump(looks: Looks) -> None:
    assert looks.look(6 * HOUR, ahead=HOUR) == ""
    assert looks.look(7 * HOUR, ahead=2 * HOUR + timedelta(seconds=1)) != ""


def test_one_that_has_kept_its_time_for_an_hour_is_believed(looks: Looks) -> None:
    doubts = [looks.look(6 * HOUR + minutes * HOUR / 60, ahead=YEAR) for minutes in (0, 5, 59, 60, 61)]
    assert [bool(doubt) for doubt in doubts] == [True, True, True, False, False]
    assert all(doubt.endswith("prune again after 2031-01-01 07:00 UTC by it.") for doubt in doubts[:3])


def test_two_looks_at_one_moment_do_not_agree_on_anything(looks: Looks) -> None:
    assert looks.look(6 * HOUR, ahead=YEAR)
    assert looks.look(6 * HOUR, ahead=YEAR)


def test_one_that_jumps_on_has_to_keep_its_new_time(looks: Looks) -> None:
    assert looks.look(1 * HOUR, ahead=YEAR)
    assert looks.look(2.5 * HOUR, ahead=2 * YEAR)
    assert looks.look(3 * HOUR, ahead=2 * YEAR)
    assert looks.look(3.5 * HOUR, ahead=2 * YEAR) == ""


def test_one_that_is_right_again_is_believed_at_once(looks: Looks) -> None:
    assert looks.look(1 * HOUR, ahead=YEAR)
    assert looks.look(1.1 * HOUR) == ""
    assert looks.look(1.2 * HOUR, ahead=YEAR)


@pytest.mark.parametrize("is_started_anew", [True, False])
def test_a_time_before_the_last_look_is_wrong_over_a_restart_too(looks: Looks, is_started_anew: bool) -> None:
    looks.look(6 * HOUR)
    if is_started_anew:
        looks.restart(6 * HOUR)
    doubt = looks.look(7 * HOUR, ahead=-3 * HOUR)
    assert doubt.startswith(
        "the clock of this host is 2 h behind the last look's time, and until it has kept that time"
    )
    assert looks.look(7.9 * HOUR, ahead=-3 * HOUR)
    assert looks.look(8 * HOUR, ahead=-3 * HOUR) == ""


def test_looks_of_several_processes_may_come_in_another_order(looks: Looks) -> None:
    looks.look(HOUR)
    assert looks.look(HOUR - timedelta(seconds=30)) == ""


def test_over_a_restart_a_jump_ahead_can_not_be_told(looks: Looks) -> None:
    looks.restart(HOUR)
    assert looks.look(2 * HOUR, ahead=YEAR) == ""


def test_a_restart_is_no_way_out_of_a_doubt(looks: Looks) -> None:
    assert looks.look(1 * HOUR, ahead=YEAR)
    looks.restart(1.5 * HOUR)
    doubt = looks.look(2.5 * HOUR, ahead=YEAR)
    assert doubt.startswith("the clock of this host was in doubt, and the host was started anew, and until")
    assert looks.look(3.4 * HOUR, ahead=YEAR)
    assert looks.look(3.5 * HOUR, ahead=YEAR) == ""


def test_a_wrong_clock_at_the_start_that_is_set_right_later_is_believed_after_an_hour(looks: Looks) -> None:
    looks.restart(HOUR)
    assert looks.look(1.1 * HOUR, ahead=-YEAR)
    assert looks.look(1.2 * HOUR)
    assert looks.look(2.2 * HOUR) == ""


def test_it_is_remembered_as_it_was(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite")
    assert ledger.clock.known() is None
    reading = Reading(START, Boot("b", 1.5))
    for known in (KnownClock(reading), KnownClock(reading, replace(reading, boot=Boot("c", 2.5)))):
        ledger.clock.record(known)
        assert Ledger(tmp_path / "ledger.sqlite").clock.known() == known


def test_the_kernel_tells_the_boot() -> None:
    first, second = read_boot(), read_boot()
    assert len(first.id) == 36
    assert second.id == first.id
    assert second.seconds >= first.seconds > 0


class Clocked(World):
    """That world, with the seconds of its boot; those that the clock alone goes ahead are in ``ahead``."""

    def __init__(self, state: Path) -> None:
        super().__init__(state)
        self.ahead = timedelta()
        self.pruned = replace(
            self.pruned,
            clock=lambda: self.host.now + self.ahead,
            boot=lambda: Boot("one", (self.host.now - NOW).total_seconds()),
        )


LIMITS = parse_limits(
    low="2 free", high="1 free", critical="0 free", inodes_low="2 free", inodes_high="1 free", inodes_critical="0 free"
)


@pytest.mark.parametrize("is_pressed", [False, True])
def test_nothing_is_planned_by_a_clock_that_jumped_until_it_has_settled(tmp_path: Path, is_pressed: bool) -> None:
    world = Clocked(tmp_path)
    world.host.new_image([("young", 1)], tags=["young:1"])
    view = HostView(world.pruned, POLICY)
    assert [item.image.tags for item in make_plan(view, LIMITS).items] == [("old:1.0", "old:stable")]  # type: ignore[union-attr]
    before = world.ledger.images.known()
    world.ahead = YEAR
    plan = make_plan(view, LIMITS, force_pressure=is_pressed)
    assert plan.items == ()
    assert plan.problems[0].startswith("the clock of this host went 365 days ahead of the")
    assert {kept.rule for kept in plan.kept} == {"incomplete"}
    # Nor is anything learnt by it.
    assert world.ledger.images.known() == before
    world.host.pass_time(3601)
    assert len(make_plan(view, LIMITS, force_pressure=is_pressed).items) == 2


def test_nothing_more_is_removed_when_the_clock_jumps_on_the_way(tmp_path: Path) -> None:
    world = Clocked(tmp_path)
    view = HostView(world.pruned, POLICY)
    plan = make_plan(view, LIMITS)
    world.ahead = YEAR
    world.host.new_image([("other", 1)], tags=["other:1"])
    (result,) = apply_plan(view, plan, trigger="a test").results
    assert (result.outcome, result.rule) == ("kept", "incomplete")
    assert "the clock of this host" in result.reason
