"""The engine's events between two looks at it, recorded before it forgets them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime

from caisson.deployed import ran
from caisson.engine import Engine, EngineEvent, ImageID
from caisson.engine_events import (
    ImageNames,
    registries_of,
    registry_transfers,
    replay,
    tags_of,
    unknown_names,
    used_volumes,
    uses_of,
)
from caisson.ledger import KnownImage, Ledger
from caisson.ledger.observation import Position

LOST = "perhaps: the engine's events have a gap"


def replay_events(engine: Engine, ledger: Ledger, *, now: datetime) -> bool:
    """Record what the events since the last look tell of images and volumes that are known; whether none was lost.

    One call to the engine, for between two looks: it keeps only its last 256 events, of which a host with many health
    checks makes more than that in minutes. One more for each reference that was pulled or pushed, and for each name of
    a container's image that is not known. Where some were lost, all of them count as used now. Raises as ``observe``.
    """
    position = ledger.observations.position()
    events = engine.events()
    known = ledger.images.known(layers=False)
    replayed = replay(events, position.anchor if position else ())
    given = tags_of(replayed.events)
    names = names_of(known, replayed.events)
    if replayed.is_complete:
        for name in unknown_names(replayed.events, names):
            if (image := engine.inspect_image(name)) is not None:
                names.add(image.id, [name])
                given.setdefault(image.id, set()).add(name)
        found = uses_of(replayed.events, names).items()
        uses = {image: (min(use.at, now), use.how) for image, use in found}
        volumes = used_volumes(replayed.events)
    else:
        uses = dict.fromkeys(known, (now, LOST))
        volumes = frozenset(ledger.volumes.known())
    listed = position.listed if position else None
    ledger.observations.record_uses(
        uses,
        Position(now, replayed.anchor, listed),
        names=given,
        registries=read_registries(engine, replayed.events),
        used_volumes=volumes,
        ran=ran(replayed.events, names, ledger.services.names(), now),
    )
    return replayed.is_complete


def read_registries(engine: Engine, events: Iterable[EngineEvent]) -> dict[ImageID, set[str]]:
    """What pulls and pushes tell of images as they are now: with the containerd store nothing else tells."""
    transfers = registry_transfers(events)
    return registries_of(transfers, {reference: engine.inspect_image(reference) for reference in transfers})


def names_of(
    known: Mapping[ImageID, KnownImage], events: Iterable[EngineEvent], more: Iterable[ImageID] = ()
) -> ImageNames:
    """The names that images had at the last look, or were given since; ``more`` are found by their IDs, too."""
    names = ImageNames({*known, *more})
    for image_id, before in known.items():
        names.add(image_id, before.names)
    names.add_tags_of(events)
    return names
