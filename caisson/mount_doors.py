"""Every door through which a container gets at files that are not its own, read from the Docker API's own JSON. Pure.

Rules of this module:

- Nothing is dropped. What is not understood (a key in another spelling, a value of another type) becomes a
  ``Mount`` of kind ``unknown``, which no policy allows. Go reads JSON keys in any case,
  even with a long s (U+017F) for an s, and merges duplicates: only the exact spelling is known here.
- Engine 20.10 reads ``HostConfig``'s keys from the body's top level too, where there is no ``HostConfig`` (measured:
  a top-level ``Binds`` mounted ``/etc``); at the top level they are unknown keys.
- A volume's options may hold a share's password: they are compared, never shown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

MountKind = Literal[
    "bind",
    "volume",
    "tmpfs",
    "image",
    "npipe",
    "cluster",
    "device",
    "container",
    "host",
    "unknown",
]
"""The API's own kinds of mount, and four more: ``device`` (a device node, or a rule or driver that gives some),
``container`` (what another container has mounted), ``host`` (a setting that opens the host without a mount),
``unknown`` (not understood)."""


@dataclass(frozen=True)
class Mount:
    """One mount, or what amounts to one. ``door`` says where it was found, such as ``HostConfig.Binds[0]``.

    The ``source`` of an ``unknown`` one is the problem, to be read after its door.

    ``read_only`` is False wherever that is not certain. ``options`` leave out what is the engine's default anyway
    (``rw``, ``rprivate``), so that the planned and the effective mount are equal.
    """

    kind: MountKind
    source: str
    target: str
    read_only: bool = False
    options: tuple[str, ...] = field(default=(), repr=False)
    door: str = field(default="", compare=False)

    def __str__(self) -> str:
        if self.kind == "unknown":
            return f"{self.door} {self.source}"
        source = f" {shown(self.source)}" if self.source else ""
        return f"{self.kind}{source} → {shown(self.target)}" if self.target else f"{self.kind}{source}"


_Door = Callable[[Any, str], Iterator[Mount]]


def mounts_of_body(body: Mapping[str, Any]) -> tuple[Mount, ...]:
    """The mounts that a body of ``POST /containers/create`` asks for, by every door. Never raises."""
    return tuple(_walk(body, _BODY, "", strict=True))


def mounts_of_inspect(inspect: Mapping[str, Any]) -> tuple[Mount, ...]:
    """The effective mounts of a created container, from ``GET /containers/{id}/json``. Never raises.

    Its ``Mounts`` hold what came of ``Binds``, ``VolumesFrom`` and the image's own volumes; the doors of
    ``HostConfig`` are read besides, since not every one of them shows there (``Tmpfs``, ``Devices``).
    """
    if not isinstance(inspect.get("HostConfig"), Mapping) or not isinstance(inspect.get("Mounts"), list | tuple):
        return (_unknown("inspect", "has no HostConfig and Mounts"),)
    found = [_effective(mount, f"Mounts[{index}]") for index, mount in enumerate(inspect["Mounts"])]
    found += _walk(inspect["HostConfig"], _HOST_CONFIG_OF_INSPECT, "HostConfig.", strict=False)
    return tuple(dict.fromkeys(found))


def _walk(values: Mapping[Any, Any], doors: Mapping[str, _Door], prefix: str, *, strict: bool) -> Iterator[Mount]:
    """``strict``: a key that is not known is refused although it is empty."""
    for key, value in values.items():
        name = f"{prefix}{key}"
        door = doors.get(key) if isinstance(key, str) else None
        if door is not None:
            yield from door(value, name)
        elif strict or not _is_empty(value):
            yield _unknown(name, "is not a setting that Caisson knows")


def shown(text: str) -> str:
    """A path or name fit for a sentence: quoted where it has a space or an unprintable character, and cut."""
    plain = text if text.isprintable() and text and " " not in text else repr(text)
    return plain if len(plain) <= 160 else f"{plain[:160]}…"


def _is_empty(value: Any) -> bool:
    return value is None or value is False or value == 0 or (isinstance(value, str | list | tuple | dict) and not value)


def _unknown(door: str, problem: str) -> Mount:
    return Mount("unknown", problem, "", door=door)


# Doors: each takes a key's value and its name. An empty value opens nothing.


def _harmless(value: Any, name: str) -> Iterator[Mount]:
    del value, name
    return iter(())


def _each(parse: Callable[[Any, str], Mount]) -> _Door:
    """The door of a key that holds a list."""

    def door(value: Any, name: str) -> Iterator[Mount]:
        if isinstance(value, list | tuple):
            for index, entry in enumerate(value):
                yield parse(entry, f"{name}[{index}]")
        elif value is not None:
            yield _unknown(name, "is not a list")

    return door


def _each_key(parse: Callable[[str, Any, str], Iterator[Mount]]) -> _Door:
    """The door of a key that holds an object."""

    def door(value: Any, name: str) -> Iterator[Mount]:
        if isinstance(value, Mapping):
            for key, inner in value.items():
                yield from parse(str(key), inner, name)
        elif value is not None:
            yield _unknown(name, "is not an object")

    return door


def _bind(entry: Any, door: str) -> Mount:
    """``SOURCE:TARGET[:MODE]``, ``NAME:TARGET[:MODE]`` or ``TARGET``, cut as the engine's Linux parser does."""
    parts = entry.split(":") if isinstance(entry, str) else []
    if not 1 <= len(parts) <= 3 or not all(parts):
        return _unknown(door, f"is not SOURCE:TARGET[:MODE]: {shown(str(entry))}")
    if len(parts) == 1:
        return Mount("volume", "", parts[0], door=door)
    mode = parts[2].split(",") if len(parts) == 3 else []
    return Mount(
        "bind" if parts[0].startswith("/") else "volume",
        parts[0],
        parts[1],
        read_only="ro" in mode and "rw" not in mode,
        options=_options(mode),
        door=door,
    )


