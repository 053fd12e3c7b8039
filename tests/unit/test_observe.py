"""One look at an engine of our own making: what it records, how often it asks, and that it never sees half."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from caisson.disk import DiskUsage
from caisson.engine import ContainerID, ContainerInfo, Engine, EngineEvent, ImageID, ImageInfo, Layer
from caisson.engine_disk import CacheDisk, ContainerDisk, EngineDisk, VolumeDisk
from caisson.errors import EngineRefused, EngineUnreachable
from caisson.event_replay import replay_events
from caisson.leases import EVERYTHING, Leases
from caisson.ledger import Ledger
from caisson.observe import observe
from caisson.snapshot import ImageState, Snapshot
from caisson.snapshot_disk import DiskUnread

USAGE = DiskUsage("/data", 100, 50, 100, 50)
START = datetime(2030, 1, 1, tzinfo=UTC)
BASE, APP, OTHER = (ImageID("sha256:" + letter * 64) for letter in "abc")


class FakeEngine(Engine):
    """Images, containers and events as a test sets them; counts calls, and fails the one that is named."""

    def __init__(self) -> None:
        self.images = {
            BASE: _image(BASE, ("debian:1",), ("d1",), 100),
            APP: _image(APP, ("team/app:1",), ("d1", "d2", "d3"), 107),
            OTHER: _image(OTHER, ("other:1",), ("d9",), 5),
        }
        self.sizes = {"d1": 100, "d2": 2, "d3": 5, "d9": 5}
        self.containers: list[ContainerInfo] = []
        self.recent = [_event(0)]
        self.calls: Counter[str] = Counter()
        self.broken = ""

    def _called(self, name: str) -> None:
        self.calls[name] += 1
        if name == self.broken:
            raise EngineUnreachable("The engine does not answer.")

    def list_images(
        self, labels: Mapping[str, str] | None = None, *, repository: str = "", intermediate: bool = False
    ) -> list[ImageInfo]:
        self._called("list_images")
        return [replace(image, layers=(), last_tag_time=None) for image in self.images.values()]

    def list_containers(self, labels: Mapping[str, str | None]) -> list[ContainerInfo]:
        self._called("list_containers")
        return self.containers

    def inspect_container(self, container: ContainerID | str) -> ContainerInfo | None:
        self._called("inspect_container")
        found = next((one for one in self.containers if one.id == container), None)
        return replace(found, finished=_at(-7)) if found else None

    def events(self, *, since_ns: int = 0) -> list[EngineEvent]:
        self._called("events")
        return list(self.recent)

    def inspect_image(self, image: str) -> ImageInfo | None:
        self._called("inspect_image")
        named = next((found for found in self.images.values() if image in found.tags), None)
        return self.images.get(ImageID(image), named)

    def history(self, image: str) -> list[Layer]:
        self._called("history")
        if ImageID(image) not in self.images:
            raise EngineRefused("No such image.")
        return [Layer(self.sizes[layer], 0) for layer in self.images[ImageID(image)].layers]


def _image(
    image: ImageID, tags: tuple[str, ...], layers: tuple[str, ...], size: int, parent: ImageID | None = None
) -> ImageInfo:
    # Created long ago, and of no concern.
    return ImageInfo(image, tags, (), {"team": "a"}, size, layers, "1", parent=parent)


def _event(minute: float, action: str = "start", image: str = "none:1") -> EngineEvent:
    at = int((_at(minute) - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds()) * 10**9
    return EngineEvent(at, "container", action, "c", {"image": image})


def _of_image(minute: float, action: str, subject: str, **attributes: str) -> EngineEvent:
    return replace(_event(minute), type="image", action=action, subject=subject, attributes=attributes)


def _at(minute: float) -> datetime:
    return START + timedelta(minutes=minute)


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger.sqlite")


@pytest.fixture
def leases(tmp_path: Path, ledger: Ledger) -> Leases:
    return Leases(tmp_path / "leases", ledger.leases)


class Looks:
    """Looks at the engine at given minutes."""

    def __init__(self, engine: FakeEngine, ledger: Ledger, leases: Leases) -> None:
        self.engine, self.ledger, self.leases = engine, ledger, leases

    def __call__(self, minute: float) -> dict[ImageID, ImageState]:
        return {image.id: image for image in self.snapshot(minute).images}

    def snapshot(self, minute: float, disk: EngineDisk | DiskUnread | None = None) -> Snapshot:
        self.engine.calls.clear()
        return observe(self.engine, self.ledger, self.leases.held(), USAGE, now=_at(minute), disk=disk)


@pytest.fixture
def look(engine: FakeEngine, ledger: Ledger, leases: Leases) -> Looks:
    return Looks(engine, ledger, leases)


def test_at_first_all_is_seen_now_with_its_layers(look: Looks) -> None:
    images = look(0)
    assert {image.first_seen for image in images.values()} == {image.last_used for image in images.values()} == {_at(0)}
    assert [layer.size for layer in images[APP].layers] == [100, 2, 5]
    assert images[APP].layers[0] == images[BASE].layers[0]
    assert images[APP].tags == ("team/app:1",)
    assert images[APP].labels == {"team": "a"}
    assert not images[APP].built_by_caisson


def test_only_new_images_are_inspected(look: Looks) -> None:
    look(0)
    # Of the app two layers were not known: no size can be had by subtraction.
    assert look.engine.calls == Counter(list_images=1, list_containers=1, events=1, inspect_image=3, history=1)
    new = ImageID("sha256:" + "d" * 64)
    look.engine.images[new] = _image(new, (), ("d1", "d9"), 105)
    assert [layer.size for layer in look(1)[new].layers] == [100, 5]
    assert look.engine.calls == Counter(list_images=1, list_containers=1, events=1, inspect_image=1)
    look(2)
    assert look.engine.calls == Counter(list_images=1, list_containers=1, events=1)


def test_an_image_that_nothing_uses_gets_older_and_one_that_is_used_does_not(look: Looks) -> None:
    look(0)
    look.engine.recent.append(_event(5, image="team/app:1"))
    images = look(10)
    assert images[APP].last_used == images[BASE].last_used == _at(5)
    assert images[OTHER].last_used == _at(0)
    look.engine.containers = [ContainerInfo(ContainerID("1"), "web", "exited", {}, image=OTHER, image_name="other:1")]
    assert look(20)[OTHER].last_used == _at(20)
    look.engine.containers = []
    images = look(30)
    assert (images[OTHER].last_used, images[APP].last_used) == (_at(20), _at(5))
    assert {image.first_seen for image in images.values()} == {_at(0)}


def test_a_container_counts_for_its_name_too_where_its_image_is_not_listed(look: Looks) -> None:
    look(0)
    gone = ImageID("sha256:" + "0" * 64)
    look.engine.containers = [ContainerInfo(ContainerID("1"), "web", "exited", {}, image=gone, image_name="other:1")]
    assert look(20)[OTHER].last_used == _at(20)


def test_a_container_by_a_tag_that_has_moved_since_was_of_the_image_that_had_it(look: Looks) -> None:
    look(0)
    look.engine.images[OTHER] = _image(OTHER, (), ("d9",), 5)
    look.engine.images[APP] = _image(APP, ("team/app:1", "other:1"), ("d1", "d2", "d3"), 107)
    look.engine.recent.append(_event(5, image="other:1"))
    assert look(10)[OTHER].last_used == _at(5)


@pytest.mark.parametrize("lost", [[], [_event(7)]])
def test_where_events_may_be_lost_all_was_used_now(look: Looks, lost: list[EngineEvent]) -> None:
    """The ring ran over, or the engine was started anew."""
    look(0)
    look.engine.recent = lost
    assert {image.last_used for image in look(10).values()} == {_at(10)}


def test_an_image_that_was_gone_in_between_is_new(look: Looks) -> None:
    look(0)
    image = look.engine.images.pop(OTHER)
    assert OTHER not in look(10)
    look.engine.images[OTHER] = image
    found = look(20)[OTHER]
    assert (found.first_seen, found.last_used) == (_at(20), _at(20))


def test_a_tag_time_counts_at_first_sight_and_one_in_the_future_is_now(look: Looks) -> None:
    look(0)
    new = ImageID("sha256:" + "d" * 64)
    look.engine.images[new] = replace(_image(new, (), ("d1", "d9"), 105), last_tag_time=_at(5000))
    assert look(10)[new].last_used == _at(10)


def test_own_builds_are_known_by_the_ledger_and_used_when_they_were_tagged(look: Looks) -> None:
    look(0)
    look.ledger.builds.record_build(
        build_id="1", spec_hash="s", sha="a", repository_url="u", image_id=APP, finished=_at(3), seconds=12.5
    )
    look.ledger.builds.record_tag(reference="team/app:1", image_id=APP, previous=None, build_id="1", tagged=_at(4))
    images = look(10)
    assert (images[APP].built_by_caisson, images[APP].build_seconds) == (True, 12.5)
    assert not images[BASE].built_by_caisson
    assert images[APP].last_used == images[BASE].last_used == _at(4)


def test_the_steps_of_an_own_build_stay_ours_when_their_image_has_gone_before_them(look: Looks) -> None:
    steps = [ImageID("sha256:" + letter * 64) for letter in "de"]
    look.engine.images |= {
        # As engines write that there is none.
        steps[0]: replace(_image(steps[0], (), ("d1", "d2"), 102, parent=BASE), digests=("<none>@<none>",)),
        steps[1]: _image(steps[1], (), ("d1", "d2"), 102, parent=steps[0]),
        APP: _image(APP, ("team/app:1",), ("d1", "d2", "d3"), 107, parent=steps[1]),
    }
    assert not any(image.own_step for image in look(0).values())
    look.ledger.builds.record_build(
        build_id="1", spec_hash="s", sha="a", repository_url="u", image_id=APP, finished=_at(3), seconds=1
    )
    assert {image.id for image in look(10).values() if image.own_step} == set(steps)
    del look.engine.images[APP]
    assert {image.id for image in look(20).values() if image.own_step} == set(steps)
    del look.engine.images[steps[1]]
    assert {image.id for image in look(30).values() if image.own_step} == {steps[0]}
    assert look.ledger.builds.own_steps() == {steps[0]}


@pytest.mark.parametrize("call", ["list_images", "list_containers", "events", "inspect_image", "history"])
def test_a_read_that_fails_raises_and_records_nothing(look: Looks, call: str) -> None:
    look.engine.broken = call
    with pytest.raises(EngineUnreachable):
        look(0)
    assert look.ledger.images.known() == {}
    assert look.ledger.observations.position() is None


def test_an_image_that_goes_while_it_is_looked_at_is_not_there(look: Looks, monkeypatch: pytest.MonkeyPatch) -> None:
    def history(image: str) -> list[Layer]:
        look.engine.images.pop(ImageID(image))
        raise EngineRefused("No such image.")

    monkeypatch.setattr(look.engine, "history", history)
    assert set(look(0)) == {BASE, OTHER}


def test_a_history_that_is_refused_for_an_image_that_is_there_raises(
    look: Looks, monkeypatch: pytest.MonkeyPatch
) -> None:
    def history(image: str) -> list[Layer]:
        raise EngineRefused("Something else.")

    monkeypatch.setattr(look.engine, "history", history)
    with pytest.raises(EngineRefused):
        look(0)


def test_a_lease_covers_what_the_classic_builder_made_of_its_base(look: Looks) -> None:
    step, tagged = ImageID("sha256:" + "d" * 64), ImageID("sha256:" + "e" * 64)
    look.engine.images[step] = _image(step, (), ("d1",), 100, parent=BASE)
    look.engine.images[tagged] = _image(tagged, ("mine:1",), ("d1",), 100, parent=step)
    with look.leases.hold("build 1", ["debian:1", "team/new:2"], taken=_at(0)):
        (lease,) = look.snapshot(1).leases
    assert lease.images == {BASE, step}
    assert lease.references == {"docker.io/library/debian:1", "docker.io/team/new:2"}
    assert (lease.holder, lease.expires, lease.everything) == ("build 1", None, False)
    assert look.snapshot(2).leases == ()


def test_a_build_whose_images_are_not_known_holds_them_all(look: Looks) -> None:
    with look.leases.hold("build 1", [EVERYTHING], taken=_at(0)):
        (lease,) = look.snapshot(1).leases
    assert lease.everything


def test_digests_of_the_containerd_store_count_where_a_registry_is_known(look: Looks) -> None:
    digests = (f"team/app@sha256:{'1' * 64}", f"<none>@sha256:{'2' * 64}")
    look.engine.images[APP] = replace(look.engine.images[APP], digests=digests)
    assert look(0)[APP].registry_digests == digests[:1]

    def of_containerd(minute: float) -> tuple[str, ...]:
        found = observe(look.engine, look.ledger, look.leases.held(), USAGE, now=_at(minute), containerd_store=True)
        return next(image.registry_digests for image in found.images if image.id == APP)

    assert of_containerd(1) == ()
    look.engine.images[APP] = replace(look.engine.images[APP], last_tag_time=_at(1))
    look.engine.recent.append(_of_image(2, "push", "team/app:1"))
    assert of_containerd(2) == of_containerd(3) == digests[:1]


def test_a_rebuilt_ledger_makes_everything_new(look: Looks, tmp_path: Path) -> None:
    look(0)
    look(100)
    (tmp_path / "ledger.sqlite").write_bytes(b"garbage" * 1000)
    look.ledger = Ledger(tmp_path / "ledger.sqlite")
    images = look(200)
    assert (
        {image.last_used for image in images.values()} == {image.first_seen for image in images.values()} == {_at(200)}
    )
    assert look.ledger.rebuilt_at() is not None


def test_an_empty_layer_below_is_found_by_the_images_that_end_with_it(look: Looks) -> None:
    """The history of the upper one does not tell which of its layers is empty; those with fewer layers do."""
    lower, upper = ImageID("sha256:" + "d" * 64), ImageID("sha256:" + "e" * 64)
    look.engine.sizes |= {"empty": 0, "top": 9}
    look.engine.images[upper] = _image(upper, (), ("d1", "empty", "top"), 109)
    look.engine.images[lower] = _image(lower, (), ("d1", "empty"), 100)
    images = look(0)
    assert [layer.size for layer in images[lower].layers] == [100, 0]
    assert [layer.size for layer in images[upper].layers] == [100, 0, 9]


def test_events_between_two_looks_are_recorded_with_one_call(look: Looks) -> None:
    look(0)
    look.engine.calls.clear()
    look.engine.recent.append(_event(5, image="team/app:1"))
    assert replay_events(look.engine, look.ledger, now=_at(6))
    assert look.engine.calls == Counter(events=1)
    # The ring runs over, but what was in it is recorded.
    look.engine.recent = [look.engine.recent[-1], _event(8)]
    images = look(10)
    assert (images[APP].last_used, images[BASE].last_used, images[OTHER].last_used) == (_at(5), _at(5), _at(0))
    assert {image.first_seen for image in images.values()} == {_at(0)}


def test_a_name_that_was_given_between_two_looks_stands_for_its_image_in_later_events(look: Looks) -> None:
    look(0)
    look.engine.recent.append(_of_image(1, "tag", OTHER, name="other:prod"))
    replay_events(look.engine, look.ledger, now=_at(2))
    look.engine.recent.append(_event(50, image="other:prod"))
    replay_events(look.engine, look.ledger, now=_at(51))
    assert look.ledger.images.known()[OTHER].last_used == _at(50)
    assert look(60)[OTHER].last_used == _at(50)


def test_a_container_by_a_name_that_no_event_told_of_is_asked_for(look: Looks) -> None:
    """BuildKit gives names to images that it has in its cache, and not every engine has an event for it."""
    look(0)
    look.engine.calls.clear()
    look.engine.images[OTHER] = replace(look.engine.images[OTHER], tags=("other:1", "other:ci"))
    look.engine.recent += [_event(5, image="other:ci"), _event(5.5, image="gone:1")]
    replay_events(look.engine, look.ledger, now=_at(6))
    assert look.engine.calls == Counter(events=1, inspect_image=2)
    assert look.ledger.images.known()[OTHER].last_used == _at(5)
    look.engine.images[OTHER] = replace(look.engine.images[OTHER], tags=("other:1",))
    look.engine.recent.append(_event(7, image="other:ci"))
    replay_events(look.engine, look.ledger, now=_at(8))
    assert look(9)[OTHER].last_used == _at(7)


def test_a_tag_that_is_new_in_the_listing_is_a_use(look: Looks) -> None:
    look(0)
    look.engine.images[OTHER] = replace(look.engine.images[OTHER], tags=("other:1", "other:2"))
    assert look(10)[OTHER].last_used == _at(10)
    look.engine.images[OTHER] = replace(look.engine.images[OTHER], tags=("docker.io/library/other:2",))
    assert look(20)[OTHER].last_used == _at(10)


@pytest.mark.parametrize("is_known", [True, False])
def test_what_was_pulled_between_two_looks_is_recoverable_with_the_containerd_store(
    look: Looks, is_known: bool
) -> None:
    look(0)
    new = ImageID("sha256:" + "d" * 64)
    image = OTHER if is_known else new
    look.engine.images[image] = replace(
        _image(image, ("reg:5000/new:1",), ("d9",), 5),
        digests=(f"reg:5000/new@{image}",),
        last_tag_time=_at(2),
    )
    look.engine.recent.append(_of_image(3, "pull", "reg:5000/new:1"))
    replay_events(look.engine, look.ledger, now=_at(4))
    for minute in (5, 6):
        found = observe(look.engine, look.ledger, look.leases.held(), USAGE, now=_at(minute), containerd_store=True)
        digests = {state.id: state.registry_digests for state in found.images}
        assert digests[image] == (f"reg:5000/new@{image}",)
        assert digests[APP] == ()
        # When it was first seen does not hang on that.
        assert {state.first_seen for state in found.images if state.id == new} == (set() if is_known else {_at(5)})


def test_who_had_a_name_before_it_was_pushed_is_not_recoverable_by_that(look: Looks) -> None:
    def digests(minute: float) -> dict[ImageID, tuple[str, ...]]:
        found = observe(look.engine, look.ledger, look.leases.held(), USAGE, now=_at(minute), containerd_store=True)
        return {state.id: state.registry_digests for state in found.images}

    def name(image: ImageID, *tags: str, at: float) -> None:
        made_up = (f"team/app@{image}",)
        look.engine.images[image] = replace(
            look.engine.images[image], tags=tags, digests=made_up, last_tag_time=_at(at)
        )

    name(APP, "team/app:main", "team/app:sha-1", at=-5)
    digests(0)
    name(APP, "team/app:sha-1", at=-5)
    name(OTHER, "team/app:main", at=1)
    look.engine.recent += [
        _of_image(1, "tag", OTHER, name="team/app:main"),
        _of_image(2, "push", "team/app:main"),
    ]
    found = digests(3)
    assert (found[APP], found[OTHER]) == ((), (f"team/app@{OTHER}",))


def test_events_that_were_lost_between_two_looks_make_all_used_then(look: Looks) -> None:
    look(0)
    look.engine.recent = [_event(7)]
    assert not replay_events(look.engine, look.ledger, now=_at(8))
    assert replay_events(look.engine, look.ledger, now=_at(9))
    assert {image.last_used for image in look(10).values()} == {_at(8)}


def test_a_replay_before_the_first_look_knows_nothing_and_spoils_nothing(look: Looks) -> None:
    assert not replay_events(look.engine, look.ledger, now=_at(1))
    assert {image.first_seen for image in look(2).values()} == {_at(2)}


def test_names_that_only_the_engine_can_read_are_no_hindrance(look: Looks) -> None:
    odd = "deadbeef" * 8
    look.engine.images[OTHER] = replace(look.engine.images[OTHER], tags=(f"{odd}:1",), digests=(f"A/{odd}@b",))
    with look.leases.hold("build 1", ["debian:1"], taken=_at(0)):
        images = observe(look.engine, look.ledger, look.leases.held(), USAGE, now=_at(1), containerd_store=True).images
    assert {image.id for image in images} == {BASE, APP, OTHER}
    look.engine.recent.append(_event(5, image=f"{odd}:1"))
    look(6)


def test_when_a_container_ended_is_asked_only_if_wanted_and_only_of_those_that_have(look: Looks) -> None:
    look.engine.containers = [
        ContainerInfo(ContainerID("1"), "ended", "exited", {}, image=APP),
        ContainerInfo(ContainerID("2"), "runs", "running", {}, image=APP),
    ]
    assert [container.finished for container in look.snapshot(0).containers] == [None, None]
    assert look.engine.calls["inspect_container"] == 0
    snapshot = observe(look.engine, look.ledger, look.leases.held(), USAGE, now=_at(1), with_ends=True)
    assert [container.finished for container in snapshot.containers] == [_at(-7), None]
    assert look.engine.calls["inspect_container"] == 1


VOLUME = "0f" * 32


def _disk(users: int = 0) -> EngineDisk:
    return EngineDisk(
        layers_size=0,
        images=(),
        containers=(ContainerDisk(ContainerID("1"), "web", "exited", 77),),
        volumes=(VolumeDisk(VOLUME, 5, users), VolumeDisk("database", 5, 0)),
        cache=(CacheDisk("regular", 9, in_use=False, shared=False, id="c1"),),
    )


def _volume_use(look: Looks, minute: float, disk: EngineDisk | None = None) -> tuple[int, datetime | None]:
    (volume,) = look.snapshot(minute, disk or _disk()).anonymous_volumes
    assert volume.name == VOLUME
    return volume.users, volume.last_used


def _mount(minute: float) -> EngineEvent:
    return replace(_event(minute), type="volume", action="mount", subject=VOLUME)


def test_the_account_of_the_disk_is_in_the_snapshot_and_costs_no_call(look: Looks) -> None:
    look.engine.containers = [ContainerInfo(ContainerID("1"), "web", "exited", {}, image=APP)]
    bare = look.snapshot(0)
    assert (bare.build_cache, bare.anonymous_volumes, bare.containers[0].writable_bytes) == ((), (), 0)
    full = look.snapshot(1, _disk())
    assert look.engine.calls == Counter(list_images=1, list_containers=1, events=1)
    assert [entry.id for entry in full.build_cache] == ["c1"]
    assert full.containers[0].writable_bytes == 77
    assert (bare.problems, full.problems) == ((), ())


def test_an_account_that_could_not_be_read_is_a_problem(look: Looks) -> None:
    assert look.snapshot(0, DiskUnread("it did not answer")).problems == ("it did not answer",)


def test_a_volume_gets_older_from_when_nothing_had_it_any_more(look: Looks) -> None:
    assert _volume_use(look, 0) == (0, _at(0))
    assert _volume_use(look, 10) == (0, _at(0))
    assert _volume_use(look, 20, _disk(users=1)) == (1, _at(20))
    # Its container was removed between two looks: it may have been at this very moment.
    assert _volume_use(look, 30) == (0, _at(30))
    assert _volume_use(look, 40) == (0, _at(30))


def test_a_container_that_came_after_the_account_was_read_has_its_volume(look: Looks) -> None:
    disk = _disk()
    _volume_use(look, 0, disk)
    look.engine.containers = [ContainerInfo(ContainerID("1"), "web", "created", {}, image=APP, volumes=(VOLUME,))]
    assert _volume_use(look, 10, disk) == (1, _at(10))
    look.engine.containers = []
    # Seen without an account too.
    look.snapshot(20)
    assert _volume_use(look, 30, disk) == (0, _at(20))


def test_a_volume_that_was_mounted_between_two_looks_was_used_until_the_second(look: Looks) -> None:
    _volume_use(look, 0)
    look.engine.recent.append(_mount(5))
    # Its container may have been there until this very moment.
    assert _volume_use(look, 10) == (0, _at(10))
    look.engine.recent.append(_mount(15))
    assert replay_events(look.engine, look.ledger, now=_at(16))
    assert look.ledger.volumes.known()[VOLUME].last_used == _at(16)
    assert _volume_use(look, 20) == _volume_use(look, 30) == (0, _at(20))


def test_where_events_may_be_lost_every_volume_was_used_now(look: Looks) -> None:
    _volume_use(look, 0)
    look.engine.recent = [_event(7)]
    assert _volume_use(look, 10) == (0, _at(10))
    look.engine.recent = [_event(11)]
    assert not replay_events(look.engine, look.ledger, now=_at(12))
    assert look.ledger.volumes.known()[VOLUME].last_used == _at(12)
    assert _volume_use(look, 20) == _volume_use(look, 30) == (0, _at(20))


def test_what_a_service_ran_before_is_known_when_its_container_was_replaced(look: Looks) -> None:
    def run(image: ImageID, minute: float) -> dict[ImageID, int | None]:
        look.engine.containers = [ContainerInfo(ContainerID(image), "web", "running", {}, image=image)]
        return {found.id: found.deployed for found in look(minute).values()}

    assert run(APP, 0) == {BASE: None, APP: None, OTHER: None}
    assert run(OTHER, 1) == {BASE: None, APP: 1, OTHER: 0}
    assert run(APP, 2) == {BASE: None, APP: 0, OTHER: 1}
    look.engine.containers = []
    assert {image.deployed for image in look(3).values()} == {None, 0, 1}


@pytest.mark.parametrize("is_replayed", [False, True])
def test_a_deployment_that_came_and_went_between_two_looks_is_told_by_the_events(
    look: Looks, is_replayed: bool
) -> None:
    def ran(minute: float, action: str, image: str) -> EngineEvent:
        return replace(_event(minute, action), attributes={"image": image, "name": "web"})

    look.engine.containers = [ContainerInfo(ContainerID("1"), "web", "running", {}, image=BASE)]
    look(0)
    look.engine.recent += [ran(1, "die", "debian:1"), ran(2, "start", "other:1"), ran(3, "die", "other:1")]
    if is_replayed:
        assert replay_events(look.engine, look.ledger, now=_at(4))
    look.engine.containers = [ContainerInfo(ContainerID("2"), "web", "running", {}, image=APP)]
    look.engine.recent.append(ran(5, "start", "team/app:1"))
    assert {found.id: found.deployed for found in look(10).values()} == {APP: 0, OTHER: 1, BASE: 2}


def test_a_deployment_of_an_image_that_no_look_has_seen_yet_is_told_too(look: Looks) -> None:
    labels = {"com.docker.compose.project": "shop", "com.docker.compose.service": "web"}
    new = ImageID("sha256:" + "d" * 64)
    look(0)
    look.engine.images[new] = _image(new, ("web:2",), ("d1", "d9"), 105)
    for minute, image in ((1, "web:2"), (2, "team/app:1")):
        started = replace(_event(minute), attributes={**labels, "image": image, "name": "shop-web-1"})
        look.engine.recent.append(started)
        assert replay_events(look.engine, look.ledger, now=_at(minute))
    assert {found.id: found.deployed for found in look(10).values()} == {APP: 0, new: 1, BASE: None, OTHER: None}


def test_what_a_tag_points_to_is_not_deployed_for_that(look: Looks) -> None:
    for minute, image in enumerate((BASE, APP, OTHER)):
        look.ledger.builds.record_tag(
            reference="team/app:main", image_id=image, previous=None, build_id="1", tagged=_at(minute)
        )
    assert {image.deployed for image in look(10).values()} == {None}
