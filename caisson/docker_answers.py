"""The Docker engine's answers, as JSON gave them, made the values of ``caisson.engine``. Pure: it asks nothing.

Each function raises ``KeyError``, ``TypeError`` or ``ValueError`` for an answer that lacks what every engine tells.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from caisson.engine import (
    ContainerID,
    ContainerInfo,
    EngineDescription,
    EngineEvent,
    EngineInfo,
    ImageID,
    ImageInfo,
    Layer,
)

Answer = Mapping[str, Any]

_NANOSECONDS = 1_000_000_000


def engine_info(info: Answer, version: Answer) -> EngineInfo:
    """From ``GET /info`` and ``GET /version``."""
    driver_status = {str(row[0]): str(row[1]) for row in info.get("DriverStatus") or [] if len(row) > 1}
    return EngineInfo(
        version=str(version["Version"]),
        api_version=str(version["ApiVersion"]),
        storage_driver=str(info["Driver"]),
        cgroup_driver=str(info.get("CgroupDriver", "")),
        cgroup_version=int(info.get("CgroupVersion") or 1),
        data_root=str(info["DockerRootDir"]),
        security_options=tuple(info.get("SecurityOptions") or ()),
        cpus=int(info.get("NCPU", 0)),
        memory=int(info.get("MemTotal", 0)),
        containerd_store="containerd.snapshotter" in driver_status.get("driver-type", ""),
        live_restore=bool(info.get("LiveRestoreEnabled")),
        swap_limit=bool(info.get("SwapLimit")),
        platform=f"{version['Os']}/{version['Arch']}" if version.get("Os") and version.get("Arch") else "",
        insecure_registries=_insecure_registries(info.get("RegistryConfig") or {}),
        id=str(info.get("ID") or ""),
    )


def engine_description(
    info: Answer, version: Answer, bridge: Answer | None, volumes: Answer | None
) -> EngineDescription:
    """From ``GET /info``, ``/version``, ``/networks/bridge`` and ``/volumes``, where it gave the last two."""
    options = None
    if volumes is not None:
        options = {str(row["Name"]): dict(row.get("Options") or {}) for row in volumes.get("Volumes") or ()}
    return EngineDescription(info, version, bridge, options)


def inspected_container(raw: Answer) -> ContainerInfo:
    """From ``GET /containers/{id}/json``."""
    return ContainerInfo(
        id=ContainerID(raw["Id"]),
        name=raw["Name"].lstrip("/"),
        state=raw["State"]["Status"],
        labels=raw["Config"].get("Labels") or {},
        pid=int(raw["State"].get("Pid") or 0),
        raw=raw,
        image=ImageID(str(raw.get("Image") or "")),
        image_name=str(raw["Config"].get("Image") or ""),
        finished=read_time(str(raw["State"].get("FinishedAt", ""))),
        volumes=_volumes(raw),
    )


def listed_container(row: Answer) -> ContainerInfo:
    """From one row of ``GET /containers/json``."""
    return ContainerInfo(
        id=ContainerID(row["Id"]),
        name=own_name(row.get("Names") or ()),
        state=row["State"],
        labels=row.get("Labels") or {},
        raw=row,
        image=ImageID(str(row.get("ImageID") or "")),
        image_name=str(row.get("Image") or ""),
        volumes=_volumes(row),
    )


def inspected_image(raw: Answer) -> ImageInfo:
    """From ``GET /images/{name}/json``."""
    config = raw.get("Config") or {}
    return ImageInfo(
        id=ImageID(raw["Id"]),
        tags=tuple(raw.get("RepoTags") or ()),
        digests=tuple(raw.get("RepoDigests") or ()),
        labels=config.get("Labels") or {},
        size=int(raw.get("Size", 0)),
        layers=tuple((raw.get("RootFS") or {}).get("Layers") or ()),
        created=str(raw.get("Created", "")),
        user=str(config.get("User", "")),
        parent=ImageID(raw["Parent"]) if raw.get("Parent") else None,
        last_tag_time=read_time(str((raw.get("Metadata") or {}).get("LastTagTime", ""))),
        triggers=tuple(config.get("OnBuild") or ()),
    )


def listed_image(row: Answer) -> ImageInfo:
    """From one row of ``GET /images/json``."""
    return ImageInfo(
        id=ImageID(row["Id"]),
        tags=tuple(tag for tag in row.get("RepoTags") or () if tag != "<none>:<none>"),
        digests=tuple(row.get("RepoDigests") or ()),
        labels=row.get("Labels") or {},
        size=int(row.get("Size", 0)),
        layers=(),
        created=str(row.get("Created", "")),
        parent=ImageID(row["ParentId"]) if row.get("ParentId") else None,
    )


def layers(rows: Sequence[Answer]) -> list[Layer]:
    """From ``GET /images/{name}/history``, which has the newest first."""
    return [Layer(int(row["Size"]), float(row["Created"])) for row in reversed(rows)]


def event(row: Answer) -> EngineEvent:
    """From one line of ``GET /events``."""
    actor = row.get("Actor") or {}
    return EngineEvent(
        time_ns=int(row.get("timeNano") or int(row["time"]) * _NANOSECONDS),
        type=str(row.get("Type", "")),
        action=str(row.get("Action", "")),
        subject=str(actor.get("ID", "")),
        attributes=actor.get("Attributes") or {},
    )


def seconds(nanoseconds: int) -> str:
    """As ``since`` and ``until`` of events are written, without a float's rounding.

    >>> seconds(1_700_000_000_000_000_001)
    '1700000000.000000001'
    """
    return f"{nanoseconds // _NANOSECONDS}.{nanoseconds % _NANOSECONDS:09d}"


def read_time(text: str) -> datetime | None:
    """A time of the engine's (RFC 3339, nanoseconds); None for its zero, ``0001-01-01``, and for what is no time.

    >>> read_time("2026-01-02T03:04:05.123456789Z").isoformat()
    '2026-01-02T03:04:05.123456+00:00'
    >>> read_time("0001-01-01T00:00:00Z") is None
    True
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment if moment.tzinfo is not None and moment.year > 1 else None


def own_name(names: Sequence[str]) -> str:
    """The container's own among its names, without the slash; empty where it has none.

    >>> own_name(["/other/alias", "/web"])
    'web'
    """
    # A container that others link to is listed under their names for it too: "/other/alias".
    return next((name[1:] for name in names if name.rfind("/") == 0), "")


def _volumes(container: Answer) -> tuple[str, ...]:
    mounts = container.get("Mounts") or ()
    return tuple(str(mount["Name"]) for mount in mounts if mount.get("Type") == "volume" and mount.get("Name"))


def _insecure_registries(config: Answer) -> tuple[str, ...]:
    indexes = config.get("IndexConfigs") or {}
    names = [str(name) for name, index in indexes.items() if not index.get("Secure", True)]
    return (*names, *(str(network) for network in config.get("InsecureRegistryCIDRs") or ()))
