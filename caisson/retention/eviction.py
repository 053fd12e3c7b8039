"""Which images go when the disk is full: those least worth keeping, until there is room. Pure.

Rules of this module:

- What is weighed are *units*: images that free their bytes only together. Those with the same layers are one; so is an
  image with the untagged steps that the classic builder made on its way to it, if nothing else stands on them.
- A unit's weight is idle time × marginal bytes ÷ the seconds that it takes to have it back. The heaviest goes first.
  After each, the weights of those that are now the last ones on a layer are taken anew.
- Children go before parents, and what would free nothing stays.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

from caisson.engine import ImageID
from caisson.layers import LayerHolders
from caisson.retention.facts import Facts
from caisson.retention.order import children_first
from caisson.snapshot import ImageState

PULL_OVERHEAD_SECONDS = 5.0
PULL_BYTES_PER_SECOND = 20 << 20
UNKNOWN_SECONDS = 3600.0
"""For what no registry has and nobody knows how to build: as dear as an hour's build."""
NAMELESS_SECONDS = 10.0
"""For what nothing can ask for by a name; all that is lost is a step that a later build might have taken from it."""


@dataclass(frozen=True)
class Evicted:
    """One unit that goes, its images in the order of their removal; ``idle`` and ``cost`` in seconds."""

    images: tuple[ImageState, ...]
    marginal_bytes: int
    idle: float
    cost: float


def rebuild_seconds(image: ImageState) -> float:
    """The least time it takes to have an image back: pulled from a registry, or built as long as its build took.

    >>> rebuild_seconds(ImageState(ImageID("a"), registry_digests=("debian@sha256:…",), size=200 << 20))
    15.0
    >>> rebuild_seconds(ImageState(ImageID("a")))
    10.0
    >>> rebuild_seconds(ImageState(ImageID("a"), tags=("app:1",)))
    3600.0
    """
    if image.is_untagged:
        return NAMELESS_SECONDS
    ways = [UNKNOWN_SECONDS]
    if image.registry_digests:
        ways.append(PULL_OVERHEAD_SECONDS + max(0, image.size) / PULL_BYTES_PER_SECOND)
    if image.build_seconds is not None:
        ways.append(max(1.0, image.build_seconds))
    return min(ways)


def weight(idle: float, size: int, cost: float) -> float:
    """The more, the less it is worth keeping; 0 is never evicted. Seconds × bytes ÷ seconds."""
    return idle * size / cost


def evict(
    facts: Facts,
    candidates: Collection[ImageState],
    removed: Collection[ImageID],
    image_layers: LayerHolders,
    is_short: Callable[[], bool],
) -> Iterator[Evicted]:
    """Units in the order of their removal, for as long as ``is_short()`` is true when the next one is asked for.

    ``candidates`` may go; ``removed`` are gone already; all other images stay. Candidates must have no children that
    stay. ``image_layers`` has the images as its holders, in the order of ``facts.images``.
    """
    if not candidates or not is_short():
        return
    gone = set(removed)
    units = _units(facts, candidates, gone)
    number_of = {image.id: number for number, image in enumerate(facts.images)}
    inside = {image.id for image in candidates}
    others = [[number] for image_id, number in number_of.items() if image_id not in inside and image_id not in gone]
    holders = image_layers.grouped([*([number_of[image.id] for image in unit] for unit in units), *others])
    unit_of = {image.id: number for number, unit in enumerate(units) for image in unit}
    blockers = _blockers(facts, units, unit_of)
    idle = [min(facts.idle(image).total_seconds() for image in unit) for unit in units]
    cost = [max(rebuild_seconds(image) for image in unit) for unit in units]
    heap: list[tuple[float, int]] = []
    current: dict[int, float] = {}

    def weigh(number: int) -> None:
        if number >= len(units) or blockers[number]:
            return
        value = weight(idle[number], holders.marginal(number), cost[number])
        if value > current.get(number, 0):
            current[number] = value
            heapq.heappush(heap, (-value, number))

    for number in range(len(units)):
        weigh(number)
    done: set[int] = set()
    while heap and is_short():
        value, number = heapq.heappop(heap)
        if number in done or -value != current[number]:
            continue
        done.add(number)
        freed = holders.remove(number)
        yield Evicted(tuple(children_first(units[number], facts)), freed.size, idle[number], cost[number])
        freed_parents = {unit_of[p] for image in units[number] if (p := image.parent) in unit_of} - {number}
        for parent in sorted(freed_parents):
            blockers[parent].discard(number)
        for other in sorted({*freed.now_alone, *freed_parents}):
            weigh(other)


def _units(facts: Facts, candidates: Iterable[ImageState], gone: Collection[ImageID]) -> list[list[ImageState]]:
    """The candidates in units, each in the order of image IDs, and the units in that of their first images."""
    by_layers: dict[Sequence[object], list[ImageState]] = defaultdict(list)
    for image in sorted(candidates, key=lambda image: image.id):
        # One without layers shares none, so it is its own unit.
        by_layers[tuple(layer.chain_id for layer in image.layers) or (image.id, None)].append(image)
    units = list(by_layers.values())
    unit_of = {image.id: number for number, unit in enumerate(units) for image in unit}
    # From the highest down, so that a step joins what stands on it together with all steps between.
    for number in sorted(range(len(units)), key=lambda number: (-len(units[number][0].layers), units[number][0].id)):
        unit = units[number]
        if not all(image.is_untagged for image in unit):
            continue
        children = {child for image in unit for child in facts.children.get(image.id, ())}
        above = {unit_of.get(child, -1) for child in children if child not in gone} - {number}
        if len(above) == 1 and (upper := above.pop()) >= 0:
            units[upper].extend(unit)
            unit_of.update((image.id, upper) for image in unit)
            units[number] = []
    merged = [sorted(unit, key=lambda image: image.id) for unit in units if unit]
    return sorted(merged, key=lambda unit: unit[0].id)


def _blockers(facts: Facts, units: Sequence[Sequence[ImageState]], unit_of: dict[ImageID, int]) -> list[set[int]]:
    """For each unit, the units with children of it: they have to go first."""
    blockers: list[set[int]] = [set() for _ in units]
    for number, unit in enumerate(units):
        for image in unit:
            for child in facts.children.get(image.id, ()):
                other = unit_of.get(child)
                if other is not None and other != number:
                    blockers[number].add(other)
    return blockers