def _options(mode: list[str]) -> tuple[str, ...]:
    return tuple(sorted({option for option in mode if option not in ("", "ro", "rw", "rprivate")}))


_MOUNT_KINDS: Mapping[str, MountKind] = {
    "bind": "bind",
    "volume": "volume",
    "tmpfs": "tmpfs",
    "image": "image",
    "npipe": "npipe",
    "cluster": "cluster",
}
_MOUNT_OPTIONS = ("Consistency", "BindOptions", "VolumeOptions", "TmpfsOptions", "ImageOptions", "ClusterOptions")
_MOUNT_KEYS = frozenset(("Type", "Source", "Target", "ReadOnly", *_MOUNT_OPTIONS))


def _mount(entry: Any, door: str) -> Mount:
    if not isinstance(entry, Mapping):
        return _unknown(door, "is not an object")
    for key in entry:
        if key not in _MOUNT_KEYS:
            return _unknown(door, f"has the unknown key {shown(str(key))}")
    kind = _MOUNT_KINDS.get(str(entry.get("Type")))
    if kind is None:
        return _unknown(door, "has no known Type")
    options = [option for key in _MOUNT_OPTIONS for option in _flatten(entry.get(key), key)]
    return Mount(
        kind,
        str(entry.get("Source") or ""),
        str(entry.get("Target") or ""),
        read_only=entry.get("ReadOnly") is True,
        options=tuple(sorted(options)),
        door=door,
    )


