"""Removals by real engines: what is asked for goes, what is in use is refused, and nothing goes with it by the way."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from caisson.docker_engine import DockerEngine
from caisson.engine import ContainerID, Engine, EngineEvent, ImageID
from caisson.engine_disk import EngineDisk
from caisson.errors import RemovalRefused
from tests.conftest import EngineHost
from tests.engine.made import BASE, Made, made_on
from tests.engine.registry import docker_registry
from tests.own_engine import OwnEngine, copy_image, own_engine

SECONDS = 60.0
OWN_ADDRESS = "10.231.80.1"


@pytest.fixture
def made(engine_host: EngineHost) -> Iterator[Made]:
    with made_on(engine_host) as things:
        yield things


def test_a_container_that_runs_is_refused_and_goes_when_it_has_ended(engine: Engine, made: Made) -> None:
    container = ContainerID(made.container(BASE, "sleep", "600", start=True))
    with pytest.raises(RemovalRefused, match=f"remove the container {container[:12]}: .*running"):
        engine.remove_ended_container(container)
    assert made.state(container) == "running"
    made.api.kill(container)
    made.api.wait(container)
    assert engine.remove_ended_container(container)
    assert made.state(container) == ""
    assert not engine.remove_ended_container(container)


def test_a_paused_container_is_refused(engine: Engine, made: Made) -> None:
    container = ContainerID(made.container(BASE, "sleep", "600", start=True))
    made.api.pause(container)
    with pytest.raises(RemovalRefused):
        engine.remove_ended_container(container)
    assert made.state(container) == "paused"
    made.api.unpause(container)


def test_a_container_leaves_its_volumes(engine: Engine, made: Made) -> None:
    container = ContainerID(made.container(BASE, volumes=("/anonymous", f"{made.name}:/named")))
    volumes = made.volumes_of(container)
    assert len(volumes) == 2
    assert engine.remove_ended_container(container)
    assert [made.has_volume(volume) for volume in volumes] == [True, True]


def test_a_volume_that_a_container_has_is_refused_and_goes_when_that_is_gone(engine: Engine, made: Made) -> None:
    container = ContainerID(made.container(BASE, volumes=("/anonymous",)))
    (volume,) = made.volumes_of(container)
    with pytest.raises(RemovalRefused, match=f"remove the volume {volume[:12]}: .*in use"):
        engine.remove_volume(volume)
    assert made.has_volume(volume)
    assert engine.remove_ended_container(container)
    assert engine.remove_volume(volume)
    assert not made.has_volume(volume)
    assert not engine.remove_volume(volume)


def test_an_image_with_one_tag_goes_by_its_id(engine: Engine, made: Made) -> None:
    image = made.image("one")
    assert engine.remove_image(image, timeout=SECONDS)
    assert not made.has_image(image)
    assert not engine.remove_image(image, timeout=SECONDS)


@pytest.mark.parametrize("second", ["NAME:two", "NAME/other:one"])
def test_an_image_with_two_tags_is_refused_by_its_id_and_keeps_both(engine: Engine, made: Made, second: str) -> None:
    """Engine 26.1 and 20.10 alike: also where both tags are of one repository."""
    image = made.image("one")
    made.tag(image, second.replace("NAME", made.name))
    before = made.tags(image)
    assert len(before) == 2
    with pytest.raises(RemovalRefused, match="must be forced"):
        engine.remove_image(image, timeout=SECONDS)
    assert made.tags(image) == before


@pytest.mark.parametrize("by", ["id", "tag"])
def test_an_image_of_a_stopped_container_is_refused_and_keeps_its_tag(engine: Engine, made: Made, by: str) -> None:
    image = made.image("one")
    made.container(image)
    name = image if by == "id" else f"{made.name}:one"
    with pytest.raises(RemovalRefused, match="container"):
        engine.remove_image(name, timeout=SECONDS)
    assert made.tags(image) == [f"{made.name}:one"]


def test_an_image_that_another_stands_on_is_refused_and_keeps_its_tag(engine: Engine, made: Made) -> None:
    parent = made.image("parent")
    child = made.image("child", base=f"{made.name}:parent")
    with pytest.raises(RemovalRefused, match="dependent child"):
        engine.remove_image(parent, timeout=SECONDS)
    assert made.tags(parent) == [f"{made.name}:parent"]
    assert engine.remove_image(child, timeout=SECONDS)
    assert engine.remove_image(parent, timeout=SECONDS)


def test_by_a_tag_only_that_tag_goes_and_the_last_one_takes_the_image(engine: Engine, made: Made) -> None:
    image = made.image("one")
    made.tag(image, f"{made.name}:two")
    assert engine.remove_image(f"{made.name}:one", timeout=SECONDS)
    assert made.tags(image) == [f"{made.name}:two"]
    assert not engine.remove_image(f"{made.name}:one", timeout=SECONDS)
    assert engine.remove_image(f"{made.name}:two", timeout=SECONDS)
    assert not made.has_image(image)


def test_the_untagged_steps_below_an_image_stay(engine: Engine, made: Made) -> None:
    image = made.image("app", steps=2)
    step = made.api.inspect_image(image)["Parent"]
    assert step
    assert engine.remove_image(image, timeout=SECONDS)
    assert made.has_image(step)
    assert engine.remove_image(ImageID(step), timeout=SECONDS)
    assert not made.has_image(step)


@pytest.mark.parametrize(
    "name",
    [
        "sha256:" + "0" * 64,
        "caisson-test/none:1",
        "registry.example.com:5000/team/none:1",
        f"caisson-test/none@sha256:{'0' * 64}",
        f"registry.example.com:5000/team/none:1@sha256:{'0' * 64}",
    ],
)
def test_what_is_not_there_is_told_and_is_no_failure(engine: Engine, name: str) -> None:
    assert not engine.remove_image(name, timeout=SECONDS)


def test_a_registrys_tag_and_digest_go_by_their_names(
    engine_host: EngineHost, engine: Engine, made: Made, tmp_path: Path
) -> None:
    image = made.image("one")
    with docker_registry(tmp_path / "registry", engine_host.socket) as registry:
        reference = f"{registry.address}/team/{made.name}:v1"
        made.tag(image, reference)
        for _ in engine.push_image(reference, registry.auth):
            pass
        digest = f"{registry.address}/team/{made.name}@{registry.digest(f'team/{made.name}', 'v1')}"
    assert made.api.inspect_image(image)["RepoDigests"] == [digest]
    assert engine.remove_image(digest, timeout=SECONDS)
    assert made.api.inspect_image(image)["RepoDigests"] == []
    assert made.tags(image) == sorted([f"{made.name}:one", reference])
    assert engine.remove_image(reference, timeout=SECONDS)
    assert made.tags(image) == [f"{made.name}:one"]


def test_an_image_with_a_digest_of_another_repository_goes_by_its_id_when_that_name_has_gone(
    engine_host: EngineHost, engine: Engine, made: Made, tmp_path: Path
) -> None:
    """As one that was pulled by digest and then tagged: a digest goes along with the last tag of its own repository."""
    image = made.image("one")
    with docker_registry(tmp_path / "registry", engine_host.socket) as registry:
        repository = f"{registry.address}/team/{made.name}"
        made.tag(image, f"{repository}:v1")
        for _ in engine.push_image(f"{repository}:v1", registry.auth):
            pass
        digest = registry.digest(f"team/{made.name}", "v1")
        assert engine.remove_image(f"{repository}:v1", timeout=SECONDS)
        assert made.api.inspect_image(image)["RepoDigests"] == []
        login = {"username": registry.auth.username, "password": registry.auth.password}
        made.api.pull(repository, tag=digest, auth_config=login)
    with pytest.raises(RemovalRefused, match="must be forced"):
        engine.remove_image(image, timeout=SECONDS)
    assert made.tags(image) == [f"{made.name}:one"]
    assert made.api.inspect_image(image)["RepoDigests"] == [f"{repository}@{digest}"]
    assert engine.remove_image(f"{repository}@{digest}", timeout=SECONDS)
    assert engine.remove_image(image, timeout=SECONDS)
    assert not made.has_image(image)


def test_of_events_since_a_moment_none_is_lost_and_none_comes_twice(engine: Engine, made: Made) -> None:
    image = made.image("one")
    for number in range(5):
        made.tag(image, f"{made.name}:tag-{number}")

    def own(since_ns: int = 0) -> list[EngineEvent]:
        return [event for event in engine.events(since_ns=since_ns) if made.name in event.attributes.get("name", "")]

    every = own()
    assert [event.action for event in every] == ["tag"] * 6
    for index, event in enumerate(every):
        assert own(event.time_ns) == every[index:]
        assert own(event.time_ns + 1) == every[index + 1 :]
    assert own(every[-1].time_ns + 3600 * 10**9) == []


def test_a_mount_of_an_anonymous_volume_is_an_event_of_its_name(engine: Engine, made: Made) -> None:
    container = made.container(BASE, volumes=("/anonymous",), start=True)
    made.api.wait(container)
    (volume,) = made.volumes_of(container)
    events = [event for event in engine.events() if event.type == "volume" and event.subject == volume]
    assert [event.action for event in events] == ["create", "mount", "unmount"]


@pytest.fixture(scope="module")
def own(engine_host: EngineHost) -> Iterator[OwnEngine]:
    """For on a shared engine it would be others' cache that goes."""
    with own_engine(OWN_ADDRESS, root=engine_host.root) as engine:
        copy_image(BASE, engine_host, engine.host)
        yield engine


