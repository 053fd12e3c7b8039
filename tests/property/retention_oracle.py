"""The protections once more, by other means: slow, plain, and from the raw values only."""

from __future__ import annotations

from datetime import datetime, timedelta

from caisson.reference import parse_reference
from caisson.retention.patterns import matches_reference, matches_repository, matches_tag
from caisson.retention.policy import Retention, RetentionPolicy, Scope
from caisson.snapshot import ImageState, Snapshot
from tests.prune_hosts import NOW


class Oracle:
    """Which images of a host are protected under a policy, at a moment."""

    def __init__(self, snapshot: Snapshot, policy: RetentionPolicy, now: datetime = NOW) -> None:
        self.snapshot, self.policy, self.now = snapshot, policy, now

    def retention(self, name: str) -> Retention:
        repository = parse_reference(name).repository
        rules = [rule for rule in self.policy.rules if matches_repository(rule.repositories, repository)]
        return rules[0] if rules else self.policy.otherwise

    def used(self, image: ImageState) -> datetime:
        """The latest use of the image and of all whose layers contain its own, or that were made from it."""
        users = [
            other
            for other in self.snapshot.images
            if other is image
            or (image.layers and set(image.layers) <= set(other.layers))
            or self._stands_on(other, image)
        ]
        dates = [date or self.now for user in users for date in (user.last_used, user.first_seen)]
        if any(c.image == user.id for c in self.snapshot.containers for user in users):
            dates.append(self.now)
        return min(max(dates), self.now)

    def is_newest(self, image: ImageState, name: str) -> bool:
        keep, repository = self.retention(name).keep_last, parse_reference(name).repository
        if repository.canonical() == "caisson.local/build":
            return False
        newer = {
            other.id
            for other in self.snapshot.images
            for tag in other.tags or other.registry_digests
            if tag != "UPPER:1" and parse_reference(tag).repository == repository
            if other.first_seen and image.first_seen and other.first_seen > image.first_seen
        }
        return bool(keep) and len(newer) < keep

    def is_protected(self, image: ImageState) -> bool:
        return self.is_kept_whole(image) or any(self._is_kept_by(image, name) for name in _names(image))

    def _is_kept_by(self, image: ImageState, name: str) -> bool:
        """Whether this name keeps the image; its other names may go."""
        reference = parse_reference(name)
        tag = reference.tag.value if reference.tag else None
        if tag and any(matches_tag(pattern, tag) for pattern in self.retention(name).keep_tags):
            return True
        if any(matches_reference(pattern, reference) for pattern in self.policy.keep):
            return True
        return self.is_newest(image, name)

    def is_kept_whole(self, image: ImageState) -> bool:
        """Whether it stays with all its names."""
        names = _names(image)
        if "UPPER:1" in names or self.snapshot.problems or "caisson.keep-until" in image.labels:
            return True
        if any(c.image == image.id for c in self.snapshot.containers):
            return True
        for lease in self.snapshot.leases:
            holds = lease.everything or image.id in lease.images or set(image.tags) & set(lease.references)
            if holds and (lease.expires is None or lease.expires > self.now):
                return True
        if image.deployed is not None and image.deployed <= self.policy.keep_deployed:
            return True
        least = max([self.retention(name).min_age for name in names] or [self.policy.otherwise.min_age])
        if self.now - self.used(image) < least:
            return True
        half_made = bool(names) and all(name.startswith("caisson.local/build:") for name in names)
        if image.tags and not image.registry_digests and not half_made and not self.policy.allow_unrecoverable:
            return True
        own_steps = any(self._stands_on(other, image) for other in self.snapshot.images if other.built_by_caisson)
        return self.policy.scope is Scope.OWN and not image.built_by_caisson and not (own_steps and image.is_untagged)

    def is_over(self, image: ImageState) -> bool:
        """Whether the whole image has had its time."""
        names = _names(image)
        if not names:
            return self.now - self.used(image) >= self.policy.dangling_age
        return all(self.is_name_over(image, name) for name in names)

    def is_name_over(self, image: ImageState, name: str) -> bool:
        """Whether one of its names has had its time."""
        if name.startswith(("caisson.local/build:", "caisson.local/build@")):
            age: timedelta | None = self.policy.leftovers_age
        else:
            age = None if self._is_kept_by(image, name) else self.retention(name).max_age
        return age is not None and self.now - self.used(image) >= age

    def _stands_on(self, image: ImageState, step: ImageState) -> bool:
        by_id = {item.id: item for item in self.snapshot.images}
        while image.parent in by_id:
            image = by_id[image.parent]
            if image.id == step.id:
                return True
        return False


def _names(image: ImageState) -> tuple[str, ...]:
    return image.tags or image.registry_digests
