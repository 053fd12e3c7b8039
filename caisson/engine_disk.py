"""What fills the disk by the engine's own account (``GET /system/df``), as values. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from caisson.docker_answers import own_name, read_time
from caisson.engine import ContainerID, ImageID


@dataclass(frozen=True)
class ImageDisk:
    """One image; ``size`` with all its layers, those that others have too included."""

    id: ImageID
    tags: tuple[str, ...]
    size: int


@dataclass(frozen=True)
class ContainerDisk:
    """One container in any state; ``writable`` is its own layer, without its logs and volumes."""

    id: ContainerID
    name: str
    state: str
    writable: int


@dataclass(frozen=True)
class VolumeDisk:
    """One volume; ``size`` is None where its driver does not tell. ``users`` counts containers in any state."""

    name: str
    size: int | None
    users: int


@dataclass(frozen=True)
class CacheDisk:
    """One record of BuildKit's cache; ``shared`` ones hold layers that images hold too.

    ``last_used`` is None where no build has used it since it was made.
    """

    type: str
    size: int
    in_use: bool
    shared: bool
    id: str = ""
    last_used: datetime | None = None


@dataclass(frozen=True)
class EngineDisk:
    """All of it; ``layers_size`` counts each layer of the images once."""

    layers_size: int
    images: tuple[ImageDisk, ...]
    containers: tuple[ContainerDisk, ...]
    volumes: tuple[VolumeDisk, ...]
    cache: tuple[CacheDisk, ...]


def parse_engine_disk(answer: Mapping[str, Any]) -> EngineDisk:
    """The engine's answer as values; raises ``KeyError`` or ``ValueError`` for one that is none."""
    return EngineDisk(
        layers_size=int(answer["LayersSize"]),
        images=tuple(
            ImageDisk(
                id=ImageID(row["Id"]),
                tags=tuple(tag for tag in row.get("RepoTags") or () if tag != "<none>:<none>"),
                size=int(row.get("Size") or 0),
            )
            for row in answer.get("Images") or ()
        ),
        containers=tuple(
            ContainerDisk(
                id=ContainerID(row["Id"]),
                name=own_name(row.get("Names") or ()) or str(row["Id"])[:12],
                state=str(row.get("State", "")),
                writable=int(row.get("SizeRw") or 0),
            )
            for row in answer.get("Containers") or ()
        ),
        volumes=tuple(
            # -1 stands for a size that is not known.
            VolumeDisk(
                name=str(row["Name"]),
                size=size if (size := int((row.get("UsageData") or {}).get("Size", -1))) >= 0 else None,
                users=max(0, int((row.get("UsageData") or {}).get("RefCount", 0))),
            )
            for row in answer.get("Volumes") or ()
        ),
        cache=tuple(
            CacheDisk(
                type=str(row.get("Type", "")),
                size=int(row.get("Size") or 0),
                in_use=bool(row.get("InUse")),
                shared=bool(row.get("Shared")),
                id=str(row.get("ID", "")),
                last_used=read_time(str(row.get("LastUsedAt") or "")),
            )
            for row in answer.get("BuildCache") or ()
        ),
    )