class Builds:
    """BuildKit builds on an engine whose cache is nobody else's."""

    def __init__(self, engine: OwnEngine, buildx: Path, directory: Path) -> None:
        self.engine, self.buildx, self.directory = engine, buildx, directory
        self.docker = DockerEngine(engine.host.docker_host)

    def start(self, name: str, *steps: str, tag: str = "") -> subprocess.Popen[bytes]:
        context = self.directory / name
        context.mkdir()
        (context / "Dockerfile").write_text("\n".join((f"FROM {BASE}", *steps)))
        options = ["--progress=plain", "--provenance=false", *([f"--tag={tag}"] if tag else [])]
        env = {"DOCKER_HOST": self.engine.host.docker_host, "HOME": str(self.directory), "PATH": os.environ["PATH"]}
        with (context / "log").open("wb") as log:
            command = [str(self.buildx), "build", *options, str(context)]
            return subprocess.Popen(command, env=env, stdout=log, stderr=log)

    def build(self, name: str, *steps: str, tag: str = "") -> None:
        """Without a tag its result is removed, so that nothing but the cache holds its layers."""
        assert self.start(name, *steps, tag=tag).wait(SECONDS) == 0, self.log(name)
        for image in self.docker.list_images():
            if not image.tags:
                self.docker.remove_image(image.id, timeout=SECONDS)

    def log(self, name: str) -> str:
        return (self.directory / name / "log").read_text()

    def disk(self) -> EngineDisk:
        return self.docker.disk_usage(timeout=SECONDS)

    def total(self) -> int:
        """What images hold too is not counted: BuildKit leaves it be."""
        return sum(record.size for record in self.disk().cache if not record.shared)

    def prune(self, keep_bytes: int) -> int:
        return self.docker.prune_build_cache(keep_bytes=keep_bytes, timeout=SECONDS)


