"""Pressure: two readings, hysteresis, recovery, and what an interruption means."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from caisson.disk_limits import Zone
from caisson.pressure import Change, Level, Pressure, advance, replay

T0 = datetime(2026, 1, 1, tzinfo=UTC)
GAP = timedelta(minutes=10)
ZONES = {"l": Zone.LOW, "b": Zone.BETWEEN, "h": Zone.HIGH, "c": Zone.CRITICAL}


def levels(readings: str) -> list[Level]:
    """The level after each reading of a row, one a minute."""
    state, found = Pressure(), []
    for minute, letter in enumerate(readings):
        state, _ = advance(state, ZONES[letter], T0 + timedelta(minutes=minute), most_gap=GAP)
        found.append(state.level)
    return found


@pytest.mark.parametrize(
    ("readings", "last"),
    [
        ("h", "normal"),
        ("hh", "high"),
        ("hlh", "normal"),
        ("hbh", "normal"),
        ("cc", "critical"),
        ("hc", "high"),
        ("ch", "high"),
        ("hcc", "critical"),
        ("hhb", "high"),
        ("hhbbbbb", "high"),
        ("hhl", "high"),
        ("hhll", "normal"),
        ("hhlbl", "high"),
        ("ccll", "normal"),
        ("ccl", "critical"),
        ("cchl", "high"),
        ("cchh", "high"),
        ("ccbb", "high"),
        ("ccblll", "normal"),
        ("bbbb", "normal"),
    ],
)
def test_a_change_needs_two_readings_in_a_row_that_agree(readings: str, last: Level) -> None:
    assert levels(readings)[-1] == last


def test_two_readings_go_only_as_far_as_both_do_and_a_third_goes_on_from_there() -> None:
    assert levels("hcc") == ["normal", "high", "critical"]
    assert levels("cchll") == ["normal", "critical", "critical", "high", "normal"]


def test_every_change_is_told_once_the_recovery_too() -> None:
    readings = [(T0 + timedelta(minutes=minute), ZONES[letter]) for minute, letter in enumerate("hhhccclll")]
    state, changes = replay(readings, most_gap=GAP)
    assert [(change.before, change.after) for change in changes] == [
        ("normal", "high"),
        ("high", "critical"),
        ("critical", "normal"),
    ]
    assert [change.recovered for change in changes] == [False, False, True]
    assert [change.worse for change in changes] == [True, True, False]
    assert state.since == changes[-1].at == T0 + timedelta(minutes=7)


def test_a_reading_from_before_an_interruption_confirms_nothing() -> None:
    state, _ = advance(Pressure(), Zone.HIGH, T0, most_gap=GAP)
    later = T0 + GAP + timedelta(seconds=1)
    state, change = advance(state, Zone.HIGH, later, most_gap=GAP)
    assert (state.level, change) == ("normal", None)
    state, change = advance(state, Zone.HIGH, later + timedelta(minutes=1), most_gap=GAP)
    assert change == Change("normal", "high", later + timedelta(minutes=1))


def test_a_reading_that_is_not_later_counts_for_nothing() -> None:
    state, _ = advance(Pressure(), Zone.HIGH, T0, most_gap=GAP)
    assert advance(state, Zone.HIGH, T0, most_gap=GAP) == (state, None)
    assert advance(state, Zone.HIGH, T0 - GAP, most_gap=GAP) == (state, None)


def test_after_a_clock_was_set_back_two_readings_confirm_pressure_again() -> None:
    state, _ = advance(Pressure(), Zone.HIGH, T0 + timedelta(days=3000), most_gap=GAP)
    state, change = advance(state, Zone.HIGH, T0, most_gap=GAP)
    assert (state.level, change) == ("normal", None)
    state, change = advance(state, Zone.HIGH, T0 + GAP, most_gap=GAP)
    assert state.level == "high"
    assert change is not None
