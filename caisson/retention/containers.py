"""Exited containers and anonymous volumes that have had their time. Pure.

The image of a container that goes is still in use in the same plan: the next one looks at it anew.
"""

from __future__ import annotations

from collections.abc import Iterator

from caisson.durations import format_age
from caisson.plan import LABEL_BUILD
from caisson.retention.facts import Facts
from caisson.retention.policy import Scope
from caisson.retention.protections import Reason, until_reason
from caisson.retention.prune_plan import RemoveContainer, RemoveVolume
from caisson.snapshot import LABEL_KEEP_UNTIL, ContainerState, VolumeState

# ``created`` ones have not run yet: somebody is about to start them.
_ENDED = frozenset({"exited", "dead"})


def plan_containers(facts: Facts) -> Iterator[RemoveContainer]:
    """The containers that go, the longest ended first."""
    found = [(container, container_expiry(facts, container)) for container in facts.snapshot.containers]
    found.sort(key=lambda pair: (pair[0].finished or facts.now, pair[0].id))
    for container, reason in found:
        if reason is not None:
            yield RemoveContainer(
                id=container.id,
                name=container.name,
                image=container.image,
                finished=container.finished,
                phase="containers",
                rule=reason.rule,
                reason=reason.reason,
                marginal_bytes=container.writable_bytes,
            )


def container_expiry(facts: Facts, container: ContainerState) -> Reason | None:
    """Why a container goes, or None. Builders never do: their end is their build's and the reaper's business."""
    age, finished = facts.policy.exited_containers_age, container.finished
    if age is None or finished is None or facts.snapshot.problems or container.state not in _ENDED:
        return None
    if LABEL_BUILD in container.labels or until_reason(container.labels.get(LABEL_KEEP_UNTIL), facts.now):
        return None
    if facts.policy.scope is not Scope.HOST and not container.made_by_caisson:
        return None
    idle = facts.now - finished
    return Reason("exited-container", f"it ended {format_age(idle)} ago") if idle >= age else None


def plan_volumes(facts: Facts) -> Iterator[RemoveVolume]:
    """The anonymous volumes that go, the longest unused first."""
    found = [(volume, volume_expiry(facts, volume)) for volume in facts.snapshot.anonymous_volumes]
    found.sort(key=lambda pair: (pair[0].last_used or facts.now, pair[0].name))
    for volume, reason in found:
        if reason is not None:
            yield RemoveVolume(
                name=volume.name,
                last_used=volume.last_used,
                phase="volumes",
                rule=reason.rule,
                reason=reason.reason,
                marginal_bytes=max(0, volume.size),
            )


def volume_expiry(facts: Facts, volume: VolumeState) -> Reason | None:
    """Why an anonymous volume goes, or None."""
    age, used = facts.policy.anonymous_volumes_age, volume.last_used
    if age is None or used is None or volume.users or facts.snapshot.problems:
        return None
    if facts.policy.scope is not Scope.HOST:
        return None
    idle = facts.now - used
    return Reason("anonymous-volume", f"no container had it for {format_age(idle)}") if idle >= age else None
