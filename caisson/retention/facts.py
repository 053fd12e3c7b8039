"""What a snapshot means under a policy at a moment: names read, uses lent, holds resolved. Pure; made once, then asked.

Rules of this module:

- Last use is the later of last used and first seen. One of them unknown is *now*: unknown makes nothing older.
- What is in use is used now. An image lends its last use to every image whose layers its own contain, for without them
  it could not be; so a base is as young as the youngest that stands on it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta

from caisson.engine import ImageID
from caisson.plan import REPOSITORY_UNDER_CONSTRUCTION
from caisson.reference import Reference, Repository, parse_reference
from caisson.retention.patterns import matches_reference, matches_repository, matches_tag
from caisson.retention.policy import Retention, RetentionPolicy, Scope
from caisson.snapshot import ChainID, ContainerState, ImageState, LeaseState, Snapshot, steps_of_own_builds


class Facts:
    """Answers about the images of one snapshot; all of it is read once, in time in proportion to its size."""

    def __init__(self, snapshot: Snapshot, policy: RetentionPolicy, now: datetime) -> None:
        self.snapshot, self.policy, self.now = snapshot, policy, now
        # Whatever order the engine listed them in, they are looked at in one order.
        self.images = sorted(snapshot.images, key=lambda image: image.id)
        self.by_id = {image.id: image for image in self.images}
        self.names: dict[ImageID, tuple[Reference, ...]] = {}
        self.unreadable: dict[ImageID, str] = {}
        self._retention: dict[Repository, Retention] = {}
        self._read_names()
        self.children = self._children()
        self.in_use = self._in_use()
        self.leased = self._leased()
        self.ambiguous = self._ambiguous()
        self.in_scope = self._in_scope()
        self.last_use = self._last_use()
        self.newest = self._newest()

    def retention(self, repository: Repository) -> Retention:
        """What the policy says of a repository."""
        found = self._retention.get(repository)
        if found is None:
            rules = self.policy.rules
            found = next((r for r in rules if matches_repository(r.repositories, repository)), self.policy.otherwise)
            self._retention[repository] = found
        return found

    def retentions(self, image: ImageState) -> list[Retention]:
        """What the policy says of the image's repositories; of one without a name, what it says otherwise."""
        return [self.retention(name.repository) for name in self.names[image.id]] or [self.policy.otherwise]

    def idle(self, image: ImageState) -> timedelta:
        """How long it was not used; never negative."""
        return max(timedelta(), self.now - self.last_use[image.id])

    def tags(self, image: ImageState) -> list[tuple[str, Reference]]:
        """Its tags as the engine spells them and as they are read, in order; none where one can't be read."""
        if not image.tags or image.id in self.unreadable:
            return []
        return list(zip(sorted(image.tags), self.names[image.id], strict=True))

    def kept_by_pattern(self, name: Reference) -> str:
        """The pattern that keeps a name; empty where none does."""
        tags = self.retention(name.repository).keep_tags if name.tag else ()
        tag = name.tag.value if name.tag else ""
        found = next((pattern for pattern in tags if matches_tag(pattern, tag)), "")
        return found or next((pattern for pattern in self.policy.keep if matches_reference(pattern, name)), "")

    def ancestors(self, image: ImageState) -> Iterator[ImageState]:
        """Those the classic builder made it from, the nearest first; each once, also where the engine lists a ring."""
        seen = {image.id}
        parent = image.parent
        while parent is not None and parent not in seen and (found := self.by_id.get(parent)) is not None:
            seen.add(parent)
            yield found
            parent = found.parent

    def _read_names(self) -> None:
        for image in self.images:
            names = []
            # Digests name an image only where no tag does: there they are how it was pulled.
            for text in sorted(image.tags or image.registry_digests):
                try:
                    names.append(parse_reference(text))
                except ValueError as error:
                    self.unreadable[image.id] = str(error)
            self.names[image.id] = tuple(names)

    def _children(self) -> dict[ImageID, list[ImageID]]:
        children: dict[ImageID, list[ImageID]] = defaultdict(list)
        for image in self.images:
            if image.parent is not None and image.parent in self.by_id:
                children[image.parent].append(image.id)
        return dict(children)

    def _in_use(self) -> dict[ImageID, ContainerState]:
        users: dict[ImageID, ContainerState] = {}
        for container in sorted(self.snapshot.containers, key=lambda item: (item.name, item.id)):
            users.setdefault(container.image, container)
        return users

    def _leased(self) -> dict[ImageID, LeaseState]:
        leases = [lease for lease in self.snapshot.leases if lease.expires is None or lease.expires > self.now]
        leases.sort(key=_order_of_leases)
        by_image: dict[ImageID, LeaseState] = {}
        by_name: dict[str, LeaseState] = {}
        for lease in leases:
            for image_id in self.by_id if lease.everything else lease.images:
                by_image.setdefault(image_id, lease)
            for reference in lease.parsed():
                for key in _keys(reference):
                    by_name.setdefault(key, lease)
        if by_name:
            for image in self.images:
                for key in self._keys_of(image):
                    if key in by_name:
                        by_image.setdefault(image.id, by_name[key])
        return by_image

    def _keys_of(self, image: ImageState) -> Iterator[str]:
        for name in self.names[image.id]:
            yield from _keys(name)
        yield str(image.id)
        for text in sorted(image.registry_digests) if image.tags else ():
            try:
                yield from _keys(parse_reference(text))
            except ValueError:
                # It is in no lease then: those are parsed by the same grammar.
                continue

    def _ambiguous(self) -> set[ImageID]:
        owner: dict[str, ImageID] = {}
        found: set[ImageID] = set()
        for image in self.images:
            for tag in image.tags:
                first = owner.setdefault(tag, image.id)
                if first != image.id:
                    found |= {first, image.id}
        return found

    def _in_scope(self) -> set[ImageID]:
        if self.policy.scope is Scope.HOST:
            return set(self.by_id)
        own = {image.id for image in self.images if image.built_by_caisson or (image.own_step and image.is_untagged)}
        # A step that others built on is kept as an ancestor.
        return own | steps_of_own_builds(self.images)

    def _last_use(self) -> dict[ImageID, datetime]:
        uses: dict[ImageID, datetime] = {}
        for image in self.images:
            own = max(image.last_used or self.now, image.first_seen or self.now)
            uses[image.id] = max(own, self.now) if image.id in self.in_use else own
        self._lend(uses)
        return uses

    def _lend(self, uses: dict[ImageID, datetime]) -> None:
        by_top: dict[ChainID, datetime] = {}
        for image in self.images:
            if image.layers:
                top = image.layers[-1].chain_id
                by_top[top] = max(by_top.get(top, uses[image.id]), uses[image.id])
        lent = dict(by_top)
        for image in self.images:
            use = by_top[image.layers[-1].chain_id] if image.layers else self.now
            for layer in image.layers:
                other = lent.get(layer.chain_id)
                if other is not None and other < use:
                    lent[layer.chain_id] = use
        for image in self.images:
            if image.layers:
                uses[image.id] = lent[image.layers[-1].chain_id]
        for image in self.images:
            for ancestor in self.ancestors(image) if image.parent else ():
                uses[ancestor.id] = max(uses[ancestor.id], uses[image.id])

    def _newest(self) -> dict[ImageID, set[Repository]]:
        """By image, the repositories of which it is among the ``keep_last`` newest.

        Newest by first seen. Those unknown are kept besides and count for none, or they would push known ones out;
        of several that were first seen at once, all count as the first of them.
        """
        members: dict[Repository, set[ImageID]] = defaultdict(set)
        for image in self.images:
            for name in self.names[image.id]:
                members[name.repository].add(image.id)
        newest: dict[ImageID, set[Repository]] = defaultdict(set)
        for repository, found in members.items():
            if repository.canonical() == REPOSITORY_UNDER_CONSTRUCTION:
                continue
            for image_id in self._newest_of(found, self.retention(repository).keep_last):
                newest[image_id].add(repository)
        return dict(newest)

    def _newest_of(self, members: Iterable[ImageID], keep: int) -> list[ImageID]:
        if keep == 0:
            return []
        seen = [(image_id, self.by_id[image_id].first_seen) for image_id in members]
        known = sorted((date for _, date in seen if date is not None), reverse=True)
        oldest = known[keep - 1] if keep <= len(known) else None
        return [image_id for image_id, date in seen if date is None or oldest is None or date >= oldest]


def _order_of_leases(lease: LeaseState) -> tuple[bool, str, str]:
    # Those that hold an image by its name come first, since they say more than those that hold everything.
    return lease.everything, lease.holder, "" if lease.expires is None else lease.expires.isoformat()


def _keys(reference: Reference) -> Iterator[str]:
    """What a reference may be resolved by; without tag and digest an engine takes ``latest``."""
    if reference.digest is not None:
        yield f"{reference.repository.canonical()}@{reference.digest}"
        # Where a name can't be told, the containerd store's image ID is the digest itself.
        yield str(reference.digest)
    if (tag := reference.or_latest().tag) is not None:
        yield f"{reference.repository.canonical()}:{tag}"
