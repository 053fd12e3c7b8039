"""``plan_prune``: from what is on a host to what a prune would remove of it, and why. Pure.

The order: aged untagged images and leftovers → exited containers and anonymous volumes → build cache over its ceiling →
what retention has expired → least recently used under pressure, until there is room → build cache down to its reserve,
if there is none yet. Retention decides on names, eviction on image IDs, accounting on layers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from caisson.durations import format_age
from caisson.engine import ImageID
from caisson.layers import LayerHolders
from caisson.retention.cache import evict_cache, plan_cache
from caisson.retention.containers import plan_containers, plan_volumes
from caisson.retention.eviction import evict
from caisson.retention.expiry import EXPIRED, image_expiry, name_expiry, why_not_expired
from caisson.retention.facts import Facts
from caisson.retention.order import children_first
from caisson.retention.policy import RetentionPolicy
from caisson.retention.protections import Reason, ancestors_of, protections_of
from caisson.retention.prune_plan import (
    PHASES,
    Attempt,
    FreeTarget,
    KeptImage,
    Phase,
    PlanItem,
    PrunePlan,
    RemoveImage,
    RemoveTag,
    SeenImage,
)
from caisson.retention.room import Room
from caisson.sizes import format_size
from caisson.snapshot import ImageState, Snapshot

SEVERAL = "several"
NOT_EXPIRED = "not-expired"
NOT_NEEDED = "not-needed"
FREES_NOTHING = "frees-nothing"
EVICTED = "least-recently-used"
FIRST = Attempt()


@dataclass(frozen=True)
class _Going:
    """An image that goes: in which phase, why, and with whom."""

    image: ImageState
    phase: Phase
    reason: Reason
    unit: ImageID


@dataclass(frozen=True)
class Eligibility:
    """What may be removed at all: images by their protections, and those whose time is over."""

    protected: Mapping[ImageID, tuple[Reason, ...]]
    expired: Mapping[ImageID, Reason]
    held_up: Mapping[ImageID, Reason]
    """Whose time is over but whose child stays."""


def plan_prune(
    snapshot: Snapshot,
    policy: RetentionPolicy,
    now: datetime,
    *,
    pressure: FreeTarget | None,
    attempt: Attempt = FIRST,
) -> PrunePlan:
    """What a prune would do now. ``pressure`` is what has to be free at its end (the low threshold); None without it.

    Without pressure nothing goes but what has had its time. With it, no more is evicted than takes the estimate to the
    target. Where the plan before (``attempt``) freed less than it said, the build cache that holds it goes first.

    Raises ``ValueError`` for a ``now`` without a time zone.
    """
    if now.tzinfo is None:
        raise ValueError(f"now: {now.isoformat()} has no time zone; give it one, such as +00:00")
    facts = Facts(snapshot, policy, now)
    eligible = judge(facts)
    going = list(_expired(facts, eligible))
    before: tuple[PlanItem, ...] = (*plan_containers(facts), *plan_volumes(facts))
    room = Room(snapshot.usage, pressure, inodes_over=attempt.inodes_over)
    holders = LayerHolders(image.layers for image in facts.images)
    number_of = {image.id: number for number, image in enumerate(facts.images)}
    freed = {item.image.id: holders.remove(number_of[item.image.id]).size for item in going}
    # Pressure is judged after all that goes anyway, wherever it stands in the order.
    room.free(sum(freed.values()) + sum(item.marginal_bytes for item in before))
    entries = () if snapshot.problems else snapshot.build_cache
    # Of what goes by its time, only what is not expired goes before the cache.
    later = sum(freed[item.image.id] for item in going if item.phase == "expired")
    cache = plan_cache(entries, policy.build_cache, room, freed_later=later)
    room.free(cache.marginal_bytes if cache else 0)
    cache_evicted = None
    if attempt.unfreed_bytes:
        cache_evicted = evict_cache(entries, policy.build_cache, room, cache, unfreed_bytes=attempt.unfreed_bytes)
        room.free(cache_evicted.marginal_bytes if cache_evicted else 0)
    is_cache_first = cache_evicted is not None
    for item in _evicted(facts, eligible, going, holders, room):
        freed[item.image.id] = holders.remove(number_of[item.image.id]).size
        going.append(item)
    if cache_evicted is None:
        cache_evicted = evict_cache(entries, policy.build_cache, room, cache)
        room.free(cache_evicted.marginal_bytes if cache_evicted else 0)
    kept = list(_kept(facts, eligible, going, room))
    items: list[PlanItem] = [
        *(_item(facts, item, freed[item.image.id]) for item in going),
        *_tags(facts, eligible, going),
        *before,
        *(item for item in (cache, cache_evicted) if item),
    ]
    rank = {phase: number for number, phase in enumerate(PHASES)}
    if is_cache_first:
        rank["evicted"] = len(PHASES)
    return PrunePlan(
        planned=now,
        taken=snapshot.taken,
        usage=snapshot.usage,
        target=pressure,
        # Stable, so that within a phase the order is the one they were planned in.
        items=tuple(sorted(items, key=lambda item: rank[item.phase])),
        kept=tuple(
            KeptImage(_seen(facts, image), reason.rule, reason.reason, holders.marginal(number_of[image.id]))
            for image, reason in kept
        ),
        reclaimable_inodes=room.reclaimable_inodes,
        kept_bytes=_kept_bytes(facts, kept, holders),
        problems=snapshot.problems,
        unread=snapshot.unread,
    )


def judge(facts: Facts) -> Eligibility:
    """Which images are protected, and which of the others have had their time."""
    protected = {image.id: found for image in facts.images if (found := protections_of(facts, image))}
    protected |= {image_id: (reason,) for image_id, reason in list(ancestors_of(facts, protected))}
    expired = {
        image.id: reason
        for image in facts.images
        if image.id not in protected and (reason := image_expiry(facts, image)) is not None
    }
    staying = [image.id for image in facts.images if image.id not in expired]
    held_up = dict(ancestors_of(facts, staying))
    return Eligibility(
        protected=protected,
        expired={image_id: reason for image_id, reason in expired.items() if image_id not in held_up},
        held_up={image_id: reason for image_id, reason in held_up.items() if image_id in expired},
    )


def _expired(facts: Facts, eligible: Eligibility) -> Iterator[_Going]:
    def key(image: ImageState) -> tuple[bool, datetime, ImageID]:
        return eligible.expired[image.id].rule == EXPIRED, facts.last_use[image.id], image.id

    phase: Phase = "leftovers"
    found = sorted((facts.by_id[image_id] for image_id in eligible.expired), key=key)
    for image in children_first(found, facts):
        reason = eligible.expired[image.id]
        # An untagged parent that had to wait for an expired child goes with it.
        phase = "expired" if reason.rule == EXPIRED else phase
        yield _Going(image, phase, reason, image.id)


def _evicted(
    facts: Facts, eligible: Eligibility, going: Iterable[_Going], holders: LayerHolders, room: Room
) -> Iterator[_Going]:
    removed = {item.image.id for item in going}
    candidates = [image for image in facts.images if image.id not in eligible.protected and image.id not in removed]
    for unit in evict(facts, candidates, removed, holders, lambda: room.short):
        room.free(unit.marginal_bytes)
        size, idle = format_size(unit.marginal_bytes), format_age(facts.idle(unit.images[0]))
        together = f" with {len(unit.images) - 1} more" if len(unit.images) > 1 else ""
        reason = f"not used for {idle}, frees {size}{together}, takes about {unit.cost:.0f} s to have back"
        for image in unit.images:
            yield _Going(image, "evicted", Reason(EVICTED, reason), unit.images[0].id)


def _kept(
    facts: Facts, eligible: Eligibility, going: Iterable[_Going], room: Room
) -> Iterator[tuple[ImageState, Reason]]:
    removed = {item.image.id for item in going}
    for image in facts.images:
        if image.id in removed:
            continue
        protections = eligible.protected.get(image.id)
        if protections:
            yield image, protections[0]
        elif image.id in eligible.held_up:
            yield image, eligible.held_up[image.id]
        elif room.under_pressure and room.short:
            # Eviction went to the end of what is worth anything.
            reason = "removing it would free nothing" if facts.idle(image) else "it was used at this very moment"
            yield image, Reason(FREES_NOTHING, reason)
        elif room.under_pressure:
            yield image, Reason(NOT_NEEDED, "there is room enough without its removal")
        else:
            yield image, Reason(NOT_EXPIRED, why_not_expired(facts, image))


def _tags(facts: Facts, eligible: Eligibility, going: Iterable[_Going]) -> Iterator[RemoveTag]:
    """Single names whose time is over, of images that stay; the longest unused first."""
    going = tuple(going)
    staying = {image.id for image in facts.images} - {item.image.id for item in going}
    # Names go before what is evicted does, so a child that is evicted still stands on its parent then.
    removed = {item.image.id for item in going if item.phase != "evicted"}
    for image in sorted(map(facts.by_id.__getitem__, staying), key=lambda image: (facts.last_use[image.id], image.id)):
        children = facts.children.get(image.id, ())
        # A parent keeps its names with it, as one that a protection keeps whole; else what it is named by would hang
        # on whether it stays for its own sake or for its child's.
        if all(child in removed for child in children):
            for tag, reason in _tag_expiries(facts, eligible, image):
                yield RemoveTag(tag, _seen(facts, image), "expired", reason.rule, reason.reason)


def _tag_expiries(facts: Facts, eligible: Eligibility, image: ImageState) -> list[tuple[str, Reason]]:
    """The tags of an image that stays whose time is over; never all of them, and none where a protection is whole."""
    if any(reason.whole for reason in eligible.protected.get(image.id, ())):
        return []
    tags = facts.tags(image)
    found = [(tag, reason) for tag, name in tags if (reason := name_expiry(facts, image, name)) is not None]
    return found if len(found) < len(tags) else []


def _item(facts: Facts, item: _Going, size: int) -> RemoveImage:
    return RemoveImage(
        image=_seen(facts, item.image),
        phase=item.phase,
        rule=item.reason.rule,
        reason=item.reason.reason,
        marginal_bytes=size,
        unit=item.unit,
    )


def _seen(facts: Facts, image: ImageState) -> SeenImage:
    known = image.last_used is not None and image.first_seen is not None
    return SeenImage(
        id=image.id,
        tags=tuple(sorted(image.tags)),
        registry_digests=tuple(sorted(image.registry_digests)),
        size=image.size,
        first_seen=image.first_seen,
        last_used=facts.last_use[image.id] if known else None,
    )


def _kept_bytes(facts: Facts, kept: Iterable[tuple[ImageState, Reason]], holders: LayerHolders) -> dict[str, int]:
    rule_of = {image.id: reason.rule for image, reason in kept}
    rules = sorted(set(rule_of.values()))
    number = {rule: index for index, rule in enumerate(rules)}
    group_of = [number.get(rule_of.get(image.id, ""), -1) for image in facts.images]
    totals = holders.held_by(group_of)
    return {SEVERAL if group < 0 else rules[group]: size for group, size in sorted(totals.items())}
