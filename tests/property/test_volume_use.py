"""Whatever containers come and go: the ledger never takes an anonymous volume for older than it is."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from caisson.ledger import KnownVolume
from caisson.volume_use import look_at_volumes

START = datetime(2030, 1, 1, tzinfo=UTC)
VOLUME = "0a" * 32
# A container takes the volume at the first minute, which is an event, and is removed at the second, which is none.
HOLDS = st.lists(st.tuples(st.integers(1, 100), st.integers(0, 30)), max_size=8)
LOOKS = st.lists(st.integers(1, 130), min_size=1, max_size=12, unique=True).map(sorted)


def _at(minute: int) -> datetime:
    return START + timedelta(minutes=minute)


@given(HOLDS, LOOKS, st.sets(st.integers(0, 11)), st.sets(st.integers(0, 11)))
def test_no_container_had_it_since_its_last_use(
    holds: list[tuple[int, int]], looks: list[int], lost: set[int], unlisted: set[int]
) -> None:
    """With events lost before some looks, and no account of the disk at others."""
    known: dict[str, KnownVolume] = {}
    before = 0
    for index, minute in enumerate(looks):
        is_held = any(begin <= minute < begin + length for begin, length in holds)
        events = {VOLUME} if any(before < begin <= minute for begin, _ in holds) else set()
        is_complete = index not in lost
        seen = look_at_volumes(
            known,
            listed={VOLUME} - ({VOLUME} if index in unlisted else set()),
            held={VOLUME} if is_held else (),
            used=events if is_complete else (),
            is_complete=is_complete,
            now=_at(minute),
        )
        if VOLUME in known:
            assert seen[VOLUME].last_used >= known[VOLUME].last_used
        if VOLUME in seen:
            ended = [min(begin + length, minute) for begin, length in holds if begin <= minute and length]
            assert seen[VOLUME].last_used >= _at(max(ended, default=0))
            assert seen[VOLUME].last_used <= _at(minute)
        known, before = seen, minute


@given(LOOKS)
def test_one_that_no_container_ever_has_was_last_used_at_its_first_sight(looks: list[int]) -> None:
    known: dict[str, KnownVolume] = {}
    for minute in looks:
        known = look_at_volumes(known, listed={VOLUME}, held=(), used=(), is_complete=True, now=_at(minute))
    assert known[VOLUME].last_used == known[VOLUME].first_seen == _at(looks[0])
