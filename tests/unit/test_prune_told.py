"""That prunes fail or free too little is told when it is new and once a day, however many prunes there are."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from caisson.prune_events import EventName, PruneEvent
from caisson.prune_told import Told, choose_untold, read_told, write_told

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
FINISHED, FAILED, SHORT = "caisson.prune.finished", "caisson.prune.failed", "caisson.prune.short"


class Host:
    """Prunes one after the other, and what is told of them."""

    def __init__(self) -> None:
        self.told = Told()

    def prune(self, *names: EventName, at: timedelta) -> list[str]:
        chosen, self.told = choose_untold(self.told, [PruneEvent(name, "") for name in names], NOW + at)
        return [event.name for event in chosen]


def test_pressure_that_no_prune_can_end_is_told_once_a_day() -> None:
    host = Host()
    assert host.prune(FINISHED, SHORT, at=0 * HOUR) == [FINISHED, SHORT]
    assert [host.prune(FINISHED, SHORT, at=hour * HOUR) for hour in (0.2, 12, 23.9)] == 3 * [[FINISHED]]
    assert host.prune(FINISHED, SHORT, at=24 * HOUR) == [FINISHED, SHORT]
    assert host.prune(FINISHED, SHORT, at=25 * HOUR) == [FINISHED]


def test_it_is_told_again_when_it_was_over_in_between() -> None:
    host = Host()
    assert host.prune(FINISHED, SHORT, at=0 * HOUR) == [FINISHED, SHORT]
    assert host.prune(FINISHED, at=1 * HOUR) == [FINISHED]
    assert host.prune(FINISHED, SHORT, at=2 * HOUR) == [FINISHED, SHORT]


def test_failures_are_told_once_a_day_and_say_nothing_of_what_could_be_freed() -> None:
    host = Host()
    assert host.prune(FINISHED, SHORT, at=0 * HOUR) == [FINISHED, SHORT]
    assert host.prune(FAILED, at=1 * HOUR) == [FAILED]
    assert host.prune(FAILED, at=2 * HOUR) == []
    assert host.prune(FINISHED, SHORT, at=3 * HOUR) == [FINISHED]
    assert host.prune(FAILED, at=4 * HOUR) == [FAILED]


def test_times_that_lie_ahead_are_of_a_clock_that_was_set_back() -> None:
    host = Host()
    assert host.prune(FAILED, at=5 * HOUR) == [FAILED]
    assert host.prune(FAILED, at=0 * HOUR) == [FAILED]


@pytest.mark.parametrize("text", ["", "{", '{"failed": "yesterday"}', '{"failed": "2026-06-01T00:00:00"}', "[]"])
def test_a_damaged_file_has_told_nothing(tmp_path: Path, text: str) -> None:
    write_told(tmp_path, Told(failed=NOW))
    assert read_told(tmp_path) == Told(failed=NOW)
    (tmp_path / "prune-told.json").write_text(text)
    assert read_told(tmp_path) == Told()
