"""What is deployed is what services run and ran, not what tags point to."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from caisson.deployed import deployed, ran, running
from caisson.engine import ContainerID, ContainerInfo, EngineEvent, ImageID
from caisson.engine_events import ImageNames
from caisson.ledger.services import ServiceImage
from caisson.plan import LABEL_BUILD, container_name

A, B, C = (ImageID(f"sha256:{letter}") for letter in "abc")
NOW = datetime(2030, 1, 1, tzinfo=UTC)
COMPOSE = {"com.docker.compose.project": "shop", "com.docker.compose.service": "web"}


def _container(name: str, image: ImageID, state: str = "running", **labels: str) -> ContainerInfo:
    return ContainerInfo(ContainerID(name), name, state, labels, image=image)


def _seen(service: str, *images: ImageID) -> list[ServiceImage]:
    """Each image a day after the one before."""
    start = datetime(2030, 1, 1, tzinfo=UTC)
    return [ServiceImage(service, image, start + timedelta(days=day)) for day, image in enumerate(images)]


def test_the_last_image_of_a_service_is_current_and_those_before_it_count_up() -> None:
    assert deployed(_seen("web", A, B, C)) == {C: 0, B: 1, A: 2}


def test_an_image_of_several_services_has_its_least_rank() -> None:
    assert deployed([*_seen("web", A, B, C), *_seen("worker", B, A)]) == {C: 0, A: 0, B: 1}


def test_images_that_run_side_by_side_are_both_current() -> None:
    both = [*_seen("web", A, B), *_seen("web", C, C)[1:]]
    assert deployed(both) == {B: 0, C: 0, A: 1}


def test_what_was_only_ever_run_with_one_image_deploys_nothing() -> None:
    assert deployed([*_seen("elated_hopper", A), *_seen("web", B)]) == {}


def test_a_service_keeps_its_name_when_its_container_is_replaced() -> None:
    containers = [
        _container("shop-web-1", A, **COMPOSE),
        _container("shop-web-2", B, **COMPOSE),
        _container("api.1.x9", C, **{"com.docker.swarm.service.name": "api"}),
        _container("db", A),
    ]
    assert running(containers) == {("compose shop/web", A), ("compose shop/web", B), ("swarm api", C), ("db", A)}


@pytest.mark.parametrize(
    ("state", "runs"),
    [("running", True), ("paused", True), ("restarting", True), ("created", False), ("exited", False), ("dead", False)],
)
def test_only_what_runs_is_deployed(state: str, runs: bool) -> None:
    assert running([_container("web", A, state)]) == ({("web", A)} if runs else set())


def test_builders_and_what_has_no_name_or_image_are_no_services() -> None:
    builder = _container(container_name("7"), A, **{LABEL_BUILD: "7"})
    assert running([builder, _container("", A), _container("web", ImageID(""))]) == set()


def _event(minute: int, action: str, image: str, name: str = "web", **labels: str) -> EngineEvent:
    at = (NOW - timedelta(minutes=60 - minute) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) * 1000
    return EngineEvent(at, "container", action, "c", {**labels, "image": image, "name": name})


def _ran(*events: EngineEvent, services: Collection[str] = ("web",)) -> dict[tuple[str, str], int]:
    """By service and image, the minute of the last word of it."""
    names = ImageNames({A, B, C})
    for image, letter in ((A, "a"), (B, "b"), (C, "c")):
        names.add(image, [f"app:{letter}"])
    names.add(C, ["app:b"])
    found = ran(events, names, services, NOW)
    return {(one.service, one.image): 60 - (NOW - one.last_seen) // timedelta(minutes=1) for one in found}


def test_events_tell_what_ran_and_until_when() -> None:
    events = (
        _event(1, "start", "app:a"),
        _event(9, "die", "app:a"),
        _event(2, "start", A),
        _event(3, "create", "app:c"),
    )
    assert _ran(*events) == {("web", A): 9}


def test_a_name_stands_for_every_image_that_had_it() -> None:
    assert _ran(_event(1, "start", "app:b")) == {("web", B): 1, ("web", C): 1}


def test_a_moment_that_is_to_come_is_now() -> None:
    assert _ran(_event(90, "start", "app:a")) == {("web", A): 60}


def test_a_containers_own_name_counts_only_where_a_look_has_seen_it() -> None:
    assert _ran(_event(1, "start", "app:a", "elated_hopper"), _event(1, "start", "app:a", "")) == {}
    compose = _event(1, "start", "app:a", "shop-web-1", **COMPOSE)
    swarm = _event(1, "start", "app:a", "api.1.x9", **{"com.docker.swarm.service.name": "api"})
    assert set(_ran(compose, swarm, services=())) == {("compose shop/web", A), ("swarm api", A)}


def test_what_is_no_container_and_what_is_a_builder_ran_as_nothing() -> None:
    image = replace(_event(1, "start", "app:a"), type="image")
    builder = _event(1, "start", "app:a", container_name("7"), **{LABEL_BUILD: "7"})
    assert _ran(image, builder, _event(1, "start", "nobody:1"), services=("web", container_name("7"))) == {}
