"""Every image of a host as a prune would treat it: what it holds, its last use, by which rule. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from pydantic import AwareDatetime

from caisson.engine import ImageID
from caisson.ledger import KnownImage
from caisson.reference import parse_reference
from caisson.retention.patterns import matches_repository
from caisson.retention.prune_plan import KeptImage, Phase, PrunePlan, RemoveImage, RemoveTag

_LENT = "an image that was built on it was used"
_UNKNOWN = "not known"


@dataclass(frozen=True)
class ImageRow:
    """One image. ``rule`` and ``reason`` are the plan's, ``phase`` is where it goes in the plan, None where it stays.

    ``marginal_bytes`` is what it frees after the plan's items before it, or, where it stays, what it alone would free
    after the whole plan; ``size`` counts shared layers too. ``last_use`` says how the last use is known, ``going_tags``
    are tags that go while the image stays.
    """

    id: ImageID
    tags: tuple[str, ...]
    registry_digests: tuple[str, ...]
    size: int
    marginal_bytes: int
    first_seen: AwareDatetime | None
    last_used: AwareDatetime | None
    last_use: str
    decision: Literal["keep", "remove"]
    rule: str
    reason: str
    phase: Phase | None = None
    going_tags: tuple[str, ...] = ()


def image_rows(plan: PrunePlan, known: Mapping[ImageID, KnownImage]) -> list[ImageRow]:
    """All images of the plan, those that hold most by themselves first; ``known`` is what the ledger knows of them."""
    going_tags: dict[ImageID, list[str]] = defaultdict(list)
    for item in plan.items:
        if isinstance(item, RemoveTag):
            going_tags[item.image.id].append(item.reference)
    images = (item for item in (*plan.items, *plan.kept) if isinstance(item, RemoveImage | KeptImage))
    rows = [_row(item, known, going_tags.get(item.image.id, ())) for item in images]
    return sorted(rows, key=lambda row: (-row.marginal_bytes, row.id))


def _row(
    item: RemoveImage | KeptImage, known: Mapping[ImageID, KnownImage], going_tags: list[str] | tuple[()]
) -> ImageRow:
    image = item.image
    return ImageRow(
        id=image.id,
        tags=image.tags,
        registry_digests=image.registry_digests,
        size=image.size,
        marginal_bytes=item.marginal_bytes,
        first_seen=image.first_seen,
        last_used=image.last_used,
        last_use=_last_use(item, known.get(image.id)),
        decision="remove" if isinstance(item, RemoveImage) else "keep",
        rule=item.rule,
        reason=item.reason,
        phase=item.phase if isinstance(item, RemoveImage) else None,
        going_tags=tuple(going_tags),
    )


def _last_use(item: RemoveImage | KeptImage, known: KnownImage | None) -> str:
    if known is None or item.image.last_used is None:
        return _UNKNOWN
    # The plan knows of uses that the ledger does not: a parent is used by whoever uses its child.
    return known.last_use if item.image.last_used <= known.last_used else _LENT


def of_repositories(rows: list[ImageRow], pattern: str) -> Iterator[ImageRow]:
    """Those with a name in a repository that the pattern matches; a name that can't be read matches nothing."""
    for row in rows:
        if any(_matches(pattern, name) for name in (*row.tags, *row.registry_digests)):
            yield row


def _matches(pattern: str, name: str) -> bool:
    try:
        return matches_repository(pattern, parse_reference(name).repository)
    except ValueError:
        return False