@pytest.fixture
def own_builds(own: OwnEngine, buildx: tuple[Path, ...], tmp_path: Path) -> Iterator[Builds]:
    builds = Builds(own, buildx[0], tmp_path)
    yield builds
    builds.docker.close()


MEGABYTES = 4_000_000


def _write(name: str) -> str:
    return f"RUN head -c {MEGABYTES} /dev/urandom > /{name}"


def test_the_build_cache_is_brought_down_to_what_is_kept_and_no_further(own_builds: Builds) -> None:
    for number in range(3):
        own_builds.build(f"build-{number}", f"ENV number={number}", _write("file"))
    before = own_builds.disk().cache
    total = own_builds.total()
    assert total >= 3 * MEGABYTES
    assert all(record.id for record in before)
    assert any(record.last_used for record in before)
    # At the very number it takes one record more.
    assert own_builds.prune(total + 1) == 0
    assert {record.id for record in own_builds.disk().cache} == {record.id for record in before}
    keep = total - MEGABYTES // 2
    freed = own_builds.prune(keep)
    after = own_builds.total()
    assert keep - 2 * MEGABYTES < after <= keep
    assert freed == pytest.approx(total - after, rel=0.01)


def test_cache_that_an_image_holds_too_stays_and_is_not_counted(own_builds: Builds) -> None:
    own_builds.build("held", "ENV held=1", _write("held"), tag="held:1")
    own_builds.build("alone", "ENV alone=1", _write("alone"))
    held = {record.id for record in own_builds.disk().cache if record.shared and record.size}
    assert held
    total = own_builds.total()
    assert sum(record.size for record in own_builds.disk().cache) >= total + MEGABYTES
    assert own_builds.prune(total + 1) == 0
    assert own_builds.prune(1) == total
    assert {record.id for record in own_builds.disk().cache if record.size} == held
    assert own_builds.docker.untag_image("held:1")


def test_cache_that_a_build_uses_stays_and_the_build_goes_on(own_builds: Builds) -> None:
    own_builds.build("idle", "ENV idle=1", _write("idle"))
    idle = {record.id for record in own_builds.disk().cache if record.size >= MEGABYTES}
    assert idle
    process = own_builds.start(
        "running", "ENV running=1", _write("used"), "RUN echo it-'sleeps' && sleep 8 && ls /used"
    )
    deadline = time.monotonic() + SECONDS
    while "it-sleeps" not in own_builds.log("running"):
        assert process.poll() is None, own_builds.log("running")
        assert time.monotonic() < deadline
        time.sleep(0.05)
    used = {record.id for record in own_builds.disk().cache if record.in_use}
    assert used
    own_builds.prune(1)
    left = {record.id for record in own_builds.disk().cache}
    assert process.poll() is None, own_builds.log("running")
    assert used <= left
    assert idle.isdisjoint(left)
    assert process.wait(SECONDS) == 0, own_builds.log("running")
