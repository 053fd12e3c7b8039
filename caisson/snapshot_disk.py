"""A snapshot with what only the engine's account of its disk tells: build cache, volumes, writable layers. Pure.

That account (``GET /system/df``) is slow, so it is read once for a prune, by ``caisson.engine_disk_read``, and its
re-checks go on with it: what has come into use since is refused by the engine, and seen in the containers' own listing.

Where it can't be read, that is a problem of the snapshot, and nothing is removed, if the policy wants any of what it
tells. A policy that wants none of it is served without. Under pressure the images go without it too: a full disk is
worse than an image that went for room that the cache should have given.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from caisson.engine_disk import EngineDisk
from caisson.ledger.volumes import KnownVolume
from caisson.retention.policy import RetentionPolicy, Scope
from caisson.snapshot import CacheEntry, Snapshot, VolumeState
from caisson.volume_use import is_anonymous


@dataclass(frozen=True)
class DiskUnread:
    """The account could not be read, and the policy wants it; ``problem`` is a sentence for ``Snapshot.problems``.

    With ``blocks`` False it stands in nobody's way, and only what the account would have told stays.
    """

    problem: str
    blocks: bool = True


def wanted_of_disk(policy: RetentionPolicy) -> tuple[str, ...]:
    """The fields of a policy that can't be followed without the account."""
    cache = policy.build_cache
    wanted = {
        "build_cache": cache.max_used_space is not None or cache.min_free_space is not None,
        "exited_containers_age": policy.exited_containers_age is not None,
        "anonymous_volumes_age": policy.anonymous_volumes_age is not None and policy.scope is Scope.HOST,
    }
    return tuple(name for name, is_wanted in wanted.items() if is_wanted)


def with_disk(
    snapshot: Snapshot, disk: EngineDisk | DiskUnread | None, known_volumes: Mapping[str, KnownVolume]
) -> Snapshot:
    """The snapshot with the account in it; ``known_volumes`` are the ledger's, up to date.

    A volume's size that its driver does not tell is 0: it goes by age only, and nothing is expected of it. One that the
    ledger does not know has no last use.
    """
    if disk is None:
        return snapshot
    if isinstance(disk, DiskUnread):
        if not disk.blocks:
            return replace(snapshot, unread=(disk.problem,))
        return replace(snapshot, problems=(*snapshot.problems, disk.problem))
    writable = {container.id: container.writable for container in disk.containers}
    volumes = (volume for volume in disk.volumes if is_anonymous(volume.name))
    return replace(
        snapshot,
        containers=tuple(
            replace(container, writable_bytes=writable.get(container.id, 0)) for container in snapshot.containers
        ),
        build_cache=tuple(
            CacheEntry(entry.id, entry.type, entry.size, entry.in_use, entry.shared, entry.last_used)
            for entry in disk.cache
        ),
        anonymous_volumes=tuple(
            _volume(volume.name, volume.size or 0, volume.users, known_volumes.get(volume.name)) for volume in volumes
        ),
    )


def _volume(name: str, size: int, users: int, known: KnownVolume | None) -> VolumeState:
    if known is None:
        return VolumeState(name, size, users)
    # A container may have come since the account was read.
    return VolumeState(name, size, max(users, int(known.held)), known.last_used)
