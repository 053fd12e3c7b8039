"""What the reaper takes for a builder of a dead build, on real engines."""

from __future__ import annotations

import io
import json
import tarfile
import time
import uuid
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta

import docker
import pytest

from caisson.build_group import hold_group
from caisson.engine import ContainerID, Engine, ImageID
from caisson.leases import Leases
from caisson.ledger import Ledger
from caisson.reaping import Word
from caisson.settings import Settings
from caisson.spec import Limits
from tasks.reap import Reaper
from tests.conftest import EngineHost

FLOW_RUN = str(uuid.uuid4())


class Containers:
    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.made: list[ContainerID] = []

    def create(self, *, name: str = "", flow_run: str = FLOW_RUN, deadline: str = "") -> str:
        """A container with a builder's labels, never started; returns its name."""
        build = uuid.uuid4().hex[:12]
        labels = {"caisson.build": build, "caisson.flow-run": flow_run, "caisson.deadline": deadline}
        body = {"Image": "debian:trixie-slim", "Cmd": ["true"], "Labels": labels, "HostConfig": {"AutoRemove": True}}
        name = name or f"caisson-build-{build}"
        self.made.append(self.engine.create_container(name, body))
        return name

    def run_step(self, group: str) -> str:
        """A container that has ended as a RUN step of the classic builder in that control group does; its name."""
        name = f"step-{uuid.uuid4().hex[:8]}"
        body = {"Image": "debian:trixie-slim", "Cmd": ["true"], "HostConfig": {"CgroupParent": group}}
        self.made.append(self.engine.create_container(name, body))
        self.engine.start_container(self.made[-1])
        deadline = time.monotonic() + 30
        while (found := self.engine.inspect_container(self.made[-1])) is None or found.state != "exited":
            assert time.monotonic() < deadline
            time.sleep(0.05)
        return name

    def left(self) -> list[str]:
        found = [self.engine.inspect_container(container) for container in self.made]
        return [item.name for item in found if item is not None]


@pytest.fixture
def containers(engine: Engine) -> Iterator[Containers]:
    made = Containers(engine)
    yield made
    for container in made.made:
        engine.remove_container(container)


def _in(minutes: float) -> str:
    return (datetime.now(UTC) + timedelta(minutes=minutes)).isoformat(timespec="seconds")


def test_the_builders_of_a_run_are_reaped_and_no_others(settings: Settings, containers: Containers) -> None:
    other = str(uuid.uuid4())
    gone, kept = containers.create(), containers.create(flow_run=other)
    reaper = Reaper(settings)
    assert reaper.owners() >= {FLOW_RUN, other}
    assert reaper.reap(FLOW_RUN) == [gone]
    assert containers.left() == [kept]
    assert FLOW_RUN not in reaper.owners()


def test_a_container_that_has_a_builders_labels_from_its_image_is_none(
    settings: Settings, containers: Containers
) -> None:
    forged = containers.create(name=f"shop-{uuid.uuid4().hex[:8]}", deadline=_in(-60))
    reaper = Reaper(settings)
    assert FLOW_RUN not in reaper.owners()
    assert reaper.reap(FLOW_RUN) == []
    assert forged not in reaper.reap_overdue({FLOW_RUN: Word.DEAD})
    assert containers.left() == [forged]


def test_a_builder_that_was_never_started_goes_after_its_deadline(settings: Settings, containers: Containers) -> None:
    overdue = containers.create(deadline=_in(-5))
    kept = [containers.create(deadline=deadline) for deadline in (_in(5), _in(-0.5), "", "soon", "2026-01-01T00:00:00")]
    assert overdue in Reaper(settings).reap_overdue({FLOW_RUN: Word.DEAD})
    assert containers.left() == kept


def test_only_a_run_that_prefect_says_is_dead_loses_its_builder(settings: Settings, containers: Containers) -> None:
    overdue = containers.create(deadline=_in(-5))
    reaper = Reaper(settings)
    for words in ({}, {FLOW_RUN: Word.LIVE}, {FLOW_RUN: Word.NONE}, {str(uuid.uuid4()): Word.DEAD}):
        assert overdue not in reaper.reap_overdue(words)
    assert containers.left() == [overdue]
    assert overdue in reaper.reap_overdue({FLOW_RUN: Word.DEAD})
    assert containers.left() == []


def test_a_living_process_keeps_its_builder_whatever_prefect_says(settings: Settings, containers: Containers) -> None:
    overdue = containers.create(deadline=_in(-5))
    reaper = Reaper(settings)
    leases = Leases(settings.state_dir / "leases", Ledger(settings.state_dir / "ledger.sqlite").leases)
    with leases.hold(overdue, [], taken=datetime.now(UTC)):
        assert overdue not in reaper.reap_overdue({FLOW_RUN: Word.DEAD})
    assert overdue in reaper.reap_overdue({FLOW_RUN: Word.DEAD})


def test_a_step_that_its_engine_has_lost_goes_when_no_build_holds_its_group(
    settings: Settings, engine: Engine, containers: Containers, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = Limits(cpus=1, memory=64 << 20, pids=64, workspace=1 << 20, timeout_seconds=60)
    with hold_group(uuid.uuid4().hex[:12], limits, engine.info()) as group:
        assert group.path
        step, other = containers.run_step(group.path), containers.run_step("")
        with monkeypatch.context() as patch:
            patch.setattr("caisson.reaping._OVERDUE", timedelta(0))
            assert step not in Reaper(settings).reap_overdue({})
    assert step not in Reaper(settings).reap_overdue({}), "it has ended just now"
    monkeypatch.setattr("caisson.reaping._OVERDUE", timedelta(0))
    assert step in Reaper(settings).reap_overdue({})
    assert containers.left() == [other]


@pytest.fixture
def image(engine_host: EngineHost, engine: Engine) -> Iterator[str]:
    """The ID of an image of its own; all its tags are gone afterwards."""
    with closing(docker.APIClient(base_url=engine_host.docker_host, version="auto")) as client:
        made = client.import_image_from_data(_tar(), repository="caisson-test/reaper", tag="made")
        image_id = json.loads(made.splitlines()[-1])["status"]
        yield image_id
    there = engine.inspect_image(image_id)
    for tag in there.tags if there else ():
        engine.untag_image(tag)


def _tar() -> bytes:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        tar.addfile(tarfile.TarInfo(uuid.uuid4().hex))
    return archive.getvalue()


def test_the_name_of_a_dead_builds_image_is_removed_when_that_is_not_new_any_more(
    settings: Settings, engine: Engine, containers: Containers, image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    alive = containers.create().removeprefix("caisson-build-")
    dead, live, other = (f"caisson.local/build:{name}" for name in (uuid.uuid4().hex[:12], alive, "latest"))
    for reference in (dead, live, other):
        engine.tag_image(ImageID(image), reference)
    assert dead not in Reaper(settings).reap_overdue({})
    monkeypatch.setattr("caisson.reaping._OVERDUE", timedelta(seconds=1))
    brief = Reaper(settings)
    time.sleep(2.1)
    assert engine.inspect_image(dead) is not None
    assert dead in brief.reap_overdue({})
    engine.tag_image(ImageID(image), dead)
    assert dead not in brief.reap_overdue({}), "images are not listed each time"
    assert engine.untag_image(dead)
    found = engine.inspect_image(image)
    assert found is not None
    assert {live, other} <= set(found.tags)
    assert dead not in found.tags
