"""The audit's rules on what a container has of the host: the mount policy, over every spelling of a source. Pure.

A volume is judged by what its driver mounts for it (``device=/etc``, overlayfs's ``lowerdir``), as a bind would be.
What says that it is a builder gets nothing for it but stricter rules: one mount, a guarded socket.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from pathlib import PurePosixPath

from caisson.audit.facts import ContainerFacts
from caisson.audit.rules import Found, Rule, when
from caisson.mount_doors import Mount, mounts_of_inspect, shown
from caisson.mount_paths import RUNTIME_SOCKETS, fold
from caisson.mounts import MountPolicy, Verdict, builder_policy
from caisson.plan import LABEL_BUILD, SOCKET_IN_BUILDER

_ENGINE_SOCKETS = RUNTIME_SOCKETS | {"docker.sock"}
_FILES = ("bind", "volume", "unknown")
_DIRECTORIES = ("device", "lowerdir", "upperdir", "workdir")
_NEEDS = ("HostConfig", "Mounts")


def is_builder(facts: ContainerFacts) -> bool:
    """Whether it says that it is one of Caisson's."""
    return LABEL_BUILD in facts.container.labels


def _mounts(facts: ContainerFacts) -> Iterator[Mount]:
    for mount in mounts_of_inspect(facts.raw):
        if mount.kind == "volume":
            yield replace(mount, options=tuple(_directories(mount, facts)))
        elif mount.kind in _FILES:
            yield mount


def _directories(mount: Mount, facts: ContainerFacts) -> Iterator[str]:
    """What of the host the volume's driver mounts; never another option, which may be a password."""
    options = dict((facts.engine.volumes or {}).get(mount.source, {}))
    for part in options.pop("o", "").split(","):
        name, _, value = part.partition("=")
        options[name] = value
    for name in _DIRECTORIES:
        yield from (f"{name}={path}" for path in options.get(name, "").split(":") if path.startswith("/"))


def _guarded_socket(mount: Mount, facts: ContainerFacts) -> bool:
    directory = facts.settings.engine_guard_dir or str(facts.settings.guard_dir)
    path = PurePosixPath(mount.source)
    return mount.kind == "bind" and mount.target == SOCKET_IN_BUILDER and str(path.parent) == directory


# Six rules ask the same of one container, one after the other.
@lru_cache(maxsize=2)
def _verdicts(facts: ContainerFacts) -> tuple[Verdict, ...]:
    mounts = list(_mounts(facts))
    guarded = [mount.source for mount in mounts if is_builder(facts) and _guarded_socket(mount, facts)]
    policy = builder_policy(guarded[0]) if guarded else MountPolicy()
    return tuple(verdict for verdict in policy.check(mounts, facts.resolve) if not verdict.allowed)


def _is_engine_socket(verdict: Verdict, facts: ContainerFacts) -> bool:
    mount = verdict.mount
    if mount.kind != "bind" or not mount.source.startswith("/") or "\0" in mount.source:
        return False
    known = {fold(facts.settings.engine_socket), fold(facts.settings.docker_host.partition("://")[2])} - {()}
    for path in (mount.source, facts.resolve(mount.source).path):
        parts = fold(path)
        if parts in known or (parts and parts[-1] in _ENGINE_SOCKETS):
            return True
    return False


def _told(refused: list[Verdict], facts: ContainerFacts, good: str) -> Found:
    if refused:
        # Two doors may tell of one mount: what was asked for, and what came of it.
        return Found("fail", "; ".join(dict.fromkeys(verdict.reason for verdict in refused)))
    unknown = [str(mount) for mount in _mounts(facts) if mount.kind == "unknown"]
    if unknown:
        return Found("unknown", f"not understood: {'; '.join(unknown)}")
    volumes = any(mount.kind == "volume" and mount.source for mount in _mounts(facts))
    if volumes and facts.engine.volumes is None:
        return Found("unknown", "the engine did not tell what its volumes are made of")
    return Found("pass", good)


def root_mounts(facts: ContainerFacts) -> Found:
    refused = [verdict for verdict in _verdicts(facts) if verdict.rule == "first-rule"]
    return _told(refused, facts, "none of them is mounted, by any name")


