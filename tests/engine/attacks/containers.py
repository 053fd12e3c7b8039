"""A container of one's own is root on the host: by mounts, privileges, namespaces, networks, and tricks of JSON."""

from __future__ import annotations

from typing import Any

from tests.engine.attacks.case import Attack, Content, Effect, Refuses, endpoint, exists, has
from tests.engine.attacks.lab import BASE

CREATE = "/containers/create?name=<fresh>"


def create(name: str, works: Effect | Refuses, target: str = CREATE, **keys: Any) -> Attack:
    """A container with such keys."""
    return endpoint(name, "POST", target, works, {"Image": BASE, "Cmd": ["true"], **keys})


def host(name: str, key: str, value: Any, **more: Any) -> Attack:
    """A container whose ``HostConfig`` has that value, as the engine tells of it afterwards."""
    works = more.pop("works", has(f"HostConfig.{key}", value))
    return create(name, works, HostConfig={key: value, **more})


def text(name: str, body: Content, works: Effect | Refuses, kind: str = "application/json", **more: Any) -> Attack:
    """A container by JSON that is written as it stands."""
    return endpoint(name, "POST", CREATE, works, body, headers={"Content-Type": kind}, **more)


MOUNTS = [
    host("Binds: the host's root", "Binds", ["/:/host"]),
    host("Binds: the engine's socket", "Binds", ["/var/run/docker.sock:/var/run/docker.sock"]),
    host("Binds: an alias of /etc", "Binds", ["/proc/self/root/etc:/x"]),
    host("Binds: more slashes", "Binds", ["//etc//:/x:ro"]),
    host("Binds: a volume of another", "Binds", ["<volume>:/x"]),
    host("Binds: shared propagation", "Binds", ["/etc:/x:rshared"], works=exists("containers")),
    host("Mounts: a bind", "Mounts", [{"Type": "bind", "Source": "/etc", "Target": "/x"}]),
    host(
        "Mounts: a bind that is not recursive",
        "Mounts",
        [{"Type": "bind", "Source": "/", "Target": "/x", "BindOptions": {"NonRecursive": True}}],
        works=exists("containers"),
    ),
    host(
        "Mounts: a volume that is a bind",
        "Mounts",
        [
            {
                "Type": "volume",
                "Source": "<fresh>",
                "Target": "/x",
                "VolumeOptions": {
                    "DriverConfig": {"Name": "local", "Options": {"type": "none", "o": "bind", "device": "/etc"}}
                },
            }
        ],
        works=has("Options.device", "/etc", "volumes"),
    ),
    host("Mounts: a tmpfs", "Mounts", [{"Type": "tmpfs", "Target": "/x", "TmpfsOptions": {"SizeBytes": 1 << 40}}]),
    host(
        "Mounts: an image",
        "Mounts",
        [{"Type": "image", "Source": BASE, "Target": "/x"}],
        works=Refuses("400", "engines mount images from 28.0 on"),
    ),
    host(
        "Mounts: a named pipe",
        "Mounts",
        [{"Type": "npipe", "Source": "//./pipe/docker_engine", "Target": "/x"}],
        works=Refuses("400", "only engines on Windows have named pipes"),
    ),
    host("VolumesFrom another container", "VolumesFrom", ["<victim>:rw"]),
    create("Volumes: an anonymous one", has("Config.Volumes", "/x"), Volumes={"/x": {}}),
    host("Tmpfs", "Tmpfs", {"/x": "exec,dev,suid"}),
    host(
        "Devices", "Devices", [{"PathOnHost": "/dev/kmsg", "PathInContainer": "/dev/kmsg", "CgroupPermissions": "rwm"}]
    ),
    host("DeviceCgroupRules", "DeviceCgroupRules", ["a *:* rwm"]),
    host("DeviceRequests", "DeviceRequests", [{"Driver": "nvidia", "Count": -1}], works=exists("containers")),
    host("VolumeDriver", "VolumeDriver", "local", Binds=["<fresh>:/x"], works=exists("volumes")),
    host("ContainerIDFile on the host", "ContainerIDFile", "/tmp/<fresh>", works=exists("containers")),
]

PRIVILEGES = [
    host("Privileged", "Privileged", True),
    host("CapAdd: all", "CapAdd", ["ALL"]),
    host("CapAdd: SYS_ADMIN", "CapAdd", ["SYS_ADMIN"], works=exists("containers")),
    host("SecurityOpt: no seccomp", "SecurityOpt", ["seccomp=unconfined"]),
    host("SecurityOpt: no AppArmor", "SecurityOpt", ["apparmor=unconfined"]),
    host("SecurityOpt: no labels", "SecurityOpt", ["label=disable"]),
    host("MaskedPaths: none", "MaskedPaths", []),
    host("ReadonlyPaths: none", "ReadonlyPaths", []),
    create("User: root", has("Config.User", "0:0"), User="0:0"),
    host("GroupAdd: the docker group", "GroupAdd", ["docker"]),
    host("OomScoreAdj", "OomScoreAdj", -1000),
    host("OomKillDisable", "OomKillDisable", True, works=exists("containers")),
    host("Sysctls", "Sysctls", {"net.ipv4.ip_forward": "1"}),
    host("Ulimits", "Ulimits", [{"Name": "core", "Hard": -1, "Soft": -1}]),
    host("Runtime", "Runtime", "runc"),
    host("CgroupParent: the root", "CgroupParent", "/"),
    host("Memory without a limit", "Memory", 0, works=exists("containers")),
    host("RestartPolicy: it outlives the build", "RestartPolicy", {"Name": "always", "MaximumRetryCount": 0}),
    host("AutoRemove", "AutoRemove", True),
    host("LogConfig: to another host", "LogConfig", {"Type": "syslog", "Config": {"syslog-address": "udp://<server>"}}),
    host("StorageOpt", "StorageOpt", {"size": "1G"}, works=Refuses("pquota", "the tests' file systems have no quotas")),
]

