"""How much build cache goes, by BuildKit's three numbers. Pure.

Records that are shared with images are not BuildKit's to remove, nor does it count them when it looks how much there is
(measured on 20.10 and 26.1): here neither. But they are cache for builds all the same, so what is reserved is reached
with them, too, where it is about how much more may go under pressure.
"""

from __future__ import annotations

from collections.abc import Iterable

from caisson.retention.policy import CachePolicy
from caisson.retention.prune_plan import PruneBuildCache
from caisson.retention.room import Room
from caisson.sizes import format_size
from caisson.snapshot import CacheEntry


def plan_cache(
    entries: Iterable[CacheEntry], policy: CachePolicy, room: Room, *, freed_later: int = 0
) -> PruneBuildCache | None:
    """Down to ``max_used_space``, or further while ``min_free_space`` is not free, but never below ``reserved_space``.

    The estimate counts what is neither in use nor shared with images: only that is sure to be given back.
    ``freed_later`` of what is planned goes only after the cache, which must not go for want of it.
    """
    entries = tuple(entries)
    total = own_bytes(entries)
    keep, rule, reason = total, "", ""
    if policy.max_used_space is not None and total > policy.max_used_space:
        keep, rule = policy.max_used_space, "cache-ceiling"
        reason = f"{format_size(total)} of build cache, and max_used_space is {format_size(policy.max_used_space)}"
    if policy.min_free_space is not None and room.free_bytes < policy.min_free_space:
        lower = total - (policy.min_free_space - room.free_bytes)
        if lower < keep:
            keep, rule = lower, "cache-min-free"
            reason = (
                f"{format_size(room.free_bytes)} are free, and min_free_space is {format_size(policy.min_free_space)}"
            )
    freed = min(total - max(keep, policy.reserved_space), _reclaimable(entries))
    if not rule or freed <= 0:
        return None
    return PruneBuildCache(
        keep_bytes=max(keep, policy.reserved_space),
        seen_bytes=total,
        phase="build-cache",
        rule=rule,
        reason=reason,
        marginal_bytes=freed,
        reserved_bytes=policy.reserved_space,
        min_free_bytes=max(0, (policy.min_free_space or 0) - freed_later),
    )


def evict_cache(
    entries: Iterable[CacheEntry],
    policy: CachePolicy,
    room: Room,
    planned: PruneBuildCache | None,
    *,
    unfreed_bytes: int = 0,
) -> PruneBuildCache | None:
    """What more has to go under pressure when images alone don't suffice, down to ``reserved_space``.

    With ``unfreed_bytes`` what images did not free that should have: so much of it goes before others.
    """
    entries = tuple(entries)
    total = planned.keep_bytes if planned else own_bytes(entries)
    left = _reclaimable(entries) - (planned.marginal_bytes if planned else 0)
    wanted = min(room.missing_bytes, unfreed_bytes or left, left)
    # Images that are planned to go may take as many bytes from what is shared.
    shared = max(0, shared_bytes(entries) - room.reclaimable)
    reserved = max(0, policy.reserved_space - shared)
    keep = max(total - wanted, reserved)
    if not room.short or keep >= total:
        return None
    reason = "images alone don't free enough, and cache down to reserved_space may go under pressure"
    if unfreed_bytes:
        reason = (
            f"images freed {format_size(unfreed_bytes)} less than they hold, as where build cache holds that as well"
        )
    return PruneBuildCache(
        keep_bytes=keep,
        seen_bytes=own_bytes(entries),
        phase="cache-evicted",
        rule="cache-pressure",
        reason=reason,
        marginal_bytes=total - keep,
        reserved_bytes=reserved,
    )


def own_bytes(entries: Iterable[CacheEntry]) -> int:
    """The cache that is BuildKit's alone, in use or not."""
    return sum(entry.size for entry in entries if not entry.shared)


def shared_bytes(entries: Iterable[CacheEntry]) -> int:
    """The cache that images hold as well."""
    return sum(entry.size for entry in entries if entry.shared)


def _reclaimable(entries: tuple[CacheEntry, ...]) -> int:
    return sum(entry.size for entry in entries if not entry.in_use and not entry.shared)
