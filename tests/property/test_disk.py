"""Disk pressure and forecast, by their own sentences."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from itertools import pairwise

from hypothesis import example, given
from hypothesis import strategies as st

from caisson.disk_limits import Zone
from caisson.forecast import Forecast, Point, describe, forecast, since_last_jump
from caisson.pressure import Level, Pressure, advance, replay

T0 = datetime(2026, 1, 1, tzinfo=UTC)
GIB = 1 << 30
MINUTE = timedelta(minutes=1)
ORDER: tuple[Level, ...] = ("normal", "high", "critical")
zones = st.lists(st.sampled_from(list(Zone)), max_size=60)


def readings(found: list[Zone]) -> list[tuple[datetime, Zone]]:
    return [(T0 + index * MINUTE, zone) for index, zone in enumerate(found)]


@given(zones)
def test_a_change_needs_two_readings_in_a_row_that_agree(found: list[Zone]) -> None:
    state = Pressure()
    for index, (at, zone) in enumerate(readings(found)):
        before = state.level
        state, change = advance(state, zone, at, most_gap=10 * MINUTE)
        if change is None:
            assert state.level == before
            continue
        assert index >= 1
        last_two = found[index - 1 : index + 1]
        if change.worse:
            assert min(last_two) >= (Zone.HIGH if change.after == "high" else Zone.CRITICAL)
        else:
            assert max(last_two) < (Zone.CRITICAL if change.before == "critical" else Zone.HIGH)
            assert not change.recovered or max(last_two) is Zone.LOW


@given(zones)
def test_pressure_begins_at_high_and_ends_below_low(found: list[Zone]) -> None:
    """In between everything stays as it is: without a reading of high none begins, without one of low none ends."""
    _, changes = replay(readings([zone for zone in found if zone in (Zone.LOW, Zone.BETWEEN)]), most_gap=10 * MINUTE)
    assert changes == []
    start = [Zone.HIGH, Zone.HIGH]
    state, changes = replay(readings(start + [zone for zone in found if zone is not Zone.LOW]), most_gap=10 * MINUTE)
    assert state.level != "normal"


@given(zones, st.sampled_from(list(Zone)))
def test_two_equal_readings_settle_every_doubt(found: list[Zone], last: Zone) -> None:
    state, _ = replay(readings([*found, last, last]), most_gap=10 * MINUTE)
    before, _ = replay(readings(found), most_gap=10 * MINUTE)
    expected: dict[Zone, Level] = {
        Zone.LOW: "normal",
        Zone.BETWEEN: "normal" if before.level == "normal" else "high",
        Zone.HIGH: "high",
        Zone.CRITICAL: "critical",
    }
    # From critical through a reading of high to between: one of both may have taken the first step already.
    assert state.level == expected[last] or (last is Zone.BETWEEN and state.level in ("normal", "high"))


@given(zones)
def test_changes_form_a_chain(found: list[Zone]) -> None:
    state, changes = replay(readings(found), most_gap=10 * MINUTE)
    assert all(one.after == two.before for one, two in pairwise(changes))
    assert state.level == (changes[-1].after if changes else "normal")
    assert all(change.before != change.after for change in changes)


def line(rate: float, *, minutes: int, noise: float = 0.0, seed: int = 0, start: float = 400.0) -> list[Point]:
    """GiB in use, growing ``rate`` a day, with noise of that standard deviation; one sample a minute."""
    draw = random.Random(seed)
    return [
        Point(T0 + minute * MINUTE, (start + rate * minute / 1440 + draw.gauss(0, noise)) * GIB)
        for minute in range(minutes)
    ]


def of(points: list[Point], *, free: float = 50.0, resets: tuple[datetime, ...] = ()) -> Forecast:
    return forecast(points, free=int(free * GIB), total=1000 * GIB, resets=resets)


@given(
    rate=st.floats(0.5, 50),
    noise=st.floats(0, 0.5),
    minutes=st.integers(1440, 4 * 1440),
    seed=st.integers(0, 10**6),
)
def test_growth_that_stands_out_of_the_noise_is_found_with_its_interval(
    rate: float, noise: float, minutes: int, seed: int
) -> None:
    found = of(line(rate, minutes=minutes, noise=noise, seed=seed))
    if noise < 0.2 * rate:
        assert found.trend == "growing"
        assert abs(found.rate / GIB - rate) < 0.25 * rate
    assert found.least_rate <= found.rate <= found.most_rate
    # Hypothesis looks for the one seed in many: the bounds leave room for more than their 95 %.
    slack = 0.05 * rate + 0.2 * noise
    assert found.least_rate / GIB - slack <= rate <= found.most_rate / GIB + slack


@given(rate=st.floats(0.5, 50), free=st.floats(0.1, 200), minutes=st.integers(60, 3000))
@example(rate=10.938817859916576, free=1.0, minutes=60)
def test_a_straight_line_is_full_when_it_reaches_the_end(rate: float, free: float, minutes: int) -> None:
    found = of(line(rate, minutes=minutes), free=free)
    true_seconds = free / rate * 86400
    if found.full_in is not None:
        assert abs(found.full_in.total_seconds() - true_seconds) < 0.01 * true_seconds + 1
        assert found.earliest is not None
        assert found.earliest <= found.full_in
        assert found.latest is None or found.full_in <= found.latest
    else:
        assert true_seconds > 19 * 60 * (minutes - 1)


@given(seed=st.integers(0, 10**6), minutes=st.integers(0, 3000), noise=st.floats(0.01, 2))
def test_noise_alone_never_tells_a_time_that_is_sure(seed: int, minutes: int, noise: float) -> None:
    """Without growth there may be a chance trend, but never a large one: no more than the noise over the span."""
    found = of(line(0, minutes=minutes, noise=noise, seed=seed))
    if found.trend != "none":
        assert abs(found.rate) / GIB * minutes / 1440 < 2 * noise


@given(seed=st.integers(0, 10**4), minutes=st.integers(100, 3000), rate=st.floats(-20, -0.5))
def test_a_disk_that_empties_is_never_full(seed: int, minutes: int, rate: float) -> None:
    found = of(line(rate, minutes=minutes, noise=0.01, seed=seed))
    assert found.trend != "growing"
    assert found.full_in is None


@given(count=st.integers(0, 7), rate=st.floats(-50, 50))
def test_few_samples_say_nothing(count: int, rate: float) -> None:
    found = of(line(rate, minutes=count))
    assert (found.trend, found.full_in) == ("none", None)
    assert "too few samples" in describe(found)


@given(
    before=st.integers(1, 500),
    after=st.integers(60, 500),
    drop=st.floats(60, 300),
    rate=st.floats(1, 20),
    reset=st.booleans(),
)
def test_only_what_came_after_the_last_prune_counts(
    before: int, after: int, drop: float, rate: float, reset: bool
) -> None:
    """Before a prune another line went up: what was there makes no difference, whether the prune is known or seen."""
    old = line(40, minutes=before, start=400 if not reset else 310)
    new = [
        Point(point.at + before * MINUTE, point.used)
        for point in line(rate, minutes=after, start=400 - drop if not reset else 300)
    ]
    resets = (old[-1].at,) if reset else ()
    assert list(since_last_jump(old + new, total=1000 * GIB, resets=resets)) == new
    assert of(old + new, resets=resets) == of(new)


@given(st.lists(st.tuples(st.integers(0, 10**6), st.floats(0, 1000)), max_size=80))
def test_whatever_the_samples_are_there_is_a_sentence(raw: list[tuple[int, float]]) -> None:
    points = [Point(T0 + timedelta(seconds=second), used * GIB) for second, used in sorted(raw)]
    found = of(points)
    assert describe(found)
    assert found.least_rate <= found.rate <= found.most_rate
    assert found.full_in is None or found.trend == "growing"