def _flatten(value: Any, name: str) -> Iterator[str]:
    """Options within options, such as ``VolumeOptions.DriverConfig.Options.device=/etc``; defaults are left out."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flatten(inner, f"{name}.{key}")
    elif not _is_empty(value) and (name, value) != ("BindOptions.Propagation", "rprivate"):
        yield f"{name}={value}"


def _tmpfs(target: str, options: Any, name: str) -> Iterator[Mount]:
    if not isinstance(options, str):
        yield _unknown(f"{name}[{shown(target)}]", "is not a string")
        return
    parts = options.split(",")
    yield Mount("tmpfs", "", target, read_only="ro" in parts, options=_options(parts), door=f"{name}[{target}]")


def _anonymous_volume(target: str, _: Any, name: str) -> Iterator[Mount]:
    yield Mount("volume", "", target, door=name)


def _volumes_from(entry: Any, door: str) -> Mount:
    return Mount("container", str(entry), "all of its volumes", door=door)


def _device(entry: Any, door: str) -> Mount:
    if not isinstance(entry, Mapping) or not isinstance(entry.get("PathOnHost"), str):
        return _unknown(door, "is not a device")
    return Mount("device", entry["PathOnHost"], str(entry.get("PathInContainer") or ""), door=door)


def _device_rule(entry: Any, door: str) -> Mount:
    """A rule of the devices cgroup, or a request to a driver (GPUs, CDI), which mounts what it likes."""
    return Mount("device", str(entry), "", door=door)


def _volume_driver(value: Any, name: str) -> Iterator[Mount]:
    if not _is_empty(value):
        yield Mount("volume", f"driver {value}", "", door=name)


def _storage_option(key: str, _: Any, name: str) -> Iterator[Mount]:
    if key != "size":
        yield _unknown(f"{name}.{shown(key)}", "is not a storage option that Caisson knows")


def _opens_host(what: str) -> _Door:
    def door(value: Any, name: str) -> Iterator[Mount]:
        if not _is_empty(value):
            yield Mount("host", name, what, door=name)

    return door


def _kernel_paths(value: Any, name: str) -> Iterator[Mount]:
    """``MaskedPaths``, ``ReadonlyPaths``: an empty list bares all of them; only None keeps the engine's own."""
    if value is not None:
        yield Mount("host", name, "the kernel's files that the engine covers", door=name)


def _namespace(*own: str) -> _Door:
    """A namespace: one of ``own``, or the host's or another container's, whose files then come with it."""

    def door(value: Any, name: str) -> Iterator[Mount]:
        if value is None or value in own:
            return
        if isinstance(value, str) and value.startswith("container:"):
            yield Mount("container", value.removeprefix("container:"), name, door=name)
        elif value == "host":
            yield Mount("host", name, "the host's own namespace", door=name)
        else:
            yield _unknown(name, f"has an unknown value: {shown(str(value))}")

    return door


def _network_mode(value: Any, name: str) -> Iterator[Mount]:
    """Only another container's: its hosts and resolv.conf are mounted. Any other network brings no file with it."""
    if isinstance(value, str) and value.startswith("container:"):
        yield Mount("container", value.removeprefix("container:"), name, door=name)
    elif not isinstance(value, str) and value is not None:
        yield _unknown(name, "is not a string")


def _only(*values: str) -> _Door:
    def door(value: Any, name: str) -> Iterator[Mount]:
        if value is not None and value not in values:
            yield _unknown(name, f"has an unknown value: {shown(str(value))}")

    return door


def _host_config(value: Any, name: str) -> Iterator[Mount]:
    if isinstance(value, Mapping):
        yield from _walk(value, _HOST_CONFIG, f"{name}.", strict=True)
    elif value is not None:
        yield _unknown(name, "is not an object")


def _effective(entry: Any, door: str) -> Mount:
    kind = _MOUNT_KINDS.get(str(entry.get("Type"))) if isinstance(entry, Mapping) else None
    if kind is None:
        return _unknown(door, "has no known Type")
    mode = [*str(entry.get("Mode") or "").split(","), str(entry.get("Propagation") or "")]
    return Mount(
        kind,
        str((entry.get("Name") if kind == "volume" else "") or entry.get("Source") or ""),
        str(entry.get("Destination") or ""),
        read_only=entry.get("RW") is False,
        options=_options(mode),
        door=door,
    )


