"""Hosts to plan prunes on, made by hand: short names for images, layers and moments."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from caisson.disk import DiskUsage
from caisson.engine import ContainerID, ImageID
from caisson.retention.plan import plan_prune
from caisson.retention.policy import RetentionPolicy
from caisson.retention.prune_plan import FreeTarget, PrunePlan, RemoveImage, RemoveTag
from caisson.snapshot import ChainID, ContainerState, ImageState, LeaseState, Snapshot, StoredLayer

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
MIB = 1 << 20
USAGE = DiskUsage("/var/lib/docker", 1000 * MIB, 100 * MIB, 1_000_000, 900_000)


def days_ago(days: float) -> datetime:
    return NOW - timedelta(days=days)


def image_id(name: str) -> ImageID:
    return ImageID(f"sha256:{name}")


def stack(*layers: tuple[str, int]) -> tuple[StoredLayer, ...]:
    """Layers from the lowest up, sizes in MiB; names stand for what is below them as well."""
    return tuple(StoredLayer(ChainID(name), size * MIB) for name, size in layers)


def image(
    name: str,
    *tags: str,
    idle: float | None = 100,
    layers: Sequence[StoredLayer] | None = None,
    pushed: bool = True,
    own: bool = True,
    **more: Any,
) -> ImageState:
    """An image that was last used ``idle`` days ago and first seen then; pushed, and Caisson's own."""
    date = None if idle is None else days_ago(idle)
    repositories = sorted({tag.rpartition(":")[0] for tag in tags})
    return ImageState(
        id=image_id(name),
        tags=tags,
        layers=tuple(layers) if layers is not None else stack((name, 10)),
        **{
            "registry_digests": tuple(f"{r}@sha256:{'0' * 64}" for r in repositories) if pushed else (),
            "size": sum(layer.size for layer in layers or ()) or 10 * MIB,
            "first_seen": date,
            "last_used": date,
            "built_by_caisson": own,
            **more,
        },
    )


def container(name: str, of: str, state: str = "exited", **more: Any) -> ContainerState:
    return ContainerState(id=ContainerID(f"id-{name}"), image=image_id(of), name=name, state=state, **more)


def lease(*, images: Sequence[str] = (), references: Sequence[str] = (), expires: datetime | None = None) -> LeaseState:
    ends = expires or NOW + timedelta(hours=1)
    return LeaseState("build-1", frozenset(map(image_id, images)), frozenset(references), ends)


def host(*images: ImageState, usage: DiskUsage = USAGE, **more: Any) -> Snapshot:
    return Snapshot(taken=NOW, usage=usage, images=images, **more)


def policy(**more: Any) -> RetentionPolicy:
    """Nothing is kept but for the reason that a test is about: no newest, no age but 30 days."""
    otherwise = {"keep_last": 0, "max_age": "30d", "min_age": "1d", **more.pop("otherwise", {})}
    return RetentionPolicy.model_validate({"otherwise": otherwise, **more})


def plan(snapshot: Snapshot, chosen: RetentionPolicy | None = None, *, free_mib: int | None = None) -> PrunePlan:
    """The plan now; under pressure where it is said how much has to be free."""
    target = None if free_mib is None else FreeTarget(free_mib * MIB)
    return plan_prune(snapshot, chosen or policy(), NOW, pressure=target)


def removed(found: PrunePlan) -> list[str]:
    return [item.image.id.removeprefix("sha256:") for item in found.items if isinstance(item, RemoveImage)]


def untagged(found: PrunePlan) -> list[str]:
    return [item.reference for item in found.items if isinstance(item, RemoveTag)]


def kept_by(found: PrunePlan) -> dict[str, str]:
    return {item.image.id.removeprefix("sha256:"): item.rule for item in found.kept}


def rules(found: PrunePlan) -> dict[str, str]:
    return {item.image.id.removeprefix("sha256:"): item.rule for item in found.items if isinstance(item, RemoveImage)}