def engine_socket(facts: ContainerFacts) -> Found:
    refused = [verdict for verdict in _verdicts(facts) if _is_engine_socket(verdict, facts)]
    if refused:
        names = dict.fromkeys(shown(verdict.mount.source) for verdict in refused)
        return Found("fail", f"it has {', '.join(names)}: whoever controls it is root on this host")
    return _told([], facts, "it has none")


def host_files(facts: ContainerFacts) -> Found:
    refused = [
        verdict
        for verdict in _verdicts(facts)
        if verdict.rule == "host-roots" and not _is_engine_socket(verdict, facts) and verdict.mount.kind in _FILES
    ]
    return _told(refused, facts, "none of them is mounted, by any name")


def other_binds(facts: ContainerFacts) -> Found:
    if is_builder(facts):
        return Found("not applicable", "a builder's mounts have a rule of their own")
    named = ("first-rule", "host-roots", "runtime-sockets")
    refused = [
        verdict
        for verdict in _verdicts(facts)
        if verdict.mount.kind == "bind" and verdict.rule not in named and not _is_engine_socket(verdict, facts)
    ]
    return _told(refused, facts, "it has no other bind of the host's files")


def propagation(facts: ContainerFacts) -> Found:
    shared = [
        str(mount)
        for mount in _mounts(facts)
        if any(option.rpartition("=")[2] in ("shared", "rshared") for option in mount.options)
    ]
    if shared:
        return Found("fail", f"shared: {', '.join(dict.fromkeys(shared))}")
    return _told([], facts, "no mount is shared")


def builder_mounts(facts: ContainerFacts) -> Found:
    if not is_builder(facts):
        return Found("not applicable", "it is no builder of Caisson's")
    effective = [mount for mount in mounts_of_inspect(facts.raw) if not mount.door.startswith("HostConfig.")]
    files = [mount for mount in effective if mount.kind != "tmpfs"]
    guarded = [mount for mount in files if _guarded_socket(mount, facts)]
    if len(files) != 1 or not guarded:
        return Found("fail", f"it mounts {', '.join(map(str, files)) or 'nothing'}, not one guarded socket alone")
    policy = builder_policy(guarded[0].source)
    # A guard that died leaves no socket, and so nothing that is reached through the mount.
    gone = facts.resolve(guarded[0].source).kind == "missing"
    reasons = [
        verdict.reason
        for verdict in policy.check(mounts_of_inspect(facts.raw), facts.resolve)
        if not verdict.allowed and not (gone and verdict.rule == "content")
    ]
    return when(not reasons, "one guarded socket, read-only", "; ".join(dict.fromkeys(reasons)))


MOUNT_RULES: tuple[Rule[ContainerFacts], ...] = (
    Rule(
        "root-mount",
        "It has no mount of /, /Users, /home, /root or /etc, nor of what is below or above them",
        "high",
        "CIS 5.6; mount policy (ADR 0006)",
        "Mount a named volume, or the one directory that it needs from outside of these.",
        root_mounts,
        _NEEDS,
    ),
    Rule(
        "engine-socket",
        "It has no socket of a container engine",
        "high",
        "CIS 5.32; mount policy (ADR 0006)",
        "Remove the mount, or put a guard before the socket that lets through what it needs.",
        engine_socket,
        _NEEDS,
    ),
    Rule(
        "host-files",
        "It has no mount of the host's own directories, /proc, /sys and /dev among them",
        "high",
        "CIS 5.6; mount policy (ADR 0006)",
        "Mount a named volume, or the one directory that it needs from outside of these.",
        host_files,
        _NEEDS,
    ),
    Rule(
        "other-bind",
        "It has no bind of other files of the host's",
        "low",
        "mount policy (ADR 0006)",
        "Use a named volume, or accept it: other-bind@NAME in CAISSON_AUDIT_ACCEPT.",
        other_binds,
        _NEEDS,
    ),
    Rule(
        "mount-propagation",
        "Its mounts carry no mounts out to the host",
        "medium",
        "CIS 5.20",
        "Drop the option shared or rshared.",
        propagation,
        _NEEDS,
    ),
    Rule(
        "builder-mounts",
        "A builder of Caisson's mounts one guarded socket, and nothing else",
        "high",
        "mount policy (ADR 0006), guard (ADR 0012)",
        "Remove the container; unset CAISSON_SOCKET where it is raw. Caisson makes none like it.",
        builder_mounts,
        _NEEDS,
    ),
)
