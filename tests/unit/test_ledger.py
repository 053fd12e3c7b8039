"""The ledger keeps what was built, tagged, seen, sampled and pruned."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from caisson.disk import DiskUsage
from caisson.engine import ImageID
from caisson.ledger import KnownImage, KnownVolume, Ledger
from caisson.ledger.leases import LeaseRecord
from caisson.ledger.observation import Position
from caisson.ledger.services import ServiceImage
from caisson.ledger.stamps import to_stamp
from caisson.snapshot import ChainID, StoredLayer


def _at(minute: float) -> datetime:
    return datetime(2030, 1, 1, tzinfo=UTC) + timedelta(minutes=minute)


def _build(ledger: Ledger, build_id: str, image: str, minute: int, spec: str = "spec") -> None:
    ledger.builds.record_build(
        build_id=build_id,
        spec_hash=spec,
        sha="a" * 40,
        repository_url="https://h/a",
        image_id=ImageID(image),
        finished=_at(minute),
    )


def _image(name: str, *, used: float, seen: float = 0) -> KnownImage:
    return KnownImage(ImageID(name), _at(seen), _at(used), f"used at {used}", _at(used), ("a:1",), ("a",))


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "new" / "ledger.sqlite")


def test_the_newest_image_of_a_spec_comes_first(ledger: Ledger) -> None:
    _build(ledger, "1", "old", 1)
    _build(ledger, "2", "new", 2)
    _build(ledger, "3", "other", 3, spec="another")
    assert ledger.builds.images_of_spec("spec") == ["new", "old"]
    assert ledger.builds.images_of_spec("none") == []
    assert ledger.builds.own_images() == {"old": None, "new": None, "other": None}


def test_what_a_tag_pointed_to_is_kept_and_survives_a_restart(tmp_path: Path) -> None:
    file = tmp_path / "ledger.sqlite"
    for minute, image in ((1, "first"), (2, "second"), (3, "first")):
        with Ledger(file) as ledger:
            ledger.builds.record_tag(
                reference="a:1", image_id=ImageID(image), previous=None, build_id="b", tagged=_at(minute)
            )
    with Ledger(file) as ledger:
        assert ledger.builds.tag_history("a:1") == [("first", _at(3)), ("second", _at(2)), ("first", _at(1))]
        assert ledger.builds.tag_histories() == {"a:1": ["first", "second"]}


def test_whose_image_a_tag_was_given_last_comes_last(ledger: Ledger) -> None:
    for minute, url, reference in ((1, "a", "x:1"), (2, "b", "x:1"), (3, "b", "y:1"), (4, "a", "x:1")):
        image = ImageID(url)
        ledger.builds.record_build(
            build_id=url, spec_hash=url, sha="a" * 40, repository_url=url, image_id=image, finished=_at(minute)
        )
        ledger.builds.record_tag(reference=reference, image_id=image, previous=None, build_id=url, tagged=_at(minute))
    assert ledger.builds.tags_by_source() == [("b", "x:1"), ("b", "y:1"), ("a", "x:1")]


def test_builds_tags_pushes_and_reuse_are_uses(ledger: Ledger) -> None:
    image = ImageID("sha256:a")

    def last() -> tuple[datetime, str]:
        known = ledger.images.known()[image]
        return known.last_used, known.last_use

    _build(ledger, "1", image, 1)
    assert last() == (_at(1), "built")
    ledger.builds.record_tag(reference="a:1", image_id=image, previous=None, build_id="1", tagged=_at(2))
    assert last() == (_at(2), "tagged")
    ledger.builds.record_push(reference="a:1", image_id=image, digest="sha256:d", build_id="1", pushed=_at(3))
    assert last() == (_at(3), "pushed")
    ledger.builds.record_reuse(image, _at(4))
    assert last() == (_at(4), "reused")
    ledger.images.touch(image, _at(2), "long ago")
    assert last() == (_at(4), "reused")


def test_an_observation_is_kept_whole_and_makes_nothing_older(ledger: Ledger) -> None:
    layers = (StoredLayer(ChainID("sha256:1"), 10), StoredLayer(ChainID("sha256:2"), 0))
    assert ledger.observations.position() is None
    ledger.observations.record(
        [_image("a", used=5, seen=5)], {ImageID("a"): layers}, Position(_at(5), ("1", "x")), _at(5)
    )
    ledger.observations.record([_image("a", used=3, seen=3)], {}, Position(_at(6)), _at(6))
    known = ledger.images.known()[ImageID("a")]
    assert (known.first_seen, known.last_used, known.last_use) == (_at(5), _at(5), "used at 5")
    assert known.layers == layers
    assert ledger.observations.position() == Position(_at(6))


def test_names_between_two_looks_are_added_and_a_look_sets_them_anew(ledger: Ledger) -> None:
    ledger.observations.record([_image("a", used=1)], {}, Position(_at(1)), _at(1))
    for tag in ("b:1", "b:1", "c:1"):
        ledger.observations.record_uses({}, Position(_at(2)), names={ImageID("a"): {tag}, ImageID("unknown"): {tag}})
    known = ledger.images.known()
    assert (known.keys(), known[ImageID("a")].names) == ({"a"}, ("a:1", "b:1", "c:1"))
    ledger.observations.record([_image("a", used=3)], {}, Position(_at(3)), _at(3))
    assert ledger.images.known()[ImageID("a")].names == ("a:1",)


def test_pulls_of_images_that_were_not_listed_yet_are_kept_for_90_days(ledger: Ledger) -> None:
    new = ImageID("new")
    ledger.observations.record_uses({}, Position(_at(0)), registries={new: {"reg/a", "reg/b"}})
    later = _at(0) + timedelta(days=89)
    ledger.observations.record([], {}, Position(later), later, registries={new: {"reg/b"}})
    assert ledger.images.registries() == {new: {"reg/a", "reg/b"}}
    later += timedelta(days=2)
    ledger.observations.record([], {}, Position(later), later)
    assert ledger.images.registries() == {new: {"reg/b"}}


def test_an_observation_that_fails_leaves_position_and_images_as_they_were(ledger: Ledger) -> None:
    ledger.observations.record([_image("a", used=1)], {}, Position(_at(1), ("1",)), _at(1))

    def broken():  # type: ignore[no-untyped-def]
        yield _image("b", used=2)
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        ledger.observations.record(broken(), {}, Position(_at(2), ("2",)), _at(2))
    assert list(ledger.images.known()) == ["a"]
    assert ledger.observations.position() == Position(_at(1), ("1",))


def test_an_image_that_is_gone_for_long_is_forgotten(ledger: Ledger) -> None:
    day = 24 * 60
    ledger.images.record([_image("a", used=0)], {}, _at(0))
    ledger.images.record([_image("b", used=80 * day)], {}, _at(80 * day))
    assert set(ledger.images.known()) == {"a", "b"}
    ledger.images.record([_image("b", used=91 * day)], {}, _at(91 * day))
    assert set(ledger.images.known()) == {"b"}


def _volume(name: str, *, used: float, listed: float, held: bool = False) -> KnownVolume:
    return KnownVolume(name, _at(used), _at(used), _at(listed), held=held)


def _look(ledger: Ledger, minute: float, *volumes: KnownVolume, running: tuple[tuple[str, str], ...] = ()) -> None:
    images = {image for _, image in running}
    ledger.observations.record(
        [_image(image, used=minute) for image in images],
        {},
        Position(_at(minute)),
        _at(minute),
        known_volumes=volumes,
        running=[(service, ImageID(image)) for service, image in running],
    )


def test_no_use_of_a_volume_is_ever_made_older_and_its_first_sight_stays(ledger: Ledger) -> None:
    _look(ledger, 5, _volume("v", used=5, listed=5, held=True))
    _look(ledger, 7, _volume("v", used=7, listed=7))
    # A look that began earlier and ended later.
    _look(ledger, 6, _volume("v", used=6, listed=6, held=True))
    assert ledger.volumes.known() == {"v": KnownVolume("v", _at(5), _at(7), _at(7), held=False)}
    ledger.observations.record_uses({}, Position(_at(8)), used_volumes=("v", "unknown"))
    ledger.observations.record_uses({}, Position(_at(3)), used_volumes=("v",))
    assert ledger.volumes.known() == {"v": KnownVolume("v", _at(5), _at(8), _at(7), held=True)}


def test_a_volume_that_is_gone_for_long_is_forgotten(ledger: Ledger) -> None:
    day = 24 * 60
    _look(ledger, 0, _volume("v", used=0, listed=0))
    _look(ledger, 89 * day)
    assert set(ledger.volumes.known()) == {"v"}
    _look(ledger, 91 * day)
    assert ledger.volumes.known() == {}


def test_what_a_service_ran_is_remembered_with_when_it_was_last_seen(ledger: Ledger) -> None:
    _look(ledger, 1, running=(("web", "a"), ("db", "d")))
    _look(ledger, 2, running=(("web", "a"), ("web", "b")))
    assert sorted(ledger.services.list()) == [
        ServiceImage("db", ImageID("d"), _at(1)),
        ServiceImage("web", ImageID("a"), _at(2)),
        ServiceImage("web", ImageID("b"), _at(2)),
    ]


def test_a_service_that_runs_keeps_what_it_ran_long_ago_and_one_that_is_gone_is_forgotten(ledger: Ledger) -> None:
    day = 24 * 60
    _look(ledger, 0, running=(("web", "a"), ("db", "d")))
    for month in range(1, 8):
        # Its first image is still there.
        ledger.images.touch(ImageID("a"), _at(month * 30 * day), "run")
        _look(ledger, month * 30 * day, running=(("web", "b"),))
    assert {(found.service, found.image) for found in ledger.services.list()} == {("web", "a"), ("web", "b")}
    _look(ledger, (210 + 91) * day)
    assert ledger.services.list() == []


def test_an_image_that_is_forgotten_was_never_deployed(ledger: Ledger) -> None:
    day = 24 * 60
    _look(ledger, 0, running=(("web", "a"),))
    _look(ledger, 60 * day, running=(("web", "b"),))
    _look(ledger, 91 * day, running=(("web", "b"),))
    assert [found.image for found in ledger.services.list()] == ["b"]


def test_samples_are_thinned_to_minutes_then_hours_then_nothing(ledger: Ledger, tmp_path: Path) -> None:
    now = _at(62 * 24 * 60)
    ledger.samples.record(_at(0), DiskUsage("/data", 1, 1, 1, 1))
    with closing(sqlite3.connect(tmp_path / "new" / "ledger.sqlite")) as database, database:
        start, half_a_minute = to_stamp(_at(0)), 30_000_000
        database.executemany(
            "INSERT OR REPLACE INTO disk_samples VALUES ('/data', ?, 1, 1, 1, 1)",
            [(stamp,) for stamp in range(start, to_stamp(now), half_a_minute)],
        )
    ledger.samples.record(now, DiskUsage("/data", 1, 1, 1, 1), DiskUsage("/other", 1, 1, 0, 0))
    times = [taken for taken, _ in ledger.samples.of("/data")]
    hours = [now - timedelta(hours=n) for n in range(60 * 24, 48, -1)]
    minutes = [now - timedelta(minutes=n) for n in range(48 * 60, -1, -1)]
    assert times == hours + minutes
    assert ledger.samples.file_systems() == ["/data", "/other"]


def test_a_sample_comes_back_as_it_was_and_since(ledger: Ledger) -> None:
    usages = [DiskUsage("/data", 100, 50 - n, 10, 5) for n in range(3)]
    for minute, usage in enumerate(usages):
        ledger.samples.record(_at(minute), usage)
    assert ledger.samples.of("/data") == [(_at(minute), usage) for minute, usage in enumerate(usages)]
    assert ledger.samples.of("/data", since=_at(1)) == [(_at(1), usages[1]), (_at(2), usages[2])]


def test_a_prune_is_unfinished_until_it_has_ended(ledger: Ledger) -> None:
    ledger.prunes.begin("1", started=_at(1), trigger="schedule", plan={"remove": 3})
    ledger.prunes.begin("2", started=_at(2), trigger="pressure", plan={})
    ledger.prunes.end("1", ended=_at(3), outcome="done", freed_bytes=5, freed_inodes=7)
    newest, oldest = ledger.prunes.list()
    assert (newest.id, newest.ended, newest.outcome) == ("2", None, "")
    assert (oldest.ended, oldest.outcome, oldest.freed_bytes, oldest.freed_inodes) == (_at(3), "done", 5, 7)
    assert oldest.plan == {"remove": 3}
    assert [prune.id for prune in ledger.prunes.list(since=_at(2))] == ["2"]


def test_records_of_leases_are_replaced_and_removed(ledger: Ledger) -> None:
    first = LeaseRecord("1", "build 1", 10, ("a:1",), _at(1))
    more = LeaseRecord("1", "build 1", 10, ("a:1", "b:1"), _at(1))
    other = LeaseRecord("2", "build 2", 11, (), _at(2))
    for lease in (first, more, other):
        ledger.leases.put(lease)
    assert ledger.leases.list() == [more, other]
    ledger.leases.remove("1")
    assert ledger.leases.list() == [other]