NAMESPACES = [
    host("NetworkMode: the host's", "NetworkMode", "host"),
    host("NetworkMode: another container's", "NetworkMode", "container:<victim>", works=exists("containers")),
    host("NetworkMode: another network", "NetworkMode", "<network>"),
    host("PidMode: the host's", "PidMode", "host"),
    host("PidMode: another container's", "PidMode", "container:<victim>", works=exists("containers")),
    host("IpcMode: the host's", "IpcMode", "host"),
    host("IpcMode: shareable", "IpcMode", "shareable"),
    host("UTSMode: the host's", "UTSMode", "host"),
    host("UsernsMode: the host's", "UsernsMode", "host"),
    host("CgroupnsMode: the host's", "CgroupnsMode", "host"),
    host(
        "PortBindings", "PortBindings", {"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "0"}]}, works=exists("containers")
    ),
    host("PublishAllPorts", "PublishAllPorts", True),
    host("ExtraHosts", "ExtraHosts", ["registry.invalid:<server-host>"]),
    host("Dns", "Dns", ["<server-host>"]),
    host("Links to another container", "Links", ["<victim>:victim"], works=exists("containers")),
    create(
        "NetworkingConfig: another network",
        exists("containers"),
        HostConfig={"NetworkMode": "<network>"},
        NetworkingConfig={"EndpointsConfig": {"<network>": {"Aliases": ["registry"]}}},
    ),
]

PLAIN = [
    create("a container at all", exists("containers")),
    create("of another's image", has("Config.Image", "<image>"), Image="<image>"),
    create("of the build's own image", has("Config.Image", "<own>"), Image="<own>"),
    create("with a builder's labels", has("Config.Labels", "caisson.pool"), Labels={"caisson.pool": "<fresh>"}),
    create("with a platform", Refuses("404", "there is no such image here"), f"{CREATE}&platform=linux/s390x"),
]

_BODY = f'"Image": "{BASE}", "Cmd": ["true"]'
_PRIVILEGED = has("HostConfig.Privileged", True)
JSON = [
    text("JSON: keys in small letters", f'{{{_BODY}, "hostconfig": {{"privileged": true}}}}', _PRIVILEGED),
    text("JSON: a long s folds to s", f'{{{_BODY}, "HoſtConfig": {{"Privileged": true}}}}', _PRIVILEGED),
    text(
        "JSON: a Kelvin sign folds to k",
        '{"image": "%s", "Cmd": ["true"], "HostConfig": {"NetworKMode": "host"}}'.replace(
            "NetworKMode", "Networ\u212aMode"
        )
        % BASE,
        has("HostConfig.NetworkMode", "host"),
    ),
    text(
        "JSON: a key twice, the second counts",
        f'{{{_BODY}, "HostConfig": {{"Privileged": false}}, "HostConfig": {{"Privileged": true}}}}',
        _PRIVILEGED,
    ),
    text(
        "JSON: two objects are merged",
        f'{{{_BODY}, "HostConfig": {{"Privileged": true}}, "hostConfig": {{"Memory": 0}}}}',
        _PRIVILEGED,
    ),
    text("JSON: escaped letters in a key", f'{{{_BODY}, "Host\\u0043onfig": {{"Privileged": true}}}}', _PRIVILEGED),
    text(
        "JSON: a second document follows",
        f'{{{_BODY}, "HostConfig": {{"Privileged": true}}}} {{"HostConfig": {{}}}}',
        _PRIVILEGED,
        works_on={"26.1": Refuses("unexpected content after JSON", "later engines look at what follows")},
    ),
    text(
        "JSON: as text",
        f'{{{_BODY}, "HostConfig": {{"Privileged": true}}}}',
        Refuses("Content-Type", "a type is asked for"),
        "text/plain",
    ),
    text(
        "JSON: with a charset",
        f'{{{_BODY}, "HostConfig": {{"Privileged": true}}}}',
        _PRIVILEGED,
        "application/json; charset=utf-7",
    ),
    text("JSON: chunked", f'{{{_BODY}, "HostConfig": {{"Privileged": true}}}}', _PRIVILEGED),
]

ATTACKS = [*PLAIN, *MOUNTS, *PRIVILEGES, *NAMESPACES, *JSON]
