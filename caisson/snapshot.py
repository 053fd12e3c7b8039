"""What is on an engine at one moment, as frozen values: all that a prune is planned on. Pure.

Rules of this module:

- Dates come from the ledger, never from the engine's ``Created``, which says nothing about use. None means unknown,
  and unknown never makes anything older.
- Every date is aware; every size is in bytes.
- What could not be read is in ``Snapshot.problems``, not left out in silence: with any, nothing is planned. Of what is
  in ``Snapshot.unread`` alone nothing is planned.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple, NewType

from caisson.disk import DiskUsage
from caisson.engine import ContainerID, ImageID
from caisson.reference import Reference, parse_reference

ChainID = NewType("ChainID", str)
"""``sha256:…`` of a layer and all those below it (OCI image-spec, config.md "Layer ChainID"): images that share a
layer have it in equal places on equal ground, so they have equal chain IDs."""

LABEL_KEEP_UNTIL = "caisson.keep-until"
"""An ISO 8601 date or time until which the image or container that has it is kept."""


class StoredLayer(NamedTuple):
    """One layer on the disk: its chain ID and its own bytes (``GET /images/{id}/history``, or the store's own)."""

    chain_id: ChainID
    size: int


@dataclass(frozen=True)
class ImageState:
    """One image, from ``GET /images/json?all=1``, its inspect, and the ledger.

    - ``tags``: its references with a tag, spelt as the engine lists them (``RepoTags``).
    - ``registry_digests``: ``repository@digest`` under which a registry has it. With overlay2 that is ``RepoDigests``.
      The containerd store lists a digest for every image, also for those that no registry has; there only what the
      ledger knows as pulled or pushed belongs here.
    - ``layers``: from the lowest up.
    - ``parent``: the image that the classic builder made it from; the engine refuses to remove it before this one.
    - ``size``: bytes, shared layers included.
    - ``first_seen``, ``last_used``: by the ledger.
    - ``built_by_caisson``: by the ledger; labels can be forged by a Dockerfile.
    - ``own_step``: by the ledger too: it is, or was, a step of the classic builder on the way to such an image.
    - ``deployed``: 0 where it runs as the current deployment of something, 1 for the one before, and so on; by the
      ledger (``caisson.deployed``).
    - ``build_seconds``: how long its build took, by the ledger.
    """

    id: ImageID
    tags: tuple[str, ...] = ()
    registry_digests: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    layers: tuple[StoredLayer, ...] = ()
    parent: ImageID | None = None
    size: int = 0
    first_seen: datetime | None = None
    last_used: datetime | None = None
    built_by_caisson: bool = False
    own_step: bool = False
    deployed: int | None = None
    build_seconds: float | None = None

    def __post_init__(self) -> None:
        _require_aware(first_seen=self.first_seen, last_used=self.last_used)

    @property
    def is_untagged(self) -> bool:
        """Whether nothing names it, neither a tag nor a registry's digest."""
        return not self.tags and not self.registry_digests


def steps_of_own_builds(images: Iterable[ImageState]) -> set[ImageID]:
    """The untagged images that the classic builder made on its way to images of ours; never what it began with."""
    by_id = {image.id: image for image in images}
    steps: set[ImageID] = set()
    for image in by_id.values():
        step = by_id.get(image.parent) if image.built_by_caisson and image.parent is not None else None
        while step is not None and step.is_untagged and step.id not in steps:
            steps.add(step.id)
            step = by_id.get(step.parent) if step.parent is not None else None
    return steps


@dataclass(frozen=True)
class ContainerState:
    """One container, in any state (``GET /containers/json?all=1``, and its inspect where it has exited).

    ``writable_bytes`` is ``SizeRw`` (``GET /system/df``), 0 where it is not known. ``finished`` is
    ``State.FinishedAt``, None while it runs or where it never ran.
    """

    id: ContainerID
    image: ImageID
    name: str
    state: str
    labels: Mapping[str, str] = field(default_factory=dict)
    writable_bytes: int = 0
    finished: datetime | None = None
    made_by_caisson: bool = False

    def __post_init__(self) -> None:
        _require_aware(finished=self.finished)


@dataclass(frozen=True)
class LeaseState:
    """A living holder's hold on images, by image ID and by reference. From ``caisson.leases``.

    ``everything``: what it needs can't be told, so it holds every image. ``expires`` is None for as long as its holder
    lives. A reference may be one that no image has yet (a pull, a build). Raises ``ValueError`` for one that can't be
    read, since what can't be read can't be honoured.
    """

    holder: str
    images: frozenset[ImageID] = frozenset()
    references: frozenset[str] = frozenset()
    expires: datetime | None = None
    everything: bool = False

    def __post_init__(self) -> None:
        _require_aware(expires=self.expires)
        for text in self.references:
            try:
                parse_reference(text)
            except ValueError as error:
                raise ValueError(f"references of the lease of {self.holder!r}: {error}") from error

    @classmethod
    def of_names(cls, holder: str, names: Iterable[str], expires: datetime | None = None) -> LeaseState:
        """From names as leases write them: references, image IDs, and ``*`` for everything.

        >>> LeaseState.of_names("build-1", ["sha256:0a", "debian"]).images
        frozenset({'sha256:0a'})
        """
        names = frozenset(names)
        images = frozenset(ImageID(name) for name in names if name.startswith("sha256:"))
        return cls(holder, images, names - images - {"*"}, expires, "*" in names)

    def parsed(self) -> frozenset[Reference]:
        """Its references as values."""
        return frozenset(parse_reference(text) for text in self.references)


@dataclass(frozen=True)
class CacheEntry:
    """One record of BuildKit's cache (``GET /system/df``, ``BuildCache``).

    ``shared`` ones hold layers that images hold too: removing only one of both frees nothing.
    """

    id: str
    type: str
    size: int
    in_use: bool = False
    shared: bool = False
    last_used: datetime | None = None

    def __post_init__(self) -> None:
        _require_aware(last_used=self.last_used)


@dataclass(frozen=True)
class VolumeState:
    """One anonymous volume (``GET /system/df``): its name is 64 hexadecimal digits that the engine gave it.

    ``size`` is 0 where its driver does not tell. ``users`` counts containers in any state (``UsageData.RefCount``);
    ``last_used`` is the ledger's.
    """

    name: str
    size: int
    users: int
    last_used: datetime | None = None

    def __post_init__(self) -> None:
        _require_aware(last_used=self.last_used)


@dataclass(frozen=True)
class Snapshot:
    """All of it, at ``taken``. ``usage`` is of the file system that holds the engine's data root.

    The order within the tuples means nothing. ``problems`` are sentences about what could not be read. ``anchor`` tells
    the last of the engine's events that are in it from all others. Raises ``ValueError`` where an image ID is there
    twice.
    """

    taken: datetime
    usage: DiskUsage
    images: tuple[ImageState, ...] = ()
    containers: tuple[ContainerState, ...] = ()
    leases: tuple[LeaseState, ...] = ()
    build_cache: tuple[CacheEntry, ...] = ()
    anonymous_volumes: tuple[VolumeState, ...] = ()
    problems: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()
    anchor: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _require_aware(taken=self.taken)
        if len({image.id for image in self.images}) < len(self.images):
            raise ValueError("images: an image ID is listed twice; list each image once, with all its tags")


def _require_aware(**dates: datetime | None) -> None:
    for name, value in dates.items():
        if value is not None and value.tzinfo is None:
            raise ValueError(f"{name}: {value.isoformat()} has no time zone; give it one, such as +00:00")
