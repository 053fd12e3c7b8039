"""The ledger keeps what was built and tagged, by image ID."""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime
from pathlib import Path

import pytest

from caisson.engine import ImageID
from caisson.ledger import Ledger


def _at(minute: int) -> datetime:
    return datetime(2030, 1, 1, 0, minute, tzinfo=UTC)


def _build(ledger: Ledger, build_id: str, image: str, minute: int, spec: str = "spec") -> None:
    ledger.record_build(
        build_id=build_id,
        spec_hash=spec,
        sha="a" * 40,
        repository_url="https://h/a",
        image_id=ImageID(image),
        finished=_at(minute),
    )


def test_the_newest_image_of_a_spec_comes_first(tmp_path: Path) -> None:
    with Ledger(tmp_path / "new" / "ledger.sqlite") as ledger:
        _build(ledger, "1", "old", 1)
        _build(ledger, "2", "new", 2)
        _build(ledger, "3", "other", 3, spec="another")
        assert ledger.images_of_spec("spec") == ["new", "old"]
        assert ledger.images_of_spec("none") == []


def test_what_a_tag_pointed_to_is_kept_and_survives_a_restart(tmp_path: Path) -> None:
    file = tmp_path / "ledger.sqlite"
    for minute, image in ((1, "first"), (2, "second")):
        with Ledger(file) as ledger:
            ledger.record_tag(reference="a:1", image_id=ImageID(image), previous=None, build_id="b", tagged=_at(minute))
    with Ledger(file) as ledger:
        assert ledger.tag_history("a:1") == [("second", _at(2)), ("first", _at(1))]


def test_a_newer_schema_is_not_touched(tmp_path: Path) -> None:
    file = tmp_path / "ledger.sqlite"
    Ledger(file).__exit__()
    database = sqlite3.connect(file)
    database.execute("PRAGMA user_version=99")
    database.close()
    with pytest.raises(sqlite3.DatabaseError, match="99"):
        Ledger(file)
