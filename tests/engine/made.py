"""What a test makes on an engine that others use meanwhile: images, containers and volumes of names of its own."""

from __future__ import annotations

import io
import tarfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from docker import APIClient
from docker.errors import NotFound

from caisson.engine import ContainerID, ImageID
from tests.conftest import EngineHost

BASE = "debian:trixie-slim"


def build_of_file(api: APIClient, reference: str, dockerfile: bytes, content: bytes) -> ImageID:
    """An image by the classic builder, from a context of a Dockerfile and ``file``; raises ``AssertionError``."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name, data in (("Dockerfile", dockerfile), ("file", content)):
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    archive.seek(0)
    lines = api.build(fileobj=archive, custom_context=True, tag=reference, rm=True, decode=True)
    assert [line["error"] for line in lines if "error" in line] == []
    return ImageID(api.inspect_image(reference)["Id"])


class Made:
    """Makes them on one engine, beside ``caisson.docker_engine``; ``name`` is in the name of each."""

    def __init__(self, host: EngineHost) -> None:
        self.api = APIClient(base_url=host.docker_host, version="auto")
        self.name = f"made-{uuid.uuid4().hex[:12]}"
        self._containers: list[str] = []
        self._volumes: list[str] = []
        self._references: list[str] = []

    def image(self, tag: str, base: str = "", *, steps: int = 1) -> ImageID:
        """``name:tag``, by the classic builder: one file a step on a base, all of its own content."""
        copies = "".join(f"COPY file /{tag}-{step}\n" for step in range(steps))
        dockerfile = f"FROM {base or 'scratch'}\n{copies}".encode()
        reference = f"{self.name}:{tag}"
        self._references.append(reference)
        return build_of_file(self.api, reference, dockerfile, f"{self.name}{tag}".encode())

    def id(self, reference: str) -> ImageID:
        return ImageID(self.api.inspect_image(reference)["Id"])

    def tags(self, image: str) -> list[str]:
        """All its tags, sorted; none where it is gone."""
        try:
            return sorted(self.api.inspect_image(image)["RepoTags"] or ())
        except NotFound:
            return []

    def has_image(self, image: str) -> bool:
        try:
            self.api.inspect_image(image)
        except NotFound:
            return False
        return True

    def tag(self, image: str, reference: str) -> None:
        repository, _, tag = reference.rpartition(":")
        self._references.append(reference)
        self.api.tag(image, repository, tag)

    def container(self, image: str = BASE, *command: str, volumes: tuple[str, ...] = (), start: bool = False) -> str:
        """Volumes as ``NAME:/path``, or ``/path`` for an anonymous one."""
        body = {
            "Image": image,
            "Cmd": list(command or ("true",)),
            "Volumes": {path: {} for path in volumes if ":" not in path},
            "HostConfig": {"Binds": [volume for volume in volumes if ":" in volume]},
        }
        container = str(self.api.create_container_from_config(body, f"{self.name}-{len(self._containers)}")["Id"])
        self._containers.append(container)
        self._volumes += self.volumes_of(container)
        if start:
            self.api.start(container)
        return container

    def volumes_of(self, container: str) -> list[str]:
        return [mount["Name"] for mount in self.api.inspect_container(container)["Mounts"]]

    def state(self, container: str) -> str:
        """Empty where it is gone."""
        try:
            return str(self.api.inspect_container(ContainerID(container))["State"]["Status"])
        except NotFound:
            return ""

    def has_volume(self, name: str) -> bool:
        try:
            self.api.inspect_volume(name)
        except NotFound:
            return False
        return True

    def clean(self) -> None:
        for container in self._containers:
            with suppress(NotFound):
                self.api.remove_container(container, force=True)
        for volume in self._volumes:
            with suppress(NotFound):
                self.api.remove_volume(volume)
        for reference in self._references:
            with suppress(NotFound):
                self.api.remove_image(reference)
        self.api.close()


@contextmanager
def made_on(host: EngineHost) -> Iterator[Made]:
    """All that was made is gone afterwards."""
    made = Made(host)
    try:
        yield made
    finally:
        made.clean()
