"""Who holds the disk: repositories by their layers, build cache, containers, volumes, logs, and what is not Docker's.

Sizes of images don't add up, for they share layers. So a repository has bytes that it alone holds (``exclusive``: what
its removal would give back) and bytes that others hold as well (``shared``). Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from pydantic import BaseModel, ConfigDict

from caisson.engine import ContainerID, ImageID
from caisson.engine_disk import EngineDisk
from caisson.layer_sizes import chain_ids, known_sizes, sizes_by_history
from caisson.reference import parse_reference
from caisson.sizes import format_size
from caisson.snapshot import ChainID, StoredLayer

UNTAGGED = "<untagged>"


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True)


class RepositoryBytes(_Value):
    """One repository on the disk; ``<untagged>`` are the images without a tag."""

    name: str
    images: int
    exclusive: int
    shared: int


class CacheBytes(_Value):
    """Build cache of one type (``regular``, ``source.local``, ``exec.cachemount``, …), without what images hold too."""

    type: str
    records: int
    size: int
    in_use: int


class ContainerBytes(_Value):
    """A container's own layer and its logs; ``logs`` is None where they can't be seen from this host."""

    name: str
    state: str
    writable: int
    logs: int | None


class VolumeBytes(_Value):
    """A volume; ``size`` is None where its driver does not tell."""

    name: str
    size: int | None
    users: int


class Attribution(_Value):
    """All of it, as of ``at``; it took ``seconds``. ``unknown`` says in sentences what could not be found out."""

    at: datetime
    seconds: float
    images: int = 0
    """Bytes of all images, each layer once."""
    repositories: tuple[RepositoryBytes, ...] = ()
    shared_layers: int = 0
    """Bytes of layers that several repositories hold."""
    build_cache: tuple[CacheBytes, ...] = ()
    containers: tuple[ContainerBytes, ...] = ()
    volumes: tuple[VolumeBytes, ...] = ()
    not_docker: int | None = None
    """Bytes in use on the data root's file system that Docker does not account for; None where that is not known."""
    unknown: tuple[str, ...] = ()


def attribute(
    disk: EngineDisk,
    *,
    layers: Mapping[ImageID, Sequence[StoredLayer]],
    logs: Mapping[ContainerID, int | None],
    used: int | None,
    at: datetime,
    seconds: float,
    unknown: Iterable[str] = (),
) -> Attribution:
    """Account for the disk; ``layers`` of as many images as could be read, ``used`` bytes of the data root's disk.

    ``used`` is None where Docker's things are on several file systems: then no difference can be told.
    """
    exclusive, shared, between = _by_repository(disk, layers)
    counts = dict.fromkeys(exclusive.keys() | shared.keys(), 0)
    for image in disk.images:
        for name in repositories_of(image.tags):
            counts[name] = counts.get(name, 0) + 1
    containers = tuple(
        ContainerBytes(name=item.name, state=item.state, writable=item.writable, logs=logs.get(item.id))
        for item in sorted(disk.containers, key=lambda item: -item.writable - (logs.get(item.id) or 0))
    )
    cache = _cache_by_type(disk)
    volumes = tuple(
        VolumeBytes(name=item.name, size=item.size, users=item.users)
        for item in sorted(disk.volumes, key=lambda item: -(item.size or 0))
    )
    dockers = (
        disk.layers_size
        + sum(item.size for item in cache)
        + sum(item.writable + (item.logs or 0) for item in containers)
        + sum(item.size or 0 for item in volumes)
    )
    return Attribution(
        at=at,
        seconds=seconds,
        images=disk.layers_size,
        repositories=tuple(
            RepositoryBytes(
                name=name, images=counts[name], exclusive=exclusive.get(name, 0), shared=shared.get(name, 0)
            )
            for name in sorted(counts, key=lambda name: (-exclusive.get(name, 0), -shared.get(name, 0), name))
        ),
        shared_layers=between,
        build_cache=cache,
        containers=containers,
        volumes=volumes,
        not_docker=None if used is None else max(0, used - dockers),
        unknown=tuple(unknown),
    )


def repositories_of(tags: Iterable[str]) -> tuple[str, ...]:
    """The repositories of an image by its tags, each once.

    >>> repositories_of(["app:1", "app:2", "registry.example.com:5000/app:1"]), repositories_of([])
    (('app', 'registry.example.com:5000/app'), ('<untagged>',))
    """
    return tuple(sorted({_repository(tag) for tag in tags})) or (UNTAGGED,)


def _repository(tag: str) -> str:
    try:
        return parse_reference(tag).repository.familiar()
    except ValueError:
        return tag


def chain(
    diff_ids: Sequence[str], sizes: Sequence[int], known: Mapping[ChainID, int] | None = None
) -> list[StoredLayer]:
    """The layers of an image, from the lowest up: their digests from its inspect, sizes from its history.

    Where the history does not tell which layers are empty, what is ``known`` of the lower ones goes first.
    """
    chained = chain_ids(diff_ids)
    found = sizes_by_history(diff_ids, known_sizes(chained, known or {}), sizes)
    return [StoredLayer(chain_id, size) for chain_id, size in zip(chained, found, strict=True)]


def _by_repository(
    disk: EngineDisk, layers: Mapping[ImageID, Sequence[StoredLayer]]
) -> tuple[dict[str, int], dict[str, int], int]:
    holders: dict[ChainID, set[str]] = {}
    sizes: dict[ChainID, int] = {}
    for image in disk.images:
        for layer, size in layers.get(image.id, ()):
            sizes[layer] = min(size, sizes.get(layer, size))
            holders.setdefault(layer, set()).update(repositories_of(image.tags))
    exclusive: dict[str, int] = {}
    shared: dict[str, int] = {}
    between = 0
    for layer, names in holders.items():
        if len(names) == 1:
            (name,) = names
            exclusive[name] = exclusive.get(name, 0) + sizes[layer]
            continue
        between += sizes[layer]
        for name in names:
            shared[name] = shared.get(name, 0) + sizes[layer]
    return exclusive, shared, between


def _cache_by_type(disk: EngineDisk) -> tuple[CacheBytes, ...]:
    types = sorted({item.type for item in disk.cache})
    made = []
    for name in types:
        # A shared record's bytes are those of an image's layer, and counted there.
        records = [item for item in disk.cache if item.type == name]
        own = [item for item in records if not item.shared]
        made.append(
            CacheBytes(
                type=name,
                records=len(records),
                size=sum(item.size for item in own),
                in_use=sum(item.size for item in own if item.in_use),
            )
        )
    return tuple(sorted(made, key=lambda item: -item.size))


def holders(found: Attribution, *, most: int = 4) -> list[str]:
    """What holds the most, in words, the largest first: for a sentence."""
    sized: list[tuple[int, str]] = [(item.exclusive, f"images of {item.name}") for item in found.repositories]
    sized.append((found.shared_layers, "layers that repositories share"))
    sized.append((sum(item.size for item in found.build_cache), "build cache"))
    sized.extend((item.writable, f"the files of container {item.name}") for item in found.containers)
    sized.extend((item.logs or 0, f"the log of container {item.name}") for item in found.containers)
    sized.extend((item.size or 0, f"volume {item.name[:40]}") for item in found.volumes)
    sized.append((found.not_docker or 0, "what Docker does not account for"))
    sized.sort(key=lambda item: -item[0])
    return [f"{what} {format_size(size)}" for size, what in sized[:most] if size]
