"""Answers of real engines, cut down to what is read of them, become values."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from caisson import docker_answers as answers
from caisson.engine import ContainerID, ContainerInfo, EngineEvent, ImageID, ImageInfo, Layer

VOLUME = "0a" * 32
MOUNTS = [
    {"Type": "volume", "Name": VOLUME, "Destination": "/v"},
    {"Type": "bind", "Source": "/srv", "Destination": "/srv"},
    {"Type": "tmpfs", "Name": "", "Destination": "/tmp"},
]


def test_a_listed_container_has_its_own_name_and_its_volumes() -> None:
    row = {
        "Id": "c",
        "Names": ["/other/alias", "/web"],
        "State": "running",
        "Labels": {"team": "a"},
        "ImageID": "sha256:1",
        "Image": "app:1",
        "Mounts": MOUNTS,
    }
    assert answers.listed_container(row) == ContainerInfo(
        ContainerID("c"), "web", "running", {"team": "a"}, 0, row, ImageID("sha256:1"), "app:1", None, (VOLUME,)
    )


@pytest.mark.parametrize(
    ("finished", "known"),
    [("2026-01-02T03:04:05.123456789Z", datetime(2026, 1, 2, 3, 4, 5, 123456, UTC)), ("0001-01-01T00:00:00Z", None)],
)
def test_an_inspected_container_tells_its_end_and_its_volumes(finished: str, known: datetime | None) -> None:
    raw = {
        "Id": "c",
        "Name": "/web",
        "State": {"Status": "exited", "FinishedAt": finished, "Pid": 7},
        "Config": {"Labels": None, "Image": "app:1"},
        "Image": "sha256:1",
        "Mounts": MOUNTS,
    }
    found = answers.inspected_container(raw)
    assert (found.name, found.state, found.pid, found.labels) == ("web", "exited", 7, {})
    assert (found.image, found.image_name) == ("sha256:1", "app:1")
    assert (found.finished, found.volumes) == (known, (VOLUME,))


def test_what_a_row_leaves_out_is_empty() -> None:
    assert answers.listed_container({"Id": "c", "State": "created"}).volumes == ()
    image = answers.listed_image({"Id": "sha256:1", "RepoTags": ["<none>:<none>"], "Labels": None, "ParentId": ""})
    assert image == ImageInfo(ImageID("sha256:1"), (), (), {}, 0, (), "")
    assert answers.inspected_image({"Id": "sha256:1"}).layers == ()
    assert answers.inspected_image({"Id": "sha256:1", "Config": {"OnBuild": None}}).triggers == ()
    assert answers.inspected_image({"Id": "sha256:1", "Config": {"OnBuild": ["RUN a"]}}).triggers == ("RUN a",)
    assert answers.event({"time": 5}) == EngineEvent(5_000_000_000, "", "", "")


def test_the_history_of_an_image_begins_with_its_oldest_step() -> None:
    rows = [{"Size": 2, "Created": 20}, {"Size": 1, "Created": 10}]
    assert answers.layers(rows) == [Layer(1, 10), Layer(2, 20)]


@pytest.mark.parametrize(
    ("read", "answer"),
    [
        (answers.listed_container, {"Id": "c"}),
        (answers.inspected_container, {"Id": "c", "Name": "/web", "State": None}),
        (answers.listed_image, {}),
        (answers.inspected_image, {"Id": "i", "Size": "large"}),
        (answers.event, {}),
    ],
)
def test_an_answer_that_is_none_raises(read: Any, answer: dict[str, Any]) -> None:
    with pytest.raises((KeyError, TypeError, ValueError)):
        read(answer)
