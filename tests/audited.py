"""What the audit's tests share: a hardened container, a builder, an engine and a host as they should be."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from caisson.audit.facts import (
    AuditFacts,
    CareFacts,
    ContainerFacts,
    DaemonFacts,
    EngineConfig,
    ScheduleFacts,
)
from caisson.disk import DiskUsage
from caisson.disk_state import DiskState
from caisson.docker_answers import inspected_container
from caisson.engine import EngineDescription
from caisson.file_facts import FileFacts
from caisson.hostpath import Resolved
from caisson.settings import Settings, load_settings

NOW = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)
GUARDED = "/run/caisson/0123456789ab.sock"
HARDENED: dict[str, Any] = {
    "Id": "c" * 64,
    "Name": "/web",
    "Image": "sha256:1",
    "RestartCount": 0,
    "AppArmorProfile": "docker-default",
    "ProcessLabel": "",
    "State": {"Status": "running", "Pid": 7, "Restarting": False, "FinishedAt": "0001-01-01T00:00:00Z"},
    "Config": {"User": "1000:1000", "Env": ["PATH=/usr/bin", "DB_PASSWORD_FILE=/run/secrets/db"], "Labels": {}},
    "Mounts": [
        {"Type": "volume", "Name": "data", "Source": "/var/lib/docker/volumes/data/_data", "Destination": "/data"}
    ],
    "NetworkSettings": {"Ports": {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8080"}]}},
    "HostConfig": {
        "Binds": ["data:/data"],
        "Privileged": False,
        "CapAdd": None,
        "CapDrop": ["ALL"],
        "SecurityOpt": ["no-new-privileges"],
        "MaskedPaths": ["/proc/kcore", "/sys/firmware"],
        "ReadonlyPaths": ["/proc/sys"],
        "ReadonlyRootfs": True,
        "PidMode": "",
        "NetworkMode": "web",
        "IpcMode": "private",
        "UTSMode": "",
        "UsernsMode": "",
        "CgroupnsMode": "private",
        "Devices": [],
        "DeviceCgroupRules": None,
        "DeviceRequests": None,
        "PortBindings": {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8080"}]},
        "PublishAllPorts": False,
        "Memory": 64 << 20,
        "NanoCpus": 500_000_000,
        "CpuQuota": 0,
        "CpuPeriod": 0,
        "CpusetCpus": "",
        "PidsLimit": 100,
        "LogConfig": {"Type": "json-file", "Config": {"max-size": "10m"}},
        "RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 5},
    },
}
INFO: dict[str, Any] = {
    "LiveRestoreEnabled": True,
    "SecurityOptions": ["name=apparmor", "name=seccomp,profile=builtin", "name=userns"],
    "Warnings": None,
    "LoggingDriver": "local",
    "ExperimentalBuild": False,
    "RegistryConfig": {
        "IndexConfigs": {"docker.io": {"Name": "docker.io", "Secure": True}},
        "InsecureRegistryCIDRs": ["127.0.0.0/8", "::1/128"],
    },
    "Driver": "overlay2",
    "DockerRootDir": "/var/lib/docker",
    "Swarm": {"LocalNodeState": "inactive"},
}
CONFIG = {
    "default-ulimits": {"nofile": {"Name": "nofile", "Hard": 1024, "Soft": 1024}},
    "no-new-privileges": True,
    "userland-proxy": False,
}
ENGINE = EngineDescription(
    INFO,
    {"Version": "26.1.5+dfsg1"},
    {"Options": {"com.docker.network.bridge.enable_icc": "false"}},
    {"data": {}, "share": {"type": "none", "o": "bind", "device": "/etc"}},
)
LINKS = {"/data/link": "/etc", "/data/innocent": "/run/docker.sock"}


def resolve(path: str) -> Resolved:
    """A host with two links, and a guarded socket."""
    return Resolved(LINKS.get(path, path), "socket" if path == GUARDED else "directory")


def settings(**changes: Any) -> Settings:
    return load_settings(_env_file=None, host_name="b1", guard_dir=Path("/run/caisson"), **changes)


def changed(values: Mapping[str, Any], **changes: Any) -> dict[str, Any]:
    """A copy; a key with double underscores is one within, and ``...`` removes it."""
    made = copy.deepcopy(dict(values))
    for name, value in changes.items():
        *path, last = name.split("__")
        inner = made
        for part in path:
            inner = inner[part]
        if value is ...:
            del inner[last]
        else:
            inner[last] = value
    return made


def builder(**changes: Any) -> dict[str, Any]:
    """A builder of Caisson's: one guarded socket."""
    socket = {"Type": "bind", "Source": GUARDED, "Destination": "/var/run/docker.sock", "Mode": "ro", "RW": False}
    return changed(
        HARDENED,
        **{
            "Name": "/caisson-build-0123456789ab",
            "Config__Labels": {"caisson.build": "0123456789ab"},
            "Mounts": [{**socket, "Propagation": "rprivate"}],
            "HostConfig__Binds": [f"{GUARDED}:/var/run/docker.sock:ro"],
            **changes,
        },
    )


def container(raw: Mapping[str, Any], *, engine: EngineDescription = ENGINE, **changes: Any) -> ContainerFacts:
    return ContainerFacts(
        replace(inspected_container(HARDENED), raw=raw, **_identity(raw)), settings(**changes), engine, resolve
    )


def _identity(raw: Mapping[str, Any]) -> dict[str, Any]:
    labels = (raw.get("Config") or {}).get("Labels") if isinstance(raw.get("Config"), dict) else None
    return {"name": str(raw.get("Name", "")).lstrip("/"), "labels": labels or {}}


def daemon(
    *, config: Mapping[str, Any] | None = CONFIG, engine: EngineDescription | None = ENGINE, **info: Any
) -> DaemonFacts:
    if engine is not None and info:
        engine = replace(engine, info=changed(engine.info, **info))
    return DaemonFacts(
        engine,
        EngineConfig(
            "/etc/docker/daemon.json", config, "", FileFacts("/etc/docker/daemon.json", exists=True, mode=0o644)
        ),
        FileFacts("/run/docker.sock", exists=True, kind="socket", mode=0o660, group="docker"),
    )


def care(**changes: Any) -> CareFacts:
    fields = {name: changes.pop(name) for name in list(changes) if name in CareFacts.__dataclass_fields__}
    facts = CareFacts(
        settings=settings(**changes),
        now=NOW,
        uid=1,
        state=DiskState(looked=NOW - timedelta(seconds=30), prune_succeeded=NOW - timedelta(hours=1)),
        disk=DiskUsage("/var/lib/docker", 100 << 30, 60 << 30, 0, 0),
        disk_problem="",
        guard_dir=FileFacts("/run/caisson", exists=True, kind="directory", mode=0o711, uid=1),
        state_dir=FileFacts("/var/lib/caisson", exists=True, kind="directory", mode=0o700, uid=1),
        schedules={flow: ScheduleFacts(1, False) for flow in ("monitor-disk", "prune-images", "audit-host")},
    )
    return replace(facts, **fields)


def host(*raws: Mapping[str, Any], engine_problem: str = "", **changes: Any) -> AuditFacts:
    return AuditFacts(
        settings=settings(**changes),
        now=NOW,
        engine_problem=engine_problem,
        containers=tuple(container(raw).container for raw in raws),
        daemon=daemon(engine=None if engine_problem else ENGINE),
        care=care(),
        resolve=resolve,
    )
