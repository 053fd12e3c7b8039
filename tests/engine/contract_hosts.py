"""Hosts that the engine's contract is asked on, real ones and the fake, with the same few things to do on each."""

from __future__ import annotations

import io
import tarfile
import tempfile
import uuid
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from docker import APIClient

from caisson.docker_engine import DockerEngine
from caisson.engine import ContainerID, Engine, EngineEvent, ImageID
from tests.conftest import EngineHost
from tests.engine.registry import docker_registry
from tests.fake_engine import FakeEngine
from tests.fake_host import FakeHost, Kind

BASE = "debian:trixie-slim"
"""Has a program that runs: ``sleep``."""


class ContractHost(Protocol):
    """An engine, and what others do on its host; every name is of a repository that no one else has."""

    kind: Kind
    engine: Engine
    repository: str

    def make(self, tag: str, base: str = "", size: int = 1000) -> ImageID:
        """Build an image of one file of so many bytes on a base, with the classic builder; without a tag for ``""``."""
        ...

    def push(self, image: ImageID) -> str:
        """Give the image a second tag, of a registry's repository, and push that; returns it."""
        ...

    def pull(self, reference: str) -> None:
        """Pull what was pushed."""
        ...

    def create(self, image: str, *, volume: str = "") -> ContainerID: ...

    def start(self, container: ContainerID) -> None: ...

    def stop(self, container: ContainerID) -> None: ...

    def remove_container(self, container: ContainerID) -> None: ...

    def make_volume(self) -> str: ...

    def close(self) -> None: ...


def name(host: ContractHost, tag: str) -> str:
    return f"{host.repository}:{tag}"


def tags(host: ContractHost, image: ImageID) -> list[str]:
    """The tags that an image has, without their repository; raises ``LookupError`` where there is no such image."""
    found = host.engine.inspect_image(image)
    if found is None:
        raise LookupError(image)
    return sorted(tag.rpartition(":")[2] for tag in found.tags)


def is_there(host: ContractHost, image: ImageID) -> bool:
    return host.engine.inspect_image(image) is not None


def events_of(host: ContractHost, subjects: Sequence[str], since_ns: int) -> list[EngineEvent]:
    return [event for event in host.engine.events(since_ns=since_ns) if event.subject in subjects]


class FakeContractHost:
    """The fake."""

    def __init__(self, kind: Kind) -> None:
        self.kind: Kind = kind
        self.host = FakeHost(kind, datetime.now(UTC))
        self.engine: Engine = FakeEngine(self.host)
        self.repository = "contract"
        self.host.new_image([("base", 1000)], tags=[BASE])

    def make(self, tag: str, base: str = "", size: int = 1000) -> ImageID:
        below = self.host.find(base) if base else None
        layers = [(f"{tag}-{size}", size)]
        names = [name(self, tag)] if tag else []
        return self.host.new_image(layers, base=below and below.id, is_classic=True, tags=names)

    def push(self, image: ImageID) -> str:
        self.host.tag(image, "registry.example.com/contract:1")
        self.host.images[image].digests.add(f"registry.example.com/contract@sha256:{'0' * 64}")
        self.host._emit("image", "push", "registry.example.com/contract:1", name="registry.example.com/contract")
        return "registry.example.com/contract:1"

    def pull(self, reference: str) -> None:
        image = self.host.find(reference)
        assert image is not None
        self.host.pull(image, reference)

    def create(self, image: str, *, volume: str = "") -> ContainerID:
        found = self.host.find(image)
        assert found is not None
        container = self.host.create(found.id, image)
        self.host.containers[container].volumes = (volume,) if volume else ()
        return container

    def start(self, container: ContainerID) -> None:
        self.host.start(container)

    def stop(self, container: ContainerID) -> None:
        self.host.stop(container)

    def remove_container(self, container: ContainerID) -> None:
        self.host.remove_container(container)

    def make_volume(self) -> str:
        self.host.volumes["volume"] = 0
        return "volume"

    def close(self) -> None:
        """There is nothing to tidy up."""


class RealContractHost:
    """A real engine, on which others may work meanwhile."""

    def __init__(self, host: EngineHost) -> None:
        self.api = APIClient(base_url=host.docker_host, version="auto")
        self.engine: Engine = DockerEngine(host.docker_host)
        self.kind: Kind = "c8d" if self.engine.info().containerd_store else "overlay2"
        self._socket = host.socket
        self._stack = ExitStack()
        self.repository = f"contract-{uuid.uuid4().hex[:12]}"
        self._images: list[ImageID] = []
        self._containers: set[ContainerID] = set()
        self._volumes: list[str] = []

    def make(self, tag: str, base: str = "", size: int = 1000) -> ImageID:
        content = f"{self.repository}{tag}".encode().ljust(size, b"x")
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            for path, data in (
                ("Dockerfile", f"FROM {base or 'scratch'}\nCOPY file /{tag or 'file'}\n".encode()),
                ("file", content),
            ):
                entry = tarfile.TarInfo(path)
                entry.size = len(data)
                tar.addfile(entry, io.BytesIO(data))
        archive.seek(0)
        names = name(self, tag) if tag else None
        lines = list(self.api.build(fileobj=archive, custom_context=True, tag=names, rm=True, decode=True))
        assert [line["error"] for line in lines if "error" in line] == []
        image = ImageID(next(line["aux"]["ID"] for line in lines if "aux" in line))
        self._images.append(image)
        return image

    def push(self, image: ImageID) -> str:
        directory = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="contract-")))
        registry = self._stack.enter_context(docker_registry(directory / "registry", self._socket))
        self._auth = registry.auth
        reference = f"{registry.address}/{self.repository}:1"
        self.engine.tag_image(image, reference)
        for _ in self.engine.push_image(reference, registry.auth):
            pass
        return reference

    def pull(self, reference: str) -> None:
        auth = {"username": self._auth.username, "password": self._auth.password}
        self.api.pull(reference, auth_config=auth)

    def create(self, image: str, *, volume: str = "") -> ContainerID:
        binds = self.api.create_host_config(binds=[f"{volume}:/volume"]) if volume else None
        made = ContainerID(self.api.create_container(image, command=["sleep", "600"], host_config=binds)["Id"])
        self._containers.add(made)
        return made

    def start(self, container: ContainerID) -> None:
        self.api.start(container)

    def stop(self, container: ContainerID) -> None:
        self.api.kill(container)
        self.api.wait(container)

    def remove_container(self, container: ContainerID) -> None:
        self.api.remove_container(container, force=True)
        self._containers.discard(container)

    def make_volume(self) -> str:
        volume = str(self.api.create_volume(name=self.repository)["Name"])
        self._volumes.append(volume)
        return volume

    def close(self) -> None:
        """Remove what was made here, whatever has become of it."""
        for container in self._containers:
            if self.engine.inspect_container(container):
                self.api.remove_container(container, force=True)
        for volume in self._volumes:
            self.engine.remove_volume(volume)
        for row in self.api.images():
            for tag in row["RepoTags"] or ():
                if tag.rpartition(":")[0].rpartition("/")[2] == self.repository:
                    self.api.remove_image(tag, force=True)
        # Children before parents.
        for image in reversed(self._images):
            if self.engine.inspect_image(image):
                self.api.remove_image(image, force=True)
        self._stack.close()
        self.engine.close()
        self.api.close()
