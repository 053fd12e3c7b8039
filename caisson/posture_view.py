"""A container's inspect answer, as the posture checks read it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from caisson.mount_doors import Mount, mounts_of_inspect


class View:
    """An inspect answer, read without trust in its shape."""

    def __init__(self, inspect: Mapping[str, Any]) -> None:
        self._inspect = inspect
        self.host = mapping(inspect, "HostConfig")
        self.config = mapping(inspect, "Config")
        self.mounts = mounts_of_inspect(inspect)

    def top(self, key: str) -> str:
        value = self._inspect.get(key)
        return value if isinstance(value, str) else ""

    def text(self, key: str) -> str | None:
        """A string of ``HostConfig``; None where there is none, which is not the empty one."""
        value = self.host.get(key)
        return value if isinstance(value, str) else None

    def number(self, key: str) -> int:
        value = self.host.get(key)
        return value if isinstance(value, int) and not isinstance(value, bool) else 0

    def strings(self, key: str) -> tuple[str, ...]:
        value = self.host.get(key)
        return tuple(map(str, value)) if isinstance(value, list | tuple) else ()

    @property
    def published(self) -> Mapping[str, Any]:
        """Ports that are bound on the host, once it runs."""
        ports = mapping(mapping(self._inspect, "NetworkSettings"), "Ports")
        return {port: bindings for port, bindings in ports.items() if bindings}

    @property
    def file_mounts(self) -> tuple[Mount, ...]:
        """What is mounted but tmpfs. What ``HostConfig`` asked for is in it too, as what came of it."""
        effective = [mount for mount in self.mounts if not mount.door.startswith("HostConfig.")]
        return tuple(mount for mount in effective if mount.kind != "tmpfs")

    @property
    def program(self) -> tuple[str, ...]:
        """Its first process: the program and its arguments."""
        value = self._inspect.get("Args")
        return (self.top("Path"), *map(str, value)) if isinstance(value, list | tuple) else ()

    def security_option(self, name: str) -> str | None:
        """The value of one ``SecurityOpt``, empty where it has none; engines take ``=`` and, of old, ``:``."""
        for option in self.strings("SecurityOpt"):
            if option == name:
                return ""
            if option.startswith((f"{name}=", f"{name}:")):
                return option[len(name) + 1 :]
        return None


def mapping(values: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = values.get(key)
    return value if isinstance(value, Mapping) else {}
