"""The engine of a ``FakeHost``: the part of ``caisson.engine.Engine`` that a prune uses, which can fail at any call."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from caisson.engine import (
    ContainerID,
    ContainerInfo,
    DiskPart,
    Engine,
    EngineEvent,
    EngineInfo,
    ImageID,
    ImageInfo,
    Layer,
)
from caisson.engine_disk import CacheDisk, ContainerDisk, EngineDisk, ImageDisk, VolumeDisk
from caisson.errors import EngineRefused
from caisson.layer_sizes import chain_ids
from tests.fake_host import FakeContainer, FakeHost, FakeImage

READS = ("list_images", "inspect_image", "history", "list_containers", "inspect_container", "events", "disk_usage")
REMOVALS = ("remove_image", "untag_image", "remove_ended_container", "remove_volume", "prune_build_cache")


class FakeEngine(Engine):
    """One connection. ``before`` and ``after`` are called with a call's name and argument; what they raise, it raises.

    What raises before never reached the engine; what raises after did, and only the answer was lost.
    """

    def __init__(self, host: FakeHost) -> None:
        self.host = host
        self.before: Callable[[str, str], None] = lambda _name, _argument: None
        self.after: Callable[[str, str], None] = lambda _name, _argument: None

    @contextmanager
    def _call(self, name: str, argument: str = "") -> Iterator[None]:
        with self.host.lock:
            self.before(name, argument)
            yield
            self.after(name, argument)

    def info(self) -> EngineInfo:
        is_c8d = self.host.kind == "c8d"
        with self._call("info"):
            return EngineInfo(
                version="26.1.5",
                api_version="1.45",
                storage_driver="overlayfs" if is_c8d else "overlay2",
                cgroup_driver="cgroupfs",
                cgroup_version=1,
                data_root="/var/lib/docker",
                security_options=(),
                cpus=2,
                memory=1 << 30,
                containerd_store=is_c8d,
            )

    def list_images(
        self, labels: Mapping[str, str] | None = None, *, repository: str = "", intermediate: bool = False
    ) -> list[ImageInfo]:
        host = self.host
        with self._call("list_images"):
            host.untold.clear()
            return [
                self._image(image, is_listed=True)
                for image in host.images.values()
                if set((labels or {}).items()) <= set(image.labels.items())
                if not repository or any(tag.rpartition(":")[0] == repository for tag in host.tags_of(image.id))
                if intermediate or self._is_listed(image)
            ]

    def _is_listed(self, image: FakeImage) -> bool:
        """Steps of the classic builder are not, unless they are asked for."""
        return bool(self.host.tags_of(image.id) or not self.host.children_of(image.id))

    def inspect_image(self, image: str) -> ImageInfo | None:
        with self._call("inspect_image", image):
            found = self.host.find(image)
            return self._image(found, is_listed=False) if found else None

    def _image(self, image: FakeImage, *, is_listed: bool) -> ImageInfo:
        host = self.host
        return ImageInfo(
            id=image.id,
            tags=host.tags_of(image.id),
            # The containerd store lists any one of them.
            digests=host.digests_of(image)[-1:] if is_listed and host.kind == "c8d" else host.digests_of(image),
            labels=image.labels,
            size=host.size_of(image),
            layers=() if is_listed else tuple(f"sha256:{layer}" for layer in image.layers),
            # Long ago, and of no concern.
            created="1" if is_listed else "1970-01-01T00:00:01Z",
            parent=image.parent,
            last_tag_time=None if is_listed else image.last_tag_time,
        )

    def history(self, image: str) -> list[Layer]:
        with self._call("history", image):
            found = self.host.find(image)
            if found is None:
                raise EngineRefused(f"No such image: {image}.")
            return [Layer(self.host.sizes[layer], 1) for layer in found.layers]

    def list_containers(self, labels: Mapping[str, str | None]) -> list[ContainerInfo]:
        with self._call("list_containers"):
            return [
                self._container(container, finished=None)
                for container in self.host.containers.values()
                if all(k in container.labels and v in (None, container.labels[k]) for k, v in labels.items())
            ]

    def inspect_container(self, container: ContainerID | str) -> ContainerInfo | None:
        with self._call("inspect_container", container):
            found = self.host.containers.get(ContainerID(container))
            return self._container(found, finished=found.finished) if found else None

    def _container(self, container: FakeContainer, *, finished: datetime | None) -> ContainerInfo:
        return ContainerInfo(
            id=container.id,
            name=container.name,
            state=container.state,
            labels=container.labels,
            image=container.image,
            image_name=container.image_name,
            finished=finished,
            volumes=container.volumes,
        )

    def events(self, *, since_ns: int = 0) -> list[EngineEvent]:
        with self._call("events"):
            return [event for event in self.host.events if event.time_ns >= since_ns]

    def disk_usage(self, *, timeout: float, parts: Collection[DiskPart] = ()) -> EngineDisk:
        host = self.host
        with self._call("disk_usage"):
            disk = EngineDisk(
                layers_size=host.layers_size(),
                images=tuple(ImageDisk(i.id, host.tags_of(i.id), host.size_of(i)) for i in host.images.values()),
                containers=tuple(ContainerDisk(c.id, c.name, c.state, c.writable) for c in host.containers.values()),
                volumes=tuple(
                    VolumeDisk(name, size, sum(name in c.volumes for c in host.containers.values()))
                    for name, size in host.volumes.items()
                ),
                cache=tuple(
                    CacheDisk("regular", record.size, record.in_use, host.is_shared(record)) for record in host.cache
                ),
            )
            if not parts:
                return disk
            return EngineDisk(
                layers_size=disk.layers_size if "image" in parts else 0,
                images=disk.images if "image" in parts else (),
                containers=disk.containers if "container" in parts else (),
                volumes=disk.volumes if "volume" in parts else (),
                cache=disk.cache if "build-cache" in parts else (),
            )

    def tag_image(self, image: ImageID, reference: str) -> None:
        with self._call("tag_image", reference):
            if image not in self.host.images:
                raise EngineRefused(f"No such image: {image}.")
            self.host.tag(image, reference)

    def untag_image(self, reference: str) -> bool:
        with self._call("untag_image", reference):
            return self.host.delete_image(reference, prune_parents=True)

    def remove_image(self, image: ImageID | str, *, timeout: float) -> bool:
        with self._call("remove_image", image):
            return self.host.delete_image(image)

    def remove_ended_container(self, container: ContainerID) -> bool:
        with self._call("remove_ended_container", container):
            return self.host.delete_container(container)

    def remove_volume(self, name: str) -> bool:
        with self._call("remove_volume", name):
            return self.host.delete_volume(name)

    def prune_build_cache(
        self, *, keep_bytes: int, timeout: float, reserved_bytes: int = 0, min_free_bytes: int = 0
    ) -> int:
        with self._call("prune_build_cache", str(keep_bytes)):
            return self.host.prune_cache(keep_bytes)

    def __getattribute__(self, name: str) -> Any:
        # A method of the protocol that is not implemented here would answer None to anything.
        if not name.startswith("_") and name in Engine.__dict__ and name not in FakeEngine.__dict__:
            raise NotImplementedError(name)
        return super().__getattribute__(name)


def stored_layers(host: FakeHost, image: FakeImage) -> tuple[tuple[str, int], ...]:
    """Chain IDs and bytes, as the truth has them."""
    chain = chain_ids([f"sha256:{layer}" for layer in image.layers])
    return tuple(zip(chain, (host.sizes[layer] for layer in image.layers), strict=True))
