"""Which names of images under construction are those of dead builds."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from caisson.builder import leftover_references
from caisson.engine import ContainerID, ContainerInfo, ImageID, ImageInfo
from caisson.plan import container_name, reference_under_construction

NOW = datetime(2030, 1, 2, tzinfo=UTC)
LONGEST = timedelta(hours=4)
DEAD, LIVE = "0123456789ab", "ba9876543210"


def _image(*tags: str, age: timedelta = timedelta(days=1), created: str = "") -> ImageInfo:
    made = created or str(int((NOW - age).timestamp()))
    return ImageInfo(ImageID("sha256:1"), tags, (), {}, 1, (), made)


def _leftovers(*images: ImageInfo) -> list[str]:
    builder = ContainerInfo(ContainerID("c"), container_name(LIVE), "created", {})
    return leftover_references(images, [builder], now=NOW, longest=LONGEST)


def test_only_the_name_of_a_build_without_a_builder_is_left_over() -> None:
    dead, live = reference_under_construction(DEAD), reference_under_construction(LIVE)
    assert _leftovers(_image(dead, "team/app:1", live), _image(live), _image("debian:trixie")) == [dead]


def test_a_young_image_is_left_alone() -> None:
    dead = reference_under_construction(DEAD)
    assert _leftovers(_image(dead, age=LONGEST)) == []
    assert _leftovers(_image(dead, age=LONGEST + timedelta(seconds=1))) == [dead]
    for created in ("2029-01-01T00:00:00Z", "-1", "0.5"):
        assert _leftovers(_image(dead, created=created)) == []


@pytest.mark.parametrize(
    "name",
    [
        "caisson.local/build:latest",
        "caisson.local/build:0123456789AB",
        f"caisson.local/build:{DEAD}0",
        f"caisson.local/other:{DEAD}",
        f"caisson.local:5000/build:{DEAD}",
        f"evil/caisson.local/build:{DEAD}",
        f"team/app:{DEAD}",
    ],
)
def test_any_other_name_is_not_caissons_to_remove(name: str) -> None:
    assert _leftovers(_image(name)) == []
