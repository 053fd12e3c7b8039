"""The rules that a prune relies on, asked of the fake engine and of real ones, so that the fake has the real rules."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from caisson.engine import ImageID
from caisson.engine_events import registries_of, registry_transfers
from caisson.errors import RemovalRefused
from tests.conftest import EngineHost, find_containerd_engine, find_engines
from tests.engine.contract_hosts import (
    BASE,
    ContractHost,
    FakeContractHost,
    RealContractHost,
    events_of,
    is_there,
    name,
    tags,
)
from tests.fake_host import Kind

_SECONDS = 60.0
_FAKES: tuple[Kind, ...] = ("overlay2", "c8d")


@dataclass(frozen=True)
class Subject:
    """What is asked: the fake of a kind, or a real engine."""

    fake: Kind | None = None
    real: EngineHost | None = None

    def __str__(self) -> str:
        return self.real.name if self.real else f"fake-{self.fake}"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    reals = [*find_engines(), find_containerd_engine()]
    subjects = [*(Subject(fake=kind) for kind in _FAKES), *(Subject(real=real) for real in reals)]
    metafunc.parametrize("subject", subjects, ids=map(str, subjects), scope="module")


@pytest.fixture
def host(subject: Subject) -> Iterator[ContractHost]:
    made: ContractHost = RealContractHost(subject.real) if subject.real else FakeContractHost(subject.fake or "c8d")
    yield made
    made.close()


def remove(host: ContractHost, image: ImageID | str) -> bool:
    return host.engine.remove_image(image, timeout=_SECONDS)


def test_an_image_with_one_tag_goes_by_its_id_and_what_is_not_there_is_no_failure(host: ContractHost) -> None:
    image = host.make("one")
    assert remove(host, image)
    assert not is_there(host, image)
    assert not remove(host, image)
    assert not remove(host, name(host, "one"))


def test_an_image_with_two_tags_does_not_go_by_its_id_and_keeps_both(host: ContractHost) -> None:
    image = host.make("one")
    host.engine.tag_image(image, name(host, "two"))
    with pytest.raises(RemovalRefused):
        remove(host, image)
    assert tags(host, image) == ["one", "two"]


def test_an_image_without_a_tag_goes_by_its_id(host: ContractHost) -> None:
    image, other = host.make("one"), host.make("other")
    host.engine.tag_image(other, name(host, "one"))
    assert tags(host, image) == []
    assert remove(host, image)
    assert not is_there(host, image)
    assert tags(host, other) == ["one", "other"]


def test_one_of_several_tags_only_goes_itself_and_the_last_takes_the_image_with_it(host: ContractHost) -> None:
    image = host.make("one")
    host.engine.tag_image(image, name(host, "two"))
    assert remove(host, name(host, "two"))
    assert tags(host, image) == ["one"]
    assert remove(host, name(host, "one"))
    assert not is_there(host, image)


def test_a_tag_is_removed_from_whatever_it_points_to_now(host: ContractHost) -> None:
    planned, other = host.make("planned"), host.make("other")
    host.engine.tag_image(planned, name(host, "moved"))
    host.engine.tag_image(other, name(host, "moved"))
    assert tags(host, planned) == ["planned"]
    assert remove(host, name(host, "moved"))
    assert (tags(host, planned), tags(host, other)) == (["planned"], ["other"])


def test_a_registrys_digest_goes_by_id_with_the_one_tag_of_its_repository(host: ContractHost) -> None:
    image = host.make("one")
    pushed = host.push(image)
    assert any(digest.startswith(f"{pushed.rpartition(':')[0]}@sha256:") for digest in _digests(host, image))
    with pytest.raises(RemovalRefused):
        remove(host, image)
    assert remove(host, name(host, "one"))
    assert tags(host, image) == ["1"]
    assert _digests(host, image)
    assert remove(host, image)
    assert not is_there(host, image)


def test_a_registrys_digest_goes_with_the_last_tag_of_its_repository(host: ContractHost) -> None:
    image = host.make("one")
    pushed = host.push(image)
    assert remove(host, pushed)
    assert tags(host, image) == ["one"]
    assert not any(digest.startswith(f"{pushed.rpartition(':')[0]}@") for digest in _digests(host, image))


@pytest.mark.parametrize("state", ["created", "running", "exited"])
def test_what_a_container_in_any_state_was_made_from_does_not_go(host: ContractHost, state: str) -> None:
    image = host.make("used", base=BASE)
    container = host.create(name(host, "used"))
    if state != "created":
        host.start(container)
    if state == "exited":
        host.stop(container)
    found = host.engine.inspect_container(container)
    assert found is not None
    assert (found.state, found.image, found.finished is not None) == (state, image, state == "exited")
    listed = next(one for one in host.engine.list_containers({}) if one.id == container)
    assert (listed.state, listed.image) == (state, image)
    for by in (image, name(host, "used")):
        with pytest.raises(RemovalRefused):
            remove(host, by)
    assert tags(host, image) == ["used"]
    # One of several names goes nevertheless: that is no protection of the engine's.
    host.engine.tag_image(image, name(host, "second"))
    assert remove(host, name(host, "second"))
    assert tags(host, image) == ["used"]
    host.remove_container(container)
    assert remove(host, image)


def test_a_parent_does_not_go_before_its_child_with_overlay2_and_does_with_containerd(host: ContractHost) -> None:
    parent = host.make("parent")
    child = host.make("child", base=name(host, "parent"))
    layers = _layers(host, child)
    listed = {image.id: image for image in host.engine.list_images(intermediate=True)}
    assert (listed[child].parent, listed[parent].parent) == (parent, None)
    if host.kind == "overlay2":
        with pytest.raises(RemovalRefused):
            remove(host, parent)
        assert tags(host, parent) == ["parent"]
        assert remove(host, child)
        assert remove(host, parent)
    else:
        assert remove(host, parent)
        assert not is_there(host, parent)
        # Its layers stay with the child.
        assert _layers(host, child) == layers
        assert remove(host, child)


def test_the_last_tag_of_a_parent_goes_and_the_parent_stays(host: ContractHost) -> None:
    parent = host.make("parent")
    child = host.make("child", base=name(host, "parent"))
    assert remove(host, name(host, "parent"))
    assert tags(host, parent) == []
    assert parent not in {image.id for image in host.engine.list_images()}
    assert parent in {image.id for image in host.engine.list_images(intermediate=True)}
    assert tags(host, child) == ["child"]


def test_untagging_takes_untagged_parents_along_and_removing_does_not(host: ContractHost) -> None:
    for number, takes_along in enumerate((False, True)):
        parent = host.make(f"parent{number}")
        child = host.make(f"child{number}", base=name(host, f"parent{number}"))
        remove(host, name(host, f"parent{number}"))
        if takes_along:
            assert host.engine.untag_image(name(host, f"child{number}"))
        else:
            assert remove(host, child)
        assert not is_there(host, child)
        assert is_there(host, parent) != takes_along


def test_untagging_what_has_no_such_tag_is_no_failure(host: ContractHost) -> None:
    image = host.make("one")
    assert not host.engine.untag_image(name(host, "other"))
    assert host.engine.untag_image(name(host, "one"))
    assert not is_there(host, image)


def test_layers_of_a_base_are_the_lowest_of_what_stands_on_it_and_have_their_sizes(host: ContractHost) -> None:
    base = host.make("base", size=100_000)
    child = host.make("child", base=name(host, "base"), size=5_000)
    assert len(_layers(host, base)) == 1
    assert _layers(host, child)[:1] == _layers(host, base)
    assert [step.size for step in host.engine.history(child)][-1] >= 5_000
    sizes = {image.id: image.size for image in host.engine.list_images()}
    if host.kind == "overlay2":
        assert [step.size for step in host.engine.history(child)] == [100_000, 5_000]
        assert sizes[child] == sizes[base] + 5_000
    else:
        # Compressed copies count too.
        assert sizes[base] > 100_000


def test_the_last_tag_time_moves_with_a_tag_and_not_with_a_container(host: ContractHost) -> None:
    image = host.make("one", base=BASE)
    before = _tag_time(host, image)
    container = host.create(name(host, "one"))
    host.start(container)
    host.remove_container(container)
    assert _tag_time(host, image) == before
    host.engine.tag_image(image, name(host, "two"))
    after = _tag_time(host, image)
    # The containerd store has a time for each name, and tells that of one of them.
    assert after > before if host.kind == "overlay2" else after >= before


def test_events_tell_who_was_tagged_used_and_removed(host: ContractHost) -> None:
    image = host.make("one", base=BASE)
    began = max(event.time_ns for event in host.engine.events()) + 1
    host.engine.tag_image(image, name(host, "two"))
    container = host.create(name(host, "one"))
    host.start(container)
    host.stop(container)
    assert host.engine.remove_ended_container(container)
    remove(host, name(host, "two"))
    remove(host, image)
    found = events_of(host, [image, container], began)
    of_image = [event.action for event in found if event.type == "image"]
    of_container = [event.action for event in found if event.type == "container"]
    assert of_image[:1] == ["tag"]
    assert set(of_image) == {"tag", "untag", "delete"}
    assert of_image[-1] == "delete"
    assert [action for action in of_container if action in ("create", "start", "die", "destroy")] == [
        "create", "start", "die", "destroy",
    ]  # fmt: skip
    assert {event.attributes["image"] for event in found if event.type == "container"} == {name(host, "one")}
    assert [event.time_ns for event in found] == sorted(event.time_ns for event in found)
    # From the moment of an event on, that event included.
    assert events_of(host, [image], found[0].time_ns)[0] == found[0]


def test_a_pull_and_a_push_are_told_later_than_the_name_was_given(host: ContractHost) -> None:
    """By which it is known whose the name was, with the containerd store: other stores keep no time for a pull."""
    image = host.make("one")
    pushed = host.push(image)
    host.pull(pushed)
    found = host.engine.inspect_image(pushed)
    assert found is not None
    assert found.id == image
    told = {event.action: event for event in host.engine.events() if event.subject == pushed}
    assert told.keys() == {"push", "pull"}
    if host.kind == "c8d":
        assert found.last_tag_time is not None
        assert registries_of(registry_transfers(told.values()), {pushed: found}).keys() == {image}


def test_a_build_with_a_tag_is_told_by_that_tag(host: ContractHost) -> None:
    host.make("base")
    began = max(event.time_ns for event in host.engine.events()) + 1
    image = host.make("one", base=name(host, "base"))
    assert "tag" in [event.action for event in events_of(host, [image], began)]


def test_a_build_without_a_tag_is_told_by_nothing(host: ContractHost) -> None:
    host.make("base")
    began = max(event.time_ns for event in host.engine.events()) + 1
    image = host.make("", base=name(host, "base"))
    assert events_of(host, [image], began) == []
    assert image in {listed.id for listed in host.engine.list_images(intermediate=True)}


def test_256_events_are_kept(host: ContractHost) -> None:
    image = host.make("one")
    for _ in range(150):
        host.engine.tag_image(image, name(host, "a"))
        host.engine.tag_image(image, name(host, "b"))
    assert len(host.engine.events()) == 256


def test_only_a_container_that_does_not_run_goes(host: ContractHost) -> None:
    host.make("one", base=BASE)
    container = host.create(name(host, "one"))
    host.start(container)
    with pytest.raises(RemovalRefused):
        host.engine.remove_ended_container(container)
    host.stop(container)
    assert host.engine.remove_ended_container(container)
    assert host.engine.inspect_container(container) is None
    assert not host.engine.remove_ended_container(container)


def test_a_volume_goes_when_no_container_has_it_and_its_container_leaves_it(host: ContractHost) -> None:
    host.make("one", base=BASE)
    volume = host.make_volume()
    container = host.create(name(host, "one"), volume=volume)
    with pytest.raises(RemovalRefused):
        host.engine.remove_volume(volume)
    assert host.engine.remove_ended_container(container)
    assert host.engine.remove_volume(volume)
    assert not host.engine.remove_volume(volume)


def test_the_account_of_the_disk_has_images_and_containers(host: ContractHost) -> None:
    image = host.make("one", base=BASE)
    container = host.create(name(host, "one"))
    usage = host.engine.disk_usage(timeout=_SECONDS)
    assert {row.id: row.tags for row in usage.images}[image] == (name(host, "one"),)
    assert {row.id: row.state for row in usage.containers}[container] == "created"
    assert usage.layers_size > 0


def test_of_the_account_no_more_is_told_than_was_asked_for_where_the_engine_can(host: ContractHost) -> None:
    host.make("one", base=BASE)
    host.create(name(host, "one"))
    cache = host.engine.disk_usage(timeout=_SECONDS, parts=["build-cache"])
    containers = host.engine.disk_usage(timeout=_SECONDS, parts=["container", "build-cache"]).containers
    assert containers
    if host.engine.info().api >= (1, 42):
        assert (cache.images, cache.containers, cache.volumes) == ((), (), ())


def test_build_cache_under_what_is_to_be_kept_stays(host: ContractHost) -> None:
    before = host.engine.disk_usage(timeout=_SECONDS).cache
    assert host.engine.prune_build_cache(keep_bytes=1 << 50, timeout=_SECONDS) == 0
    assert len(host.engine.disk_usage(timeout=_SECONDS).cache) >= len(before)


def test_an_engine_tells_which_store_it_has(host: ContractHost) -> None:
    assert host.engine.info().containerd_store == (host.kind == "c8d")
    image = host.make("one")
    other = f"other-{host.repository}:1"
    host.engine.tag_image(image, other)
    listed = [image.digests for image in host.engine.list_images(repository=host.repository)]
    # What no registry has has a digest for each repository with the containerd store, which lists one of them.
    if host.kind == "overlay2":
        assert (_digests(host, image), listed) == ((), [()])
    else:
        digests = (f"{host.repository}@{image}", f"other-{host.repository}@{image}")
        assert _digests(host, image) == digests
        assert [len(found) for found in listed] == [1]
        assert set(listed[0]) < set(digests)
    assert remove(host, other)


def _layers(host: ContractHost, image: ImageID) -> tuple[str, ...]:
    found = host.engine.inspect_image(image)
    assert found is not None
    return found.layers


def _digests(host: ContractHost, image: ImageID) -> tuple[str, ...]:
    found = host.engine.inspect_image(image)
    assert found is not None
    return found.digests


def _tag_time(host: ContractHost, image: ImageID) -> object:
    found = host.engine.inspect_image(image)
    assert found is not None
    assert found.last_tag_time is not None
    return found.last_tag_time
