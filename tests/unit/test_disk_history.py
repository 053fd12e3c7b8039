"""What the ledger tells of prunes: to the picture the last two weeks, to the alarm as long as it needs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from caisson.disk_history import DiskHistory
from caisson.ledger import Ledger
from caisson.settings import Settings

NOW = datetime(2026, 6, 1, tzinfo=UTC)
DAY = timedelta(days=1)


def test_the_alarm_sees_two_of_its_intervals_back_and_the_picture_two_weeks(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite")
    for days in (1, 20, 59, 62):
        ledger.prunes.begin(f"p{days}", started=NOW - days * DAY, trigger="a person", plan={})
    monthly = DiskHistory(Settings(_env_file=None, state_dir=tmp_path, prune_seconds=30 * 86_400), NOW)
    assert [prune.id for prune in monthly.recent_prunes() or ()] == ["p1", "p20", "p59"]
    assert monthly.prunes() == (NOW - DAY,)
    usual = DiskHistory(Settings(_env_file=None, state_dir=tmp_path), NOW)
    assert [prune.id for prune in usual.recent_prunes() or ()] == ["p1"]


def test_a_ledger_that_can_not_be_used_tells_of_no_prunes_and_says_why(tmp_path: Path) -> None:
    (tmp_path / "ledger.sqlite").mkdir()
    history = DiskHistory(Settings(_env_file=None, state_dir=tmp_path), NOW)
    assert history.recent_prunes() is None
    assert history.prunes() == ()
    assert len(history.problems) == 1
