"""``PrunePlan``: what a prune would remove, in order, and what it keeps, each with rule and reason. Values only.

Bytes in a plan are estimates (*reclaimable*); only an apply that asks the file system knows what was freed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import AwareDatetime, Field

from caisson.disk import DiskUsage
from caisson.engine import ContainerID, ImageID

Phase = Literal["leftovers", "containers", "volumes", "build-cache", "expired", "evicted", "cache-evicted"]
ONLY_UNDER_PRESSURE: frozenset[Phase] = frozenset(("evicted", "cache-evicted"))
PHASES: tuple[Phase, ...] = (
    "leftovers",
    "containers",
    "volumes",
    "build-cache",
    "expired",
    "evicted",
    "cache-evicted",
)
"""The order of a plan: aged untagged images and leftovers first, least recently used ones last.

Where images freed less than they should have, build cache goes before more of them (``Attempt.unfreed_bytes``).
"""


INODES_TIMES = 4
"""So many times fewer inodes each further plan expects of an image; the apply stops at the target all the same."""


@dataclass(frozen=True)
class FreeTarget:
    """What is to be free where a prune under pressure may end: the low threshold, in bytes and inodes.

    Raises ``ValueError`` for a negative one. Inodes are not looked at where the file system has no fixed number.
    """

    free_bytes: int = 0
    free_inodes: int = 0

    def __post_init__(self) -> None:
        for name in ("free_bytes", "free_inodes"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}: {getattr(self, name)} is negative; give 0 or more")


@dataclass(frozen=True)
class Attempt:
    """Which plan of a prune it is, from 1, and what came of the last one where it was not enough.

    ``unfreed_bytes`` is what its removals were to free and did not. ``inodes_over`` says how many times fewer inodes
    images may have than is estimated by their bytes.
    """

    number: int = 1
    unfreed_bytes: int = 0
    inodes_over: int = 1

    def next(self, *, predicted: int, freed: int) -> Attempt:
        """The one after it, by the bytes that its removals were to free, and those that the disk gave back.

        Where not even half of them came, something else holds what the images held: then their number of inodes is not
        what was wrong.
        """
        unfreed = max(0, predicted - freed)
        over = 1 if 2 * unfreed > predicted else INODES_TIMES
        return Attempt(self.number + 1, unfreed, self.inodes_over * over)


def missing_to(target: FreeTarget, usage: DiskUsage) -> tuple[int, int]:
    """Bytes and inodes that are still to be freed; no inodes where the file system has no fixed number of them."""
    inodes = target.free_inodes - usage.free_inodes if usage.total_inodes else 0
    return max(0, target.free_bytes - usage.free_bytes), max(0, inodes)


def has_room(usage: DiskUsage, target: FreeTarget) -> bool:
    """Whether so much is free."""
    return not any(missing_to(target, usage))


@dataclass(frozen=True)
class SeenImage:
    """What was seen of an image when the plan was made; an apply takes nothing of which this is no longer so.

    ``last_used`` is the effective last use, or None where it is not known; ``size`` counts shared layers too.
    """

    id: ImageID
    tags: tuple[str, ...]
    registry_digests: tuple[str, ...]
    size: int
    first_seen: AwareDatetime | None
    last_used: AwareDatetime | None


@dataclass(frozen=True)
class RemoveImage:
    """An image with all its names. ``marginal_bytes``: what it frees after the items before it.

    Items with the same ``unit`` free their bytes only together; it is the ID of the first of them.
    """

    image: SeenImage
    phase: Phase
    rule: str
    reason: str
    marginal_bytes: int
    unit: ImageID
    kind: Literal["image"] = "image"


@dataclass(frozen=True)
class RemoveTag:
    """One tag of an image that stays."""

    reference: str
    image: SeenImage
    phase: Phase
    rule: str
    reason: str
    marginal_bytes: int = 0
    kind: Literal["tag"] = "tag"


@dataclass(frozen=True)
class RemoveContainer:
    """A container that has exited; its bytes are those of its writable layer."""

    id: ContainerID
    name: str
    image: ImageID
    finished: AwareDatetime | None
    phase: Phase
    rule: str
    reason: str
    marginal_bytes: int
    kind: Literal["container"] = "container"


@dataclass(frozen=True)
class RemoveVolume:
    """An anonymous volume that no container has."""

    name: str
    last_used: AwareDatetime | None
    phase: Phase
    rule: str
    reason: str
    marginal_bytes: int
    kind: Literal["volume"] = "volume"


@dataclass(frozen=True)
class PruneBuildCache:
    """Bring the build cache down to ``keep_bytes`` by BuildKit's own order; ``seen_bytes`` is what it had.

    Further while less than ``min_free_bytes`` is free on its disk (0: not for that), never below ``reserved_bytes``:
    the engine sees to both at that moment, where its API has words for them.
    """

    keep_bytes: int
    seen_bytes: int
    phase: Phase
    rule: str
    reason: str
    marginal_bytes: int
    reserved_bytes: int = 0
    min_free_bytes: int = 0
    kind: Literal["build-cache"] = "build-cache"


PlanItem = Annotated[
    RemoveImage | RemoveTag | RemoveContainer | RemoveVolume | PruneBuildCache, Field(discriminator="kind")
]


@dataclass(frozen=True)
class KeptImage:
    """An image that stays. ``marginal_bytes``: what it alone would free, were it removed after the whole plan."""

    image: SeenImage
    rule: str
    reason: str
    marginal_bytes: int


@dataclass(frozen=True)
class PrunePlan:
    """A whole plan. ``items`` are in the order of the apply; every image is in ``items`` or in ``kept``, not in both.

    ``kept_bytes`` are bytes that only images kept by one rule hold, by rule; what images kept by several rules share is
    under ``several``. ``target`` is None without pressure. With ``problems`` there are no items; what
    is ``unread`` is only left out. ``engine`` is the ID of the engine that it was made for.
    """

    planned: AwareDatetime
    taken: AwareDatetime
    usage: DiskUsage
    target: FreeTarget | None
    items: tuple[PlanItem, ...]
    kept: tuple[KeptImage, ...]
    reclaimable_inodes: int = 0
    kept_bytes: Mapping[str, int] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()
    engine: str = ""

    @property
    def reclaimable_bytes(self) -> int:
        """What all items together would free."""
        return sum(item.marginal_bytes for item in self.items)

    @property
    def missing_bytes(self) -> int:
        """Bytes that stay missing to the target after all items; 0 where none do, or without pressure."""
        wanted = self.target.free_bytes if self.target else 0
        return max(0, wanted - self.usage.free_bytes - self.reclaimable_bytes)

    @property
    def missing_inodes(self) -> int:
        """The same in inodes."""
        wanted = self.target.free_inodes if self.target and self.usage.total_inodes else 0
        return max(0, wanted - self.usage.free_inodes - self.reclaimable_inodes)

    @property
    def reaches_target(self) -> bool:
        return not self.missing_bytes and not self.missing_inodes
