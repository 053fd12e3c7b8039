"""When a container last had an anonymous volume; what is not known never makes one older."""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime, timedelta

import pytest

from caisson.engine import EngineEvent
from caisson.engine_events import used_volumes
from caisson.ledger import KnownVolume
from caisson.volume_use import look_at_volumes

NOW = datetime(2030, 1, 1, tzinfo=UTC)
LONG_AGO, LAST_LOOK = NOW - timedelta(days=30), NOW - timedelta(days=1)
VOLUME = "0a" * 32


def _known(*, held: bool = False) -> dict[str, KnownVolume]:
    return {VOLUME: KnownVolume(VOLUME, LONG_AGO, LONG_AGO, LAST_LOOK, held=held)}


def _look(
    known: dict[str, KnownVolume],
    *,
    listed: Collection[str] = (VOLUME,),
    held: Collection[str] = (),
    used: Collection[str] = (),
    is_complete: bool = True,
) -> KnownVolume:
    found = look_at_volumes(known, listed=listed, held=held, used=used, is_complete=is_complete, now=NOW)
    assert set(found) == {VOLUME}
    return found[VOLUME]


def test_one_that_was_never_seen_was_used_now() -> None:
    assert _look({}) == KnownVolume(VOLUME, NOW, NOW, NOW, held=False)


def test_one_that_nothing_has_stays_as_old_as_it_was() -> None:
    assert _look(_known()) == KnownVolume(VOLUME, LONG_AGO, LONG_AGO, NOW, held=False)


def test_one_that_a_container_has_is_used_now() -> None:
    assert _look(_known(), held=[VOLUME]) == KnownVolume(VOLUME, LONG_AGO, NOW, NOW, held=True)


def test_one_that_a_container_had_at_the_last_look_was_used_until_now_and_then_gets_older() -> None:
    after = _look(_known(held=True))
    assert (after.last_used, after.held) == (NOW, False)
    again = look_at_volumes(
        {VOLUME: after}, listed={VOLUME}, held=(), used=(), is_complete=True, now=NOW + timedelta(days=1)
    )
    assert again[VOLUME].last_used == NOW


def test_one_that_a_container_got_in_between_was_used_until_now() -> None:
    assert _look(_known(), used=[VOLUME]) == KnownVolume(VOLUME, LONG_AGO, NOW, NOW, held=False)


def test_a_clock_that_went_back_makes_none_older() -> None:
    later = {VOLUME: KnownVolume(VOLUME, LONG_AGO, NOW + timedelta(days=1), LAST_LOOK, held=True)}
    assert _look(later, held=[VOLUME]).last_used == NOW + timedelta(days=1)


def test_where_events_were_lost_it_may_have_been_used() -> None:
    assert _look(_known(), is_complete=False).last_used == NOW


def test_one_that_was_not_listed_is_remembered_as_it_was_listed_last() -> None:
    assert _look(_known(), listed=()) == _known()[VOLUME]


@pytest.mark.parametrize("name", ["database", "0A" * 32, "0a" * 31, "0a" * 33, f"{'0a' * 32}\n"])
def test_a_volume_that_somebody_named_is_none_of_these(name: str) -> None:
    assert look_at_volumes({}, listed={name}, held={name}, used={name}, is_complete=True, now=NOW) == {}


@pytest.mark.parametrize(
    ("kind", "action", "is_use"),
    [
        ("volume", "create", True),
        ("volume", "mount", True),
        ("volume", "unmount", True),
        ("volume", "destroy", False),
        ("volume", "prune", False),
        ("container", "mount", False),
    ],
)
def test_which_events_tell_of_a_use(kind: str, action: str, is_use: bool) -> None:
    assert used_volumes([EngineEvent(1, kind, action, VOLUME)]) == ({VOLUME} if is_use else set())
