"""When an image was last used: nothing makes it older, and what is not known makes it used now."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from caisson.engine import EngineEvent, ImageID, ImageInfo
from caisson.engine_events import ImageNames, registries_of, registry_transfers, replay, uses_of
from caisson.last_use import Evidence, Use, last_uses, latest

NOW = datetime(2030, 1, 1, tzinfo=UTC)
A, B, C = (ImageID("sha256:" + letter * 64) for letter in "abc")


def _ago(hours: float) -> datetime:
    return NOW - timedelta(hours=hours)


def _event(
    number: int, type: str = "container", action: str = "start", subject: str = "c", **attributes: str
) -> EngineEvent:
    at = int((_ago(1) - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds()) * 10**9 + number
    return EngineEvent(at, type, action, subject, attributes)


def test_nothing_known_is_used_now_and_the_future_is_now() -> None:
    assert latest([], now=NOW).at == NOW
    assert latest([Use(_ago(2), "tagged"), Use(_ago(-5), "run")], now=NOW).at == NOW
    assert latest([Use(_ago(2), "tagged"), Use(_ago(3), "run")], now=NOW) == Use(_ago(2), "tagged")


def test_an_image_lends_its_use_to_those_that_it_begins_with_and_to_no_others() -> None:
    images = {
        A: Evidence(("l1",), (Use(_ago(100), "tagged"),)),
        B: Evidence(("l1", "l2"), (Use(_ago(1), "container start"),)),
        C: Evidence(("l1", "l2", "l3"), (Use(_ago(50), "tagged"),)),
    }
    uses = last_uses(images, now=NOW)
    assert uses[A] == Use(_ago(1), "container start (an image made of it)")
    assert uses[B] == Use(_ago(1), "container start")
    assert uses[C] == Use(_ago(50), "tagged")


def test_an_image_without_layers_is_the_beginning_of_all() -> None:
    images = {A: Evidence((), (Use(_ago(9), "tagged"),)), B: Evidence(("l",), (Use(_ago(2), "run"),))}
    assert last_uses(images, now=NOW)[A].at == _ago(2)


_images = st.dictionaries(
    st.sampled_from([ImageID(f"sha256:{n}") for n in range(6)]),
    st.builds(
        Evidence,
        st.integers(0, 4).map(lambda depth: tuple(f"l{n}" for n in range(depth))),
        st.lists(st.floats(-50, 50).map(lambda hours: Use(_ago(hours), "used"))).map(tuple),
    ),
    min_size=1,
)


@given(_images)
def test_a_base_is_never_older_than_what_is_made_of_it_and_nothing_is_in_the_future(
    images: dict[ImageID, Evidence],
) -> None:
    uses = last_uses(images, now=NOW)
    for image, evidence in images.items():
        assert uses[image].at <= NOW
        assert all(uses[image].at >= min(use.at, NOW) for use in evidence.uses)
        for other, made in images.items():
            if made.layers[: len(evidence.layers)] == evidence.layers:
                assert uses[image].at >= uses[other].at


@given(_images, st.data())
def test_one_more_sign_of_use_makes_no_image_older(images: dict[ImageID, Evidence], data: st.DataObject) -> None:
    before = last_uses(images, now=NOW)
    image = data.draw(st.sampled_from(sorted(images)))
    more = Use(_ago(data.draw(st.floats(-50, 50))), "more")
    images[image] = Evidence(images[image].layers, (Use(before[image].at, "before"), *images[image].uses, more))
    after = last_uses(images, now=NOW)
    assert all(after[image].at >= before[image].at for image in images)


def test_a_replay_is_complete_only_from_an_event_that_is_still_there() -> None:
    events = [_event(n) for n in range(5)]
    first = replay(events, ())
    assert (first.events, first.is_complete) == (tuple(events), False)
    assert replay(events, first.anchor) == replay(events, first.anchor)
    assert (replay(events, first.anchor).events, replay(events, first.anchor).is_complete) == ((), True)
    more = [*events[2:], _event(7), _event(8)]
    assert replay(more, first.anchor).events == (_event(7), _event(8))
    assert replay(more, first.anchor).is_complete
    # The ring ran over, or the engine was started anew.
    assert not replay([_event(7), _event(8)], first.anchor).is_complete
    empty = replay([], first.anchor)
    assert (empty.is_complete, empty.anchor) == (False, ())
    # Nothing says that an engine which had no event then is the same one.
    assert not replay([_event(9)], empty.anchor).is_complete


def test_a_clock_that_goes_back_hides_no_event() -> None:
    events = [_event(5), _event(9), _event(1), _event(2)]
    anchor = replay(events[:2], ()).anchor
    assert replay(events, anchor).events == (_event(1), _event(2))


def _names() -> ImageNames:
    names = ImageNames([A, B, C])
    names.add(A, ["team/app:1", "debian:trixie"])
    names.add(B, ["team/app:1", f"team/app@sha256:{'1' * 64}"])
    return names


def test_a_name_stands_for_all_that_it_may_have_stood_for() -> None:
    names = _names()
    assert names.find("team/app:1") == {A, B}
    assert names.find("docker.io/library/debian:trixie") == {A}
    assert names.find(f"team/app:9@sha256:{'1' * 64}") == {B}
    assert names.find(C) == names.find("c" * 12) == names.find("sha256:cc") == {C}
    assert names.find("team/app") == names.find("Not A Name") == names.find("") == frozenset()


def test_a_tag_that_was_set_and_taken_away_in_between_counts() -> None:
    names = _names()
    names.add_tags_of([_event(1, "image", "tag", C, name="short/lived:1")])
    assert uses_of([_event(2, image="short/lived:1")], names)[C].how == "container start"


def test_uses_are_told_by_containers_and_images_and_not_by_removals() -> None:
    events = [
        _event(1, "image", "pull", "debian:trixie", name="debian"),
        _event(2, "image", "untag", B),
        _event(3, "image", "delete", B),
        _event(4, "image", "something new", C),
        _event(5, "container", "exec_create: /bin/check", "c", image="debian:trixie"),
        _event(6, "network", "connect", "n", container="c", image="team/app:1"),
        _event(7, "volume", "create", C),
    ]
    uses = uses_of(events, _names())
    assert {image: use.how for image, use in uses.items()} == {A: "container exec_create", C: "something new"}
    assert uses[A].at < NOW


def test_a_name_that_nobody_is_known_to_have_had_may_be_one_that_was_taken_away() -> None:
    events = [_event(1, image="short/lived:1"), _event(2, "image", "untag", C, name=C)]
    assert {image: use.how for image, use in uses_of(events, _names()).items()} == {C: "container start"}
    assert uses_of([_event(1, image="short/lived:1"), _event(2, "image", "untag", "sha256:0")], _names()).keys() <= {
        "sha256:0"
    }


def _named(image: ImageID, tagged: datetime | None) -> ImageInfo:
    return ImageInfo(image, (), (), {}, 0, (), "", last_tag_time=tagged)


def test_a_registry_has_what_had_the_name_when_it_was_pulled_or_pushed_and_nothing_else() -> None:
    events = [
        _event(1, "image", "pull", "debian:trixie", name="debian"),
        _event(2, "image", "push", "team/app:1", name="team/app"),
        _event(3, "image", "push", "team/moved:1", name="team/moved"),
        _event(4, "image", "push", "team/gone:1", name="team/gone"),
        _event(5, "image", "push", "team/undated:1", name="team/undated"),
        _event(6, "image", "pull", "all/of:1", name="all/of"),
        _event(7, "image", "pull", "all/of", name="all/of"),
        _event(8, "image", "tag", C, name="elsewhere/app:1"),
    ]
    transfers = registry_transfers(events)
    assert transfers.keys() == {
        "debian:trixie", "team/app:1", "team/moved:1", "team/gone:1", "team/undated:1", "all/of:1",
    }  # fmt: skip
    images = {
        "debian:trixie": _named(A, transfers["debian:trixie"]),
        "team/app:1": _named(A, transfers["team/app:1"] - timedelta(days=1)),
        # It may have got this name after the push, from another image that had it then.
        "team/moved:1": _named(B, transfers["team/moved:1"] + timedelta(seconds=1)),
        "team/gone:1": None,
        "team/undated:1": _named(C, None),
    }
    assert registries_of(transfers, images) == {A: {"docker.io/library/debian", "docker.io/team/app"}}
