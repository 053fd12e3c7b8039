"""What a real engine tells of its images, and what is made of it. Other tests may use the same engine meanwhile."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from docker import APIClient

from caisson.disk import DiskUsage
from caisson.docker_engine import DockerEngine
from caisson.engine import ContainerID, EngineEvent, ImageID
from caisson.event_replay import replay_events
from caisson.leases import Leases
from caisson.ledger import Ledger
from caisson.observe import observe
from caisson.snapshot import ImageState, Snapshot, VolumeState
from tests.conftest import EngineHost
from tests.engine.made import build_of_file

USAGE = DiskUsage("/", 1, 1, 1, 1)
LONG_AGO = timedelta(hours=3)


class Host:
    """One engine with a ledger of its own, and images of names that no one else has."""

    def __init__(self, host: EngineHost, state: Path) -> None:
        self.api = APIClient(base_url=host.docker_host, version="auto")
        self.engine = DockerEngine(host.docker_host)
        self.ledger = Ledger(state / "ledger.sqlite")
        self.leases = Leases(state / "leases", self.ledger.leases)
        self.name = f"observed-{uuid.uuid4().hex[:12]}"
        self.containers: list[str] = []

    def make(self, tag: str, base: str = "", content: bytes = b"") -> ImageID:
        """An image of one file of its own, on a base."""
        dockerfile = f"FROM {base or 'scratch'}\nCOPY file /{tag}\n".encode()
        return build_of_file(self.api, f"{self.name}:{tag}", dockerfile, content or f"{self.name}{tag}".encode())

    def id(self, tag: str) -> ImageID:
        return ImageID(self.api.inspect_image(f"{self.name}:{tag}")["Id"])

    def create(self, image: str, program: str = "/none") -> str:
        container = str(self.api.create_container(image, command=[program])["Id"])
        self.containers.append(container)
        return container

    def create_with_volume(self, script: str) -> str:
        body = {"Image": "debian:trixie-slim", "Cmd": ["sh", "-c", script], "Volumes": {"/v": {}}}
        container = str(self.api.create_container_from_config(body)["Id"])
        self.containers.append(container)
        return container

    def look(self, now: datetime | None = None) -> dict[ImageID, ImageState]:
        snapshot = observe(self.engine, self.ledger, self.leases.held(), USAGE, now=now or datetime.now(UTC))
        return {image.id: image for image in snapshot.images}

    def close(self) -> None:
        for container in self.containers:
            self.api.remove_container(container, force=True)
        for image in self.api.images(self.name):
            for tag in image["RepoTags"] or ():
                if tag.startswith(f"{self.name}:"):
                    self.api.remove_image(tag)
        self.engine.close()
        self.api.close()


@pytest.fixture
def host(engine_host: EngineHost, tmp_path: Path) -> Iterator[Host]:
    made = Host(engine_host, tmp_path)
    yield made
    made.close()


def test_layers_and_their_sizes_are_the_engines_own(host: Host) -> None:
    base = host.make("base", content=b"x" * 100_000)
    app = host.make("app", base=f"{host.name}:base", content=b"y" * 5_000)
    images = host.look()
    assert [layer.size for layer in images[base].layers] == [100_000]
    assert [layer.size for layer in images[app].layers] == [100_000, 5_000]
    assert images[app].layers[0] == images[base].layers[0]
    assert images[app].size == 105_000
    assert images[app].parent is not None
    assert images[app].tags == (f"{host.name}:app",)
    # Also of images of others, with empty layers, and whatever else there is.
    for image in images.values():
        assert sum(layer.size for layer in image.layers) == image.size


def test_the_second_look_inspects_nothing_that_it_knows(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.make("known")
    known = set(host.look())
    inspected: list[str] = []
    inspect = host.engine.inspect_image
    monkeypatch.setattr(host.engine, "inspect_image", lambda image: (inspected.append(image), inspect(image))[1])
    new = host.make("new")
    host.look()
    assert new in inspected
    assert known.isdisjoint(inspected)


def test_what_was_not_used_gets_older_and_a_container_by_name_or_short_id_is_a_use(host: Host) -> None:
    by_name, by_id, unused = host.make("name"), host.make("id"), host.make("unused")
    first = datetime.now(UTC) - LONG_AGO
    _look_long_ago(host, first)
    began = datetime.now(UTC)
    host.api.remove_container(host.create(f"{host.name}:name"), force=True)
    host.api.remove_container(host.create(by_id.removeprefix("sha256:")[:12]), force=True)
    host.containers.clear()
    images = host.look()
    for image in (by_name, by_id):
        used = images[image].last_used
        assert used is not None
        assert began - timedelta(seconds=2) <= used <= datetime.now(UTC)
    assert images[unused].last_used == first


def test_a_deployment_between_two_looks_is_known_by_its_containers_events(host: Host) -> None:
    labels = {"com.docker.compose.project": host.name, "com.docker.compose.service": "web"}
    first, second, third = (host.make(tag, base="debian:trixie-slim") for tag in ("1", "2", "3"))
    host.look()
    for tag in ("1", "2", "3"):
        made = host.api.create_container(f"{host.name}:{tag}", command=["true"], labels=labels)["Id"]
        host.containers.append(made)
        host.api.start(made)
        host.api.wait(made)
        host.api.remove_container(host.containers.pop())
    images = host.look()
    assert [images[image].deployed for image in (third, second, first)] == [0, 1, 2]


def test_a_tag_and_a_save_are_uses_and_untagging_is_none(host: Host) -> None:
    tagged, saved, untagged = host.make("tagged"), host.make("saved"), host.make("untagged")
    host.api.tag(untagged, f"{host.name}", "second")
    first = datetime.now(UTC) - LONG_AGO
    _look_long_ago(host, first)
    host.api.tag(tagged, host.name, "again")
    b"".join(host.api.get_image(f"{host.name}:saved"))
    host.api.remove_image(f"{host.name}:second")
    images = host.look()
    for image in (tagged, saved):
        used = images[image].last_used
        assert used is not None
        assert used > first + LONG_AGO / 2
    assert images[untagged].last_used == first


def test_an_image_in_use_lends_now_to_its_base(host: Host) -> None:
    base = host.make("base")
    app = host.make("app", base=f"{host.name}:base")
    host.create(f"{host.name}:app")
    now = datetime.now(UTC)
    images = host.look(now)
    later = now + timedelta(hours=1)
    images = host.look(later)
    assert images[app].last_used == images[base].last_used == later


def test_the_engine_keeps_256_events_and_a_look_that_missed_some_takes_all_for_used(host: Host) -> None:
    image = host.make("image")
    host.look()
    for _ in range(130):
        host.api.tag(image, host.name, "a")
        host.api.tag(image, host.name, "b")
    events = host.engine.events()
    assert len(events) == 256
    assert [event.time_ns for event in events] == sorted(event.time_ns for event in events)
    now = datetime.now(UTC) + timedelta(hours=1)
    assert {found.last_used for found in host.look(now).values()} == {now}


def test_events_are_recorded_between_two_looks(host: Host) -> None:
    image = host.make("image")
    first = datetime.now(UTC) - LONG_AGO
    _look_long_ago(host, first)
    host.api.remove_container(host.create(f"{host.name}:image"), force=True)
    host.containers.clear()
    assert replay_events(host.engine, host.ledger, now=datetime.now(UTC))
    known = host.ledger.images.known(layers=False)[image]
    assert known.last_use == "container destroy"
    assert known.last_used > first + LONG_AGO / 2
    assert host.look()[image].first_seen == first


def test_when_a_container_ended_is_known_and_of_one_that_never_ran_it_is_not(host: Host) -> None:
    began = datetime.now(UTC)
    ended, never = host.create("debian:trixie-slim", "true"), host.create("debian:trixie-slim", "true")
    host.api.start(ended)
    host.api.wait(ended)
    now = datetime.now(UTC)
    snapshot = observe(host.engine, host.ledger, host.leases.held(), USAGE, now=now, with_ends=True)
    states = {container.id: container for container in snapshot.containers}
    finished = states[ContainerID(ended)].finished
    assert finished is not None
    assert began <= finished <= now
    assert (states[ContainerID(never)].state, states[ContainerID(never)].finished) == ("created", None)


def test_an_anonymous_volume_gets_older_from_when_its_container_is_gone(host: Host) -> None:
    container = host.create_with_volume("head -c 2000000 /dev/urandom | tee /file > /v/file")
    (mount,) = host.api.inspect_container(container)["Mounts"]
    host.api.start(container)
    host.api.wait(container)

    def look(now: datetime) -> Snapshot:
        disk = host.engine.disk_usage(timeout=60)
        return observe(host.engine, host.ledger, host.leases.held(), USAGE, now=now, disk=disk)

    def volume(snapshot: Snapshot) -> VolumeState:
        (found,) = [one for one in snapshot.anonymous_volumes if one.name == mount["Name"]]
        return found

    now = datetime.now(UTC)
    snapshot = look(now)
    found = volume(snapshot)
    assert (found.users, found.last_used) == (1, now)
    assert 2_000_000 <= found.size < 2_100_000
    (writable,) = [one.writable_bytes for one in snapshot.containers if one.id == container]
    assert 2_000_000 <= writable < 2_100_000
    host.api.remove_container(container)
    host.containers.clear()
    for hours in (1, 2):
        later = volume(look(now + timedelta(hours=hours)))
        assert (later.users, later.last_used) == (0, now + timedelta(hours=1))
    host.api.remove_volume(mount["Name"])
    assert mount["Name"] not in {one.name for one in look(now + timedelta(hours=3)).anonymous_volumes}


def _look_long_ago(host: Host, when: datetime) -> None:
    """A first look, as if it had been then: the tag times of real images are later, so they are left out."""
    events: list[EngineEvent] = host.engine.events()
    inspect = host.engine.inspect_image

    class Then:
        def __getattr__(self, name: str) -> object:
            return getattr(host.engine, name)

        def events(self, *, since_ns: int = 0) -> list[EngineEvent]:
            return events

        def inspect_image(self, image: str) -> object:
            found = inspect(image)
            return replace(found, last_tag_time=None) if found else None

    observe(Then(), host.ledger, host.leases.held(), USAGE, now=when)  # type: ignore[arg-type]
