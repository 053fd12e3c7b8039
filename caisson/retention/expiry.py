"""Which images and which single names have had their time, disk full or not. Pure."""

from __future__ import annotations

from caisson.durations import format_age, format_duration
from caisson.plan import REPOSITORY_UNDER_CONSTRUCTION
from caisson.reference import Reference
from caisson.retention.facts import Facts
from caisson.retention.protections import Reason, is_leftover
from caisson.snapshot import ImageState

DANGLING = "dangling"
LEFTOVER = "leftover"
EXPIRED = "expired"


def image_expiry(facts: Facts, image: ImageState) -> Reason | None:
    """Why the whole image has had its time: it has no name, or the time of every name is over; else None.

    Protections are not asked here.
    """
    idle = facts.idle(image)
    if image.is_untagged:
        if idle < facts.policy.dangling_age:
            return None
        return Reason(DANGLING, f"untagged and not used for {format_age(idle)}")
    reasons = [name_expiry(facts, image, name) for name in facts.names[image.id]]
    if not reasons or any(reason is None for reason in reasons):
        return None
    if is_leftover(facts, image):
        return reasons[0]
    return next(reason for reason in reasons if reason and reason.rule == EXPIRED)


def name_expiry(facts: Facts, image: ImageState, name: Reference) -> Reason | None:
    """Why one name of an image has had its time, or None.

    Its repository's ``max_age`` is over, no keep pattern matches it, and the image is not among the newest there. The
    name of an unfinished build has ``leftovers_age``.
    """
    idle = facts.idle(image)
    if name.repository.canonical() == REPOSITORY_UNDER_CONSTRUCTION:
        if idle < facts.policy.leftovers_age:
            return None
        return Reason(LEFTOVER, f"left by a build that did not finish, {format_age(idle)} ago")
    retention = facts.retention(name.repository)
    if retention.max_age is None or idle < retention.max_age:
        return None
    if facts.kept_by_pattern(name) or name.repository in facts.newest.get(image.id, ()):
        return None
    return Reason(
        EXPIRED,
        f"not used for {format_age(idle)}, longer than the {format_duration(retention.max_age)} of {name.repository}",
    )


def why_not_expired(facts: Facts, image: ImageState) -> str:
    """For an image that is neither protected nor expired: what it still has of its time."""
    idle = format_age(facts.idle(image))
    if image.is_untagged:
        return f"untagged; not used for {idle}, and goes after {format_duration(facts.policy.dangling_age)}"
    for name in facts.names[image.id]:
        retention = facts.retention(name.repository)
        if name_expiry(facts, image, name) is None:
            if retention.max_age is None:
                return f"not used for {idle}; {name.repository} has no max_age, so it goes under pressure only"
            return f"not used for {idle}, and goes after {format_duration(retention.max_age)}"
    return f"not used for {idle}"
