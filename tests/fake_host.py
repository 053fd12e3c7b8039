"""A Docker host in memory, by the rules of the real one: what is on it, what others do there, and what that frees.

``tests/fake_engine.py`` is the engine that answers for it; ``tests/engine/test_engine_contract.py`` asks both that
engine and real ones the same questions. Two kinds: the overlay2 store and the containerd store ("c8d").

- Layers are on the disk once for all images that have them on equal ground. The compressed copies that the containerd
  store keeps besides are not modelled.
- Time passes only by ``pass_time`` and by a millisecond with each event.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from threading import RLock
from typing import Literal

from caisson.disk import DiskUsage
from caisson.engine import ContainerID, EngineEvent, ImageID
from caisson.errors import RemovalRefused
from caisson.reference import parse_reference

Kind = Literal["overlay2", "c8d"]
MIB = 1 << 20
EVENTS_KEPT = 256
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_INODES_PER_MIB = 10


@dataclass
class FakeImage:
    """``layers`` are names of diff IDs from the lowest up; ``used`` and ``appeared`` are the truth, told to nobody."""

    id: ImageID
    layers: tuple[str, ...]
    parent: ImageID | None
    labels: Mapping[str, str]
    appeared: datetime
    used: datetime
    last_tag_time: datetime | None = None
    digests: set[str] = field(default_factory=set)
    """``repository@digest`` under which a registry is known to have it."""


@dataclass
class FakeContainer:
    id: ContainerID
    name: str
    image: ImageID
    image_name: str
    state: str = "created"
    finished: datetime | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    writable: int = 0
    volumes: tuple[str, ...] = ()


@dataclass
class FakeCache:
    """One record of BuildKit's cache; the first of the list was used longest ago.

    With ``layers`` it holds the uppermost of those as well as the images that begin with them.
    """

    size: int
    in_use: bool = False
    layers: tuple[str, ...] = ()


class FakeHost:
    """What is on one host; its methods are what people and programs do there, past Caisson."""

    def __init__(self, kind: Kind, now: datetime, *, total_bytes: int = 1000 * MIB, total_inodes: int = 0) -> None:
        self.kind, self.now = kind, now
        self.total_bytes, self.total_inodes = total_bytes, total_inodes
        self.other_bytes = 0
        self.sizes: dict[str, int] = {}
        self.images: dict[ImageID, FakeImage] = {}
        self.tags: dict[str, ImageID] = {}
        self.containers: dict[ContainerID, FakeContainer] = {}
        self.volumes: dict[str, int] = {}
        self.volume_used: dict[str, datetime] = {}
        """When a container last had each volume that one ever ran with: the truth, told to nobody."""
        self.cache: list[FakeCache] = []
        self.events: deque[EngineEvent] = deque(maxlen=EVENTS_KEPT)
        self.untold: set[ImageID] = set()
        """Images of which no event told, as of those of untagged builds; a listing of the images tells of them."""
        self.lock = RLock()
        self._made = 0

    # What is there.

    def find(self, name: str) -> FakeImage | None:
        """By its whole ID, or by a reference."""
        if name in self.images:
            return self.images[ImageID(name)]
        if name.startswith("sha256:"):
            return None
        wanted = str(parse_reference(name).or_latest())
        if "@" in wanted:
            return next((image for image in self.images.values() if wanted in self.digests_of(image)), None)
        return self.images.get(self.tags.get(wanted, ImageID("")))

    def tags_of(self, image: ImageID) -> tuple[str, ...]:
        return tuple(tag for tag, owner in self.tags.items() if owner == image)

    def digests_of(self, image: FakeImage) -> tuple[str, ...]:
        """As an inspect tells them: the containerd store makes one up for each repository."""
        if self.kind == "overlay2":
            return tuple(sorted(image.digests))
        repositories = {parse_reference(tag).repository for tag in self.tags_of(image.id)}
        return tuple(f"{each}@{image.id}" for each in sorted(repositories, key=lambda each: each.canonical()))

    def children_of(self, image: ImageID) -> list[ImageID]:
        return [other.id for other in self.images.values() if other.parent == image]

    def users_of(self, image: ImageID) -> list[FakeContainer]:
        return [container for container in self.containers.values() if container.image == image]

    def size_of(self, image: FakeImage) -> int:
        size = sum(self.sizes[layer] for layer in image.layers)
        # The containerd store keeps, and counts, the layers' blobs too; those of a loaded archive are as large.
        return size * self._copies

    @property
    def _copies(self) -> int:
        return 1 if self.kind == "overlay2" else 2

    def layers_on_disk(self) -> set[tuple[str, ...]]:
        """Each layer of an image with all those below it."""
        return {image.layers[: n + 1] for image in self.images.values() for n in range(len(image.layers))}

    def layers_size(self) -> int:
        return sum(self.sizes[layers[-1]] for layers in self.layers_on_disk())

    def is_shared(self, record: FakeCache) -> bool:
        return record.layers in self.layers_on_disk()

    def used_bytes(self) -> int:
        writable = sum(container.writable for container in self.containers.values())
        there = self.layers_on_disk()
        cache = sum(record.size for record in self.cache if record.layers not in there)
        return self.layers_size() * self._copies + writable + sum(self.volumes.values()) + cache + self.other_bytes

    def read_usage(self) -> DiskUsage:
        """The file system of the data root; inodes follow the bytes, and there may be no fixed number of them."""
        used = self.used_bytes()
        free = max(0, self.total_bytes - used)
        free_inodes = max(0, self.total_inodes - used * _INODES_PER_MIB // MIB)
        return DiskUsage("/var/lib/docker", self.total_bytes, free, self.total_inodes, free_inodes)

    # What others do.

    def pass_time(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    def new_image(
        self,
        layers: Iterable[tuple[str, int]],
        *,
        base: ImageID | None = None,
        is_classic: bool = False,
        tags: Sequence[str] = (),
        labels: Mapping[str, str] | None = None,
    ) -> ImageID:
        """What a build makes, of layers (name and bytes) on a base; BuildKit's have no parent, and tell no event."""
        below = self.images[base].layers if base else ()
        made = tuple(layers)
        for name, size in made:
            # Content tells the diff ID, so a layer of one name has one size.
            assert self.sizes.setdefault(name, size) == size
        self._made += 1
        image = ImageID(f"sha256:{hashlib.sha256(f'image {self._made}'.encode()).hexdigest()}")
        parent = base if is_classic else None
        stack = (*below, *(name for name, _ in made))
        self.images[image] = FakeImage(image, stack, parent, labels or {}, self.now, self.now)
        if self.kind == "c8d":
            self.images[image].last_tag_time = self.now
        if not tags:
            self.untold.add(image)
        for tag in tags:
            self.tag(image, tag)
        return image

    def tag(self, image: ImageID, reference: str) -> None:
        self.tags[str(parse_reference(reference).or_latest())] = image
        self.images[image].used = self.images[image].last_tag_time = self.now
        self.untold.discard(image)
        self._emit("image", "tag", image, name=reference)

    def pull(self, image: FakeImage, reference: str) -> None:
        """An image from a registry, which may be one that was here before."""
        there = self.images.get(image.id)
        if there is None:
            there = FakeImage(image.id, image.layers, None, image.labels, self.now, self.now)
            self.images[image.id] = there
        there.used = there.last_tag_time = self.now
        self.tags[reference] = image.id
        there.digests.add(f"{parse_reference(reference).repository}@{image.id}")
        self._emit("image", "pull", reference, name=reference)

    def new_volume(self, size: int, name: str = "") -> str:
        """Without a name it is an anonymous one."""
        self._made += 1
        name = name or hashlib.sha256(f"volume {self._made}".encode()).hexdigest()
        self.volumes[name] = size
        self._emit("volume", "create", name)
        return name

    def create(
        self,
        image: ImageID,
        image_name: str = "",
        labels: Mapping[str, str] | None = None,
        *,
        name: str = "",
        volumes: Sequence[str] = (),
    ) -> ContainerID:
        self._made += 1
        container = ContainerID(hashlib.sha256(f"container {self._made}".encode()).hexdigest())
        name = name or f"container-{self._made}"
        self.containers[container] = FakeContainer(
            container, name, image, image_name or image, labels=labels or {}, volumes=tuple(volumes)
        )
        self._use(container, "create")
        return container

    def start(self, container: ContainerID) -> None:
        self._mount(container, "mount")
        self.containers[container].state = "running"
        self._use(container, "start")

    def stop(self, container: ContainerID) -> None:
        if self.containers[container].state == "running":
            self.containers[container].state, self.containers[container].finished = "exited", self.now
            self._use(container, "die")
            self._mount(container, "unmount")

    def remove_container(self, container: ContainerID) -> None:
        """By force where it runs."""
        self.stop(container)
        for volume in self.containers[container].volumes:
            if volume in self.volume_used:
                self.volume_used[volume] = self.now
        self._use(container, "destroy")
        del self.containers[container]

    def _mount(self, container: ContainerID, action: str) -> None:
        for volume in self.containers[container].volumes:
            self.volume_used[volume] = self.now
            self._emit("volume", action, volume, container=container)

    def noise(self, count: int) -> None:
        """Events of health checks and the like, which push others out."""
        for number in range(count):
            self._emit("network", "connect", f"network-{number}")

    # The engine's rules of removal.

    def delete_image(self, name: str, *, prune_parents: bool = False) -> bool:
        """``DELETE /images/{name}`` without force; False for 404. Raises ``RemovalRefused`` for 409."""
        image = self.find(name)
        if image is None:
            return False
        by_id = name == image.id
        if not by_id and self._untag_only(image, str(parse_reference(name).or_latest())):
            return True
        if by_id:
            self._refuse_unless_free(image)
        elif self.children_of(image.id):
            # The last name of a parent goes, and the parent stays without one, whatever the containerd store says.
            self._drop_names(image)
            if self.kind == "c8d":
                self._emit("image", "delete", image.id)
            return True
        self._drop_names(image)
        del self.images[image.id]
        self._emit("image", "delete", image.id)
        parent = self.images.get(image.parent) if image.parent else None
        if prune_parents and parent and not (self._names_of(parent) or self.children_of(parent.id)):
            with suppress(RemovalRefused):
                self.delete_image(parent.id, prune_parents=True)
        return True

    def _names_of(self, image: FakeImage) -> tuple[str, ...]:
        digests = tuple(image.digests) if self.kind == "overlay2" else ()
        return (*self.tags_of(image.id), *digests)

    def _untag_only(self, image: FakeImage, name: str) -> bool:
        """Whether other names are left, and this one went; raises ``RemovalRefused`` for the last of one in use."""
        if self.users_of(image.id) and self._has_single_name(image):
            raise RemovalRefused("conflict: a container is using its referenced image")
        self._drop_name(image, name)
        if self.kind == "overlay2" and "@" not in name:
            repository = str(parse_reference(name).repository)
            if not any(str(parse_reference(tag).repository) == repository for tag in self.tags_of(image.id)):
                for digest in [d for d in image.digests if str(parse_reference(d).repository) == repository]:
                    self._drop_name(image, digest)
        return bool(self._names_of(image))

    def _has_single_name(self, image: FakeImage) -> bool:
        """moby daemon/images/image_delete.go ``isSingleReference``: one tag, and digests of its repository only."""
        names = self._names_of(image)
        digests = {str(parse_reference(name).repository) for name in names if "@" in name}
        tags = [name for name in names if "@" not in name]
        if len(names) <= 1:
            return True
        if len(tags) > 1 or len(digests) != 1:
            return False
        return not tags or str(parse_reference(tags[0]).repository) in digests

    def _refuse_unless_free(self, image: FakeImage) -> None:
        reason = self._why_not_free(image)
        if reason or not self._has_single_name(image):
            raise RemovalRefused(f"conflict: {reason or 'image is referenced in multiple repositories'}")

    def _why_not_free(self, image: FakeImage) -> str:
        if self.kind == "overlay2" and self.children_of(image.id):
            return "image has dependent child images"
        users = self.users_of(image.id)
        return f"image is being used by a container that is {users[0].state}" if users else ""

    def _drop_names(self, image: FakeImage) -> None:
        for name in self._names_of(image):
            self._drop_name(image, name)

    def _drop_name(self, image: FakeImage, name: str) -> None:
        self.tags.pop(name, None)
        image.digests.discard(name)
        self._emit("image", "untag", image.id)

    def delete_container(self, container: ContainerID) -> bool:
        """``DELETE /containers/{id}`` without force."""
        found = self.containers.get(container)
        if found is None:
            return False
        if found.state == "running":
            raise RemovalRefused("You cannot remove a running container")
        self.remove_container(container)
        return True

    def delete_volume(self, name: str) -> bool:
        if name not in self.volumes:
            return False
        if any(name in container.volumes for container in self.containers.values()):
            raise RemovalRefused("remove: volume is in use")
        del self.volumes[name]
        self._emit("volume", "destroy", name)
        return True

    def prune_cache(self, keep_bytes: int) -> int:
        """The least recently used records that are neither in use nor an image's, until no more than so much is left.

        What is an image's does not count.
        """
        freed, there = 0, self.layers_on_disk()
        own = [record for record in self.cache if record.layers not in there]
        left = sum(record.size for record in own)
        for record in own:
            if left - freed <= keep_bytes:
                break
            if record.in_use:
                continue
            self.cache.remove(record)
            freed += record.size
        return freed

    def _use(self, container: ContainerID, action: str) -> None:
        found = self.containers[container]
        if found.image in self.images:
            self.images[found.image].used = self.now
            self.untold.discard(found.image)
        # A real engine tells all labels among its own attributes.
        self._emit("container", action, container, **{**found.labels, "image": found.image_name, "name": found.name})

    def _emit(self, type_: str, action: str, subject: str, **attributes: str) -> None:
        self.pass_time(0.001)
        time_ns = (self.now - _EPOCH) // timedelta(microseconds=1) * 1000
        self.events.append(EngineEvent(time_ns, type_, action, subject, attributes))
