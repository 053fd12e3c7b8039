"""Whether a planned removal may still be done, on a fresh snapshot: plan ∩ still eligible. Pure.

The same protections as in the plan, asked anew. An apply does this just before each removal; what has become eligible
since is left to the next plan.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from caisson.engine import ImageID, short_id
from caisson.retention.cache import own_bytes, shared_bytes
from caisson.retention.containers import container_expiry, volume_expiry
from caisson.retention.expiry import image_expiry, name_expiry
from caisson.retention.facts import Facts
from caisson.retention.policy import RetentionPolicy
from caisson.retention.protections import ANCESTOR, protections_of
from caisson.retention.prune_plan import (
    PlanItem,
    PruneBuildCache,
    RemoveContainer,
    RemoveImage,
    RemoveTag,
    RemoveVolume,
)
from caisson.sizes import format_size
from caisson.snapshot import ImageState, Snapshot


@dataclass(frozen=True)
class Verdict:
    """``gone`` when there is nothing left to remove, which is no failure; ``deny`` when it has to stay now."""

    decision: Literal["allow", "deny", "gone"]
    rule: str
    reason: str

    @property
    def allowed(self) -> bool:
        return self.decision == "allow"


def recheck(
    item: PlanItem,
    fresh: Snapshot,
    policy: RetentionPolicy,
    now: datetime,
    *,
    removed: Collection[ImageID] = (),
) -> Verdict:
    """The verdict on one item; ``removed`` are images that were removed after ``fresh`` was taken.

    For many items on one snapshot make one ``Recheck``.
    """
    return Recheck(fresh, policy, now).verdict(item, removed=removed)


class Recheck:
    """Verdicts on a plan's items, on one fresh snapshot."""

    def __init__(self, fresh: Snapshot, policy: RetentionPolicy, now: datetime) -> None:
        self._facts = Facts(fresh, policy, now)

    def verdict(self, item: PlanItem, *, removed: Collection[ImageID] = ()) -> Verdict:
        problems = self._facts.snapshot.problems
        if problems:
            return Verdict("deny", "incomplete", f"the host could not be read in full: {problems[0]}")
        unread = self._facts.snapshot.unread
        if unread and isinstance(item, PruneBuildCache | RemoveVolume):
            return Verdict("deny", "incomplete", f"it could not be read: {unread[0]}")
        match item:
            case RemoveImage():
                return self._image(item, removed)
            case RemoveTag():
                return self._tag(item, removed)
            case RemoveContainer():
                return self._container(item)
            case RemoveVolume():
                return self._volume(item)
            case PruneBuildCache():
                return self._cache(item)

    def _image(self, item: RemoveImage, removed: Collection[ImageID]) -> Verdict:
        facts, image = self._facts, self._facts.by_id.get(item.image.id)
        if image is None or image.id in removed:
            return Verdict("gone", item.rule, "the image is not there any more")
        added = sorted(set(image.tags) - set(item.image.tags))
        if added:
            return Verdict("deny", "changed", f"it got the tag {added[0]} after the plan was made")
        for protection in protections_of(facts, image):
            return Verdict("deny", protection.rule, protection.reason)
        if child := self._child(image, removed):
            return Verdict("deny", ANCESTOR, f"the image {short_id(child)} was built on it")
        if item.phase == "evicted":
            return self._evicted(item, image)
        expiry = image_expiry(facts, image)
        if expiry is None:
            return Verdict("deny", "changed", "its time is not over any more")
        return Verdict("allow", expiry.rule, expiry.reason)

    def _child(self, image: ImageState, removed: Collection[ImageID]) -> ImageID | None:
        return next((child for child in self._facts.children.get(image.id, ()) if child not in removed), None)

    def _evicted(self, item: RemoveImage, image: ImageState) -> Verdict:
        planned = item.image.last_used
        if planned is None or self._facts.last_use[image.id] > planned:
            return Verdict("deny", "changed", "it was used after the plan was made")
        return Verdict("allow", item.rule, item.reason)

    def _tag(self, item: RemoveTag, removed: Collection[ImageID]) -> Verdict:
        facts, image = self._facts, self._facts.by_id.get(item.image.id)
        if image is None or image.id in removed or item.reference not in image.tags:
            return Verdict("gone", item.rule, "the tag is not there any more, or points to another image")
        for protection in protections_of(facts, image):
            if protection.whole:
                return Verdict("deny", protection.rule, protection.reason)
        if child := self._child(image, removed):
            return Verdict("deny", ANCESTOR, f"the image {short_id(child)} was built on it")
        # All readable, or the protection of unreadable names would have held.
        expiries = {tag: name_expiry(facts, image, name) for tag, name in facts.tags(image)}
        if all(expiries.values()):
            return Verdict("deny", "changed", "none of the image's tags would be left")
        expiry = expiries[item.reference]
        if expiry is None:
            return Verdict("deny", "changed", "its time is not over any more")
        return Verdict("allow", expiry.rule, expiry.reason)

    def _container(self, item: RemoveContainer) -> Verdict:
        found = next((c for c in self._facts.snapshot.containers if c.id == item.id), None)
        if found is None:
            return Verdict("gone", item.rule, "the container is not there any more")
        expiry = container_expiry(self._facts, found)
        if expiry is None:
            return Verdict("deny", "changed", f"it is {found.state}, and its time is not over")
        return Verdict("allow", expiry.rule, expiry.reason)

    def _volume(self, item: RemoveVolume) -> Verdict:
        found = next((v for v in self._facts.snapshot.anonymous_volumes if v.name == item.name), None)
        if found is None:
            return Verdict("gone", item.rule, "the volume is not there any more")
        expiry = volume_expiry(self._facts, found)
        if expiry is None:
            return Verdict("deny", "changed", "a container has it, or its time is not over")
        return Verdict("allow", expiry.rule, expiry.reason)

    def _cache(self, item: PruneBuildCache) -> Verdict:
        policy = self._facts.policy.build_cache
        reserved, min_free = policy.reserved_space, policy.min_free_space or 0
        if item.min_free_bytes > min_free:
            return Verdict("deny", "changed", f"min_free_space is {format_size(min_free)} now")
        # For want of free space the engine goes on to what is reserved.
        least = min(item.keep_bytes, item.reserved_bytes) if item.min_free_bytes else item.keep_bytes
        if least + shared_bytes(self._facts.snapshot.build_cache) < reserved:
            return Verdict("deny", "changed", f"less than reserved_space, {format_size(reserved)}, would be left")
        if own_bytes(self._facts.snapshot.build_cache) <= item.keep_bytes:
            return Verdict("gone", item.rule, "the build cache is not larger than that any more")
        return Verdict("allow", item.rule, item.reason)
