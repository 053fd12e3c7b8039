"""What is deployed is what services run and ran, not what tags point to."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from caisson.deployed import deployed, running
from caisson.engine import ContainerID, ContainerInfo, ImageID
from caisson.ledger.services import ServiceImage
from caisson.plan import LABEL_BUILD, container_name

A, B, C = (ImageID(f"sha256:{letter}") for letter in "abc")
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