_RESOURCES = (
    *("CpuShares", "Memory", "NanoCpus", "CgroupParent", "BlkioWeight", "BlkioWeightDevice", "BlkioDeviceReadBps"),
    *("BlkioDeviceWriteBps", "BlkioDeviceReadIOps", "BlkioDeviceWriteIOps", "CpuPeriod", "CpuQuota"),
    *("CpuRealtimePeriod", "CpuRealtimeRuntime", "CpusetCpus", "CpusetMems", "KernelMemory", "KernelMemoryTCP"),
    *("MemoryReservation", "MemorySwap", "MemorySwappiness", "OomKillDisable", "OomScoreAdj", "PidsLimit", "Ulimits"),
    *("ShmSize", "CpuCount", "CpuPercent", "IOMaximumIOps", "IOMaximumBandwidth"),
)

# The keys of HostConfig up to API 1.51. "Harmless" means here that it mounts nothing: whether it weakens the
# container in another way is for caisson.posture.
_HOST_CONFIG: Mapping[str, _Door] = {
    **dict.fromkeys(_RESOURCES, _harmless),
    **dict.fromkeys(
        (
            *("ContainerIDFile", "LogConfig", "PortBindings", "RestartPolicy", "AutoRemove", "ConsoleSize", "CapAdd"),
            *("CapDrop", "Dns", "DnsOptions", "DnsSearch", "ExtraHosts", "GroupAdd", "Links", "PublishAllPorts"),
            *("ReadonlyRootfs", "SecurityOpt", "UTSMode", "UsernsMode", "Sysctls", "Isolation", "Init"),
        ),
        _harmless,
    ),
    "Binds": _each(_bind),
    "Mounts": _each(_mount),
    "Tmpfs": _each_key(_tmpfs),
    "VolumesFrom": _each(_volumes_from),
    "VolumeDriver": _volume_driver,
    "Devices": _each(_device),
    "DeviceCgroupRules": _each(_device_rule),
    "DeviceRequests": _each(_device_rule),
    "StorageOpt": _each_key(_storage_option),
    "Privileged": _opens_host("every device of the host"),
    "MaskedPaths": _kernel_paths,
    "ReadonlyPaths": _kernel_paths,
    # A runtime, or an annotation that one obeys, can mount what it likes.
    "Runtime": _only("", "runc"),
    "Annotations": _opens_host("orders to the runtime"),
    # Through /proc/PID/root, another PID namespace shows other containers' files, or the host's.
    "PidMode": _namespace(""),
    "IpcMode": _namespace("", "none", "private", "shareable"),
    "CgroupnsMode": _only("", "private", "host"),
    "Cgroup": _namespace(""),
    "NetworkMode": _network_mode,
}

# In what inspect shows, these hold the engine's own defaults and what its administrator chose.
_HOST_CONFIG_OF_INSPECT: Mapping[str, _Door] = {
    **_HOST_CONFIG,
    **dict.fromkeys(("MaskedPaths", "ReadonlyPaths", "Runtime"), _harmless),
}

_BODY: Mapping[str, _Door] = {
    **dict.fromkeys(
        (
            *("Hostname", "Domainname", "User", "AttachStdin", "AttachStdout", "AttachStderr", "ExposedPorts", "Tty"),
            *("OpenStdin", "StdinOnce", "Env", "Cmd", "Healthcheck", "ArgsEscaped", "Image", "WorkingDir"),
            *("Entrypoint", "NetworkDisabled", "MacAddress", "OnBuild", "Labels", "StopSignal", "StopTimeout"),
            *("Shell", "NetworkingConfig"),
        ),
        _harmless,
    ),
    "Volumes": _each_key(_anonymous_volume),
    "HostConfig": _host_config,
}
