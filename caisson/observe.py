"""One look at the engine: what is on it, and when each image was last used, recorded in the ledger.

A read that fails raises, and then nothing is recorded and there is no snapshot: nothing is deleted on half a picture.
The engine is asked three times, once or twice more for each image that was never seen before, and with the containerd
store once for each reference that was pulled or pushed since. Images are listed
first and events read last, so that a container that comes and goes meanwhile is in the events.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from caisson.blob_sizes import sizes_with_blobs
from caisson.builder import is_builder
from caisson.deployed import deployed, ran, running
from caisson.disk import DiskUsage
from caisson.engine import ContainerInfo, Engine, EngineEvent, ImageID, ImageInfo
from caisson.engine_disk import EngineDisk
from caisson.engine_events import ImageNames, Replay, full_name, replay, used_volumes, uses_of
from caisson.errors import EngineRefused
from caisson.event_replay import LOST, names_of, read_registries
from caisson.last_use import Evidence, Use, last_uses
from caisson.layer_sizes import chain_ids, known_sizes, sizes_by_history, sizes_by_subtraction
from caisson.leases import Held
from caisson.ledger import KnownImage, KnownVolume, Ledger
from caisson.ledger.observation import Position
from caisson.reference import parse_reference
from caisson.snapshot import (
    ChainID,
    ContainerState,
    ImageState,
    LeaseState,
    Snapshot,
    StoredLayer,
    steps_of_own_builds,
)
from caisson.snapshot_disk import DiskUnread, with_disk
from caisson.volume_use import look_at_volumes


@dataclass(frozen=True)
class _Read:
    """What the engine said, before the ledger is asked."""

    images: Mapping[ImageID, ImageInfo]
    containers: Sequence[ContainerInfo]
    events: Sequence[EngineEvent]


@dataclass(frozen=True)
class _Present:
    """One image that is there: as it was listed, its layers, and when it was last tagged, if that was read."""

    info: ImageInfo
    layers: tuple[StoredLayer, ...]
    tagged: datetime | None = None


def observe(
    engine: Engine,
    ledger: Ledger,
    held: Held,
    usage: DiskUsage,
    *,
    now: datetime,
    containerd_store: bool = False,
    with_ends: bool = False,
    disk: EngineDisk | DiskUnread | None = None,
    is_recorded: bool = True,
) -> Snapshot:
    """The snapshot of this moment; raises ``EngineUnreachable``, ``EngineRefused`` and ``LedgerUnusable``.

    ``usage`` is of the engine's disk, ``held`` are the leases: ``Leases.held()``, or what ``Leases.exclude()`` gives
    just before a removal. With ``with_ends`` it costs one call more for each container that has exited, and it tells
    when that was; without, of none. ``disk`` is the engine's account of its disk, as ``read_disk`` gives it: without it
    the build cache, volumes and what containers wrote are not in the snapshot. What is not ``is_recorded``, as by a
    clock that is in doubt, leaves no trace in the ledger.
    """
    # Before the engine is asked: others look as well, and what they replay meanwhile must not be missing in our events.
    position = ledger.observations.position()
    images = _by_id(engine.list_images(intermediate=True))
    read = _Read(images, _containers(engine, with_ends=with_ends), engine.events())
    known = ledger.images.known()
    present = _inspect_new(engine, read.images, known, containerd_store=containerd_store)
    replayed = replay(read.events, position.anchor if position else ())
    names = names_of(known, replayed.events, present)
    for image_id, found in present.items():
        names.add(image_id, (*found.info.tags, *found.info.digests))
    evidence = _evidence(present, known, position, _in_use(read.containers, names), now)
    for image, use in uses_of(replayed.events, names).items():
        if image in evidence:
            evidence[image] = _with(evidence[image], use)
    if not replayed.is_complete:
        lost = Use(now, LOST)
        evidence = {image: _with(found, lost) for image, found in evidence.items()}
    uses = last_uses(evidence, now=now)
    registries = read_registries(engine, replayed.events) if containerd_store else {}
    told = ledger.images.registries()
    records = {
        image: _record(
            image,
            present[image],
            known.get(image),
            use,
            {*registries.get(image, ()), *told.get(image, ())},
            position,
            now,
        )
        for image, use in uses.items()
    }
    inspected = {
        image: found.layers for image, found in present.items() if image not in known or known[image].layers is None
    }
    volumes = _volumes(ledger, read.containers, disk, replayed, now)
    if is_recorded:
        ledger.observations.record(
            records.values(),
            inspected,
            Position(now, replayed.anchor, now),
            now,
            registries=registries,
            known_volumes=volumes.values(),
            running=running(read.containers),
            ran=ran(replayed.events, names, ledger.services.names(), now),
        )
    snapshot = _snapshot(read, present, records, ledger, held, usage, now, containerd_store=containerd_store)
    return replace(with_disk(snapshot, disk, volumes), anchor=replayed.anchor)


def _volumes(
    ledger: Ledger,
    containers: Iterable[ContainerInfo],
    disk: EngineDisk | DiskUnread | None,
    replayed: Replay,
    now: datetime,
) -> dict[str, KnownVolume]:
    """The anonymous volumes as the ledger is to know them; without an account no new ones but those of containers."""
    listed = disk.volumes if isinstance(disk, EngineDisk) else ()
    held = {name for container in containers for name in container.volumes}
    return look_at_volumes(
        ledger.volumes.known(),
        listed={volume.name for volume in listed},
        held=held | {volume.name for volume in listed if volume.users},
        used=used_volumes(replayed.events),
        is_complete=replayed.is_complete,
        now=now,
    )


def _containers(engine: Engine, *, with_ends: bool) -> list[ContainerInfo]:
    listed = engine.list_containers({})
    if not with_ends:
        return listed
    ends = ((container, _has_ended(container) and engine.inspect_container(container.id)) for container in listed)
    return [replace(container, finished=found.finished) if found else container for container, found in ends]


def _has_ended(container: ContainerInfo) -> bool:
    return container.state in ("exited", "dead")


def _by_id(listed: Iterable[ImageInfo]) -> dict[ImageID, ImageInfo]:
    images: dict[ImageID, ImageInfo] = {}
    for image in listed:
        before = images.get(image.id)
        tags = dict.fromkeys((*(before.tags if before else ()), *image.tags))
        digests = dict.fromkeys((*(before.digests if before else ()), *image.digests))
        images[image.id] = replace(image, tags=tuple(tags), digests=tuple(digests))
    return images


def _inspect_new(
    engine: Engine,
    images: Mapping[ImageID, ImageInfo],
    known: Mapping[ImageID, KnownImage],
    *,
    containerd_store: bool,
) -> dict[ImageID, _Present]:
    """All that are there, without those that have gone meanwhile."""
    present: dict[ImageID, _Present] = {}
    new: list[ImageInfo] = []
    sizes: dict[ChainID, int] = {}
    for image_id, info in images.items():
        before = known.get(image_id)
        if before is not None and before.layers is not None:
            present[image_id] = _Present(info, before.layers)
            sizes.update(before.layers)
        elif (inspected := engine.inspect_image(image_id)) is not None:
            # By the ID that it is listed by, whatever its inspect says.
            new.append(replace(inspected, id=image_id))
    # Those with fewest layers first: the sizes of their layers tell those of the others'.
    for inspected in sorted(new, key=lambda image: len(image.layers)):
        layers = _read_layers(engine, inspected, sizes, containerd_store=containerd_store)
        if layers is not None:
            sizes.update(layers)
            present[inspected.id] = _Present(images[inspected.id], layers, inspected.last_tag_time)
    return present


def _read_layers(
    engine: Engine, image: ImageInfo, sizes: Mapping[ChainID, int], *, containerd_store: bool
) -> tuple[StoredLayer, ...] | None:
    """The layers of an image; None when it has gone meanwhile."""
    chain = chain_ids(image.layers)
    lower = known_sizes(chain, sizes)
    if containerd_store:
        found = tuple(lower) if len(lower) == len(chain) else None
    else:
        found = sizes_by_subtraction(chain, lower, image.size)
    if found is None:
        try:
            steps = [step.size for step in engine.history(image.id)]
        except EngineRefused:
            if engine.inspect_image(image.id) is None:
                return None
            raise
        found = sizes_by_history(image.layers, lower, steps)
    return tuple(StoredLayer(chain_id, size) for chain_id, size in zip(chain, found, strict=True))


def _in_use(containers: Iterable[ContainerInfo], names: ImageNames) -> dict[ImageID, str]:
    """Images of containers in any state, with the name of one; also by name where the ID is not listed."""
    users: dict[ImageID, str] = {}
    for container in containers:
        for image in {container.image, *(names.find(container.image_name) if container.image_name else ())}:
            users[image] = container.name
    return users


def _evidence(
    present: Mapping[ImageID, _Present],
    known: Mapping[ImageID, KnownImage],
    position: Position | None,
    users: Mapping[ImageID, str],
    now: datetime,
) -> dict[ImageID, Evidence]:
    evidence: dict[ImageID, Evidence] = {}
    for image_id, found in present.items():
        before, uses = known.get(image_id), list[Use]()
        if _is_new(before, position):
            uses.append(Use(now, "first seen"))
        if before is not None:
            uses.append(Use(before.last_used, before.last_use))
        if found.tagged is not None:
            uses.append(Use(found.tagged, "tagged"))
        if before is not None and (given := _new_tags(found.info, before)):
            # BuildKit gives names to images that it has in its cache, and not every engine has an event for it.
            uses.append(Use(now, f"it got the tag {given[0]}"))
        if image_id in users:
            uses.append(Use(now, f"in use by the container {users[image_id]}"))
        evidence[image_id] = Evidence(tuple(layer.chain_id for layer in found.layers), tuple(uses))
    return evidence


def _new_tags(image: ImageInfo, before: KnownImage) -> list[str]:
    names = {full_name(name) or name for name in before.names}
    return [tag for tag in image.tags if (full_name(tag) or tag) not in names]


def _is_new(before: KnownImage | None, position: Position | None) -> bool:
    """Never seen, or gone in between: then it was pulled, loaded or built again."""
    return before is None or position is None or position.listed is None or before.last_listed < position.listed


def _with(evidence: Evidence, use: Use) -> Evidence:
    return replace(evidence, uses=(*evidence.uses, use))


def _record(
    image: ImageID,
    found: _Present,
    before: KnownImage | None,
    use: Use,
    registries: set[str],
    position: Position | None,
    now: datetime,
) -> KnownImage:
    return KnownImage(
        id=image,
        first_seen=now if before is None or _is_new(before, position) else before.first_seen,
        last_used=use.at,
        last_use=use.how,
        last_listed=now,
        names=(*found.info.tags, *found.info.digests),
        registries=tuple(sorted(registries | set(before.registries if before else ()))),
        layers=found.layers,
    )


def _snapshot(
    read: _Read,
    present: Mapping[ImageID, _Present],
    records: Mapping[ImageID, KnownImage],
    ledger: Ledger,
    held: Held,
    usage: DiskUsage,
    now: datetime,
    *,
    containerd_store: bool,
) -> Snapshot:
    own, pushed = ledger.builds.own_images(), ledger.builds.pushed_repositories()
    ranks = deployed(ledger.services.list())
    stored = ((found.info.size, found.layers) for found in present.values())
    sizes = sizes_with_blobs(stored) if containerd_store else {}
    images = tuple(
        ImageState(
            id=image_id,
            tags=found.info.tags,
            registry_digests=_registry_digests(
                found.info.digests,
                {*records[image_id].registries, *pushed.get(image_id, ())} if containerd_store else None,
            ),
            labels=found.info.labels,
            layers=tuple(layer._replace(size=sizes.get(layer.chain_id, layer.size)) for layer in found.layers)
            if sizes
            else found.layers,
            parent=found.info.parent if found.info.parent in present else None,
            size=found.info.size,
            first_seen=records[image_id].first_seen,
            last_used=records[image_id].last_used,
            built_by_caisson=image_id in own,
            deployed=ranks.get(image_id),
            build_seconds=own.get(image_id),
        )
        for image_id, found in present.items()
    )
    return Snapshot(
        taken=now,
        usage=usage,
        images=_with_own_steps(images, ledger),
        containers=tuple(_container(container) for container in read.containers),
        leases=_lease_states(held, images),
    )


def _with_own_steps(images: tuple[ImageState, ...], ledger: Ledger) -> tuple[ImageState, ...]:
    """The steps of our builds, recorded: once an image has gone before its steps nothing else tells whose they were."""
    known = ledger.builds.own_steps()
    steps = (known & {image.id for image in images}) | steps_of_own_builds(images)
    if steps != known:
        ledger.builds.record_steps(steps)
    return tuple(replace(image, own_step=True) if image.id in steps else image for image in images)


def _registry_digests(digests: Iterable[str], registries: set[str] | None) -> tuple[str, ...]:
    """``registries`` None: every digest that the engine lists came from a registry."""
    named = [text for text in digests if not text.startswith("<none>")]
    if registries is None:
        return tuple(named)
    return tuple(text for text in named if _repository(text) in registries)


def _repository(text: str) -> str:
    """The repository in full; empty, and thus no registry's, where it can't be read."""
    try:
        return parse_reference(text).repository.canonical()
    except ValueError:
        return ""


def _container(container: ContainerInfo) -> ContainerState:
    return ContainerState(
        id=container.id,
        image=container.image,
        name=container.name,
        state=container.state,
        labels=container.labels,
        finished=container.finished,
        made_by_caisson=is_builder(container),
    )


def _lease_states(held: Held, images: Sequence[ImageState]) -> tuple[LeaseState, ...]:
    children: dict[ImageID, list[ImageState]] = {}
    for image in images:
        if image.parent is not None:
            children.setdefault(image.parent, []).append(image)
    states = []
    for lease in held.leases:
        needed = held.images_of(lease, ((image.id, (*image.tags, *image.registry_digests)) for image in images))
        # What the classic builder made of a base, untagged, is its cache; the build that runs may begin with it.
        grow = list(needed)
        while grow:
            for child in children.get(grow.pop(), ()):
                if child.id not in needed and not child.tags:
                    needed.add(child.id)
                    grow.append(child.id)
        state = LeaseState.of_names(lease.holder, lease.names)
        states.append(replace(state, images=state.images | needed))
    return tuple(states)
