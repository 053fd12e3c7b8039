"""The query of a classic build (``POST /build``): read into a model, held to the policy, and written anew. Pure.

The keys are those of the engine's ``newImageBuildOptions`` (API 1.41 to 1.45). Neutral values of keys that are denied
pass, since the docker CLI sends them with every build. What asks for more than the policy is denied, never changed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from caisson.guard.dockerfile_stages import BuildInputs
from caisson.guard.policy import CPU_PERIOD, GuardPolicy
from caisson.guard.query import parse_json, write_json
from caisson.guard.verdict import Denied

_FLAGS = frozenset({"q", "nocache", "pull", "rm", "forcerm", "squash"})
_NUMBERS = frozenset({"memory", "memswap", "cpushares", "cpuperiod", "cpuquota", "shmsize"})
_MAPPINGS = frozenset({"buildargs", "labels"})
_LISTS = frozenset({"ulimits", "cachefrom", "outputs"})
_TEXTS = frozenset(
    {
        "t", "dockerfile", "target", "networkmode", "cgroupparent", "version", "remote", "extrahosts", "securityopt",
        "cpusetcpus", "cpusetmems", "platform", "session", "buildid",
    }
)  # fmt: skip
BUILD_KEYS = _FLAGS | _NUMBERS | _MAPPINGS | _LISTS | _TEXTS

# What each of these is denied for, unless it is empty.
_NEVER = {
    "remote": "A build from a URL is fetched by the engine, from its own network; send the context.",
    "extrahosts": "Extra hosts can give an address of the host's network a harmless name.",
    "securityopt": "Security options take the confinement of RUN steps away.",
    "cpusetcpus": "The guard decides on the processors of RUN steps.",
    "cpusetmems": "The guard decides on the processors of RUN steps.",
    "platform": "Images are built for the engine's own platform.",
    "session": "The classic builder has no session here.",
    "buildid": "The classic builder has no build ID here.",
    "ulimits": "The guard decides on the limits of RUN steps.",
    "cachefrom": "Layers of other images are not this build's.",
    "outputs": "The build's image is its only output.",
}
_FLAG = {"": False, "0": False, "false": False, "1": True, "true": True}
_NUMBER = re.compile(r"-?[0-9]{1,18}")
_STAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
_LONGEST_PATH = 4096


@dataclass(frozen=True)
class BuildQuery:
    """What a build may ask for; all else is the policy's."""

    dockerfile: str = "Dockerfile"
    target: str = ""
    build_args: Mapping[str, str | None] | None = None
    quiet: bool = False
    no_cache: bool = False
    pull: bool = False
    memory: int = 0
    cpu_quota: int = 0
    """Microseconds in each ``CPU_PERIOD``; 0: the policy's, as with ``memory`` (bytes)."""
    shm_size: int = 0
    network: str = ""

    def inputs(self, platform: str) -> BuildInputs:
        """What the engine's reader of the Dockerfile is given; an argument without a value is as good as none."""
        given = tuple((name, value) for name, value in (self.build_args or {}).items() if value is not None)
        return BuildInputs("classic", given, platform, self.target)

    def to_query(self, policy: GuardPolicy) -> tuple[tuple[str, str], ...]:
        """The engine's query; each value that matters for safety is the policy's, or within it."""
        memory = str(self.memory or policy.memory)
        pairs = [
            ("version", "1"),
            ("t", str(policy.image)),
            ("dockerfile", self.dockerfile),
            ("rm", "1"),
            ("forcerm", "1"),
            ("memory", memory),
            ("memswap", memory),
            ("cpuperiod", str(CPU_PERIOD)),
            ("cpuquota", str(self.cpu_quota or policy.cpu_quota)),
            ("networkmode", self.network or policy.network_mode),
            ("labels", write_json(dict(policy.labels))),
        ]
        if policy.cgroup_parent:
            pairs.append(("cgroupparent", policy.cgroup_parent))
        if self.build_args:
            pairs.append(("buildargs", write_json(self.build_args)))
        if self.shm_size:
            pairs.append(("shmsize", str(self.shm_size)))
        if self.target:
            pairs.append(("target", self.target))
        flags = (("q", self.quiet), ("nocache", self.no_cache), ("pull", self.pull))
        pairs += [(key, "1") for key, is_set in flags if is_set]
        return tuple(pairs)


def read_build_query(pairs: tuple[tuple[str, str], ...], policy: GuardPolicy) -> BuildQuery:
    """Read the query of a build, and hold it to the policy; raises ``Denied``."""
    values = _by_key(pairs)
    for name in (value for key, value in pairs if key == "t"):
        _check_name(name, policy)
    if values.get("version", "1") != "1":
        raise Denied("build-version", "BuildKit is reached by /grpc (docker buildx), not by a build of version 2.")
    for key, why in _NEVER.items():
        if not _is_neutral(key, values.get(key, "")):
            raise Denied(f"build-{key}", why)
    flags = {key: _flag(key, values.get(key, "")) for key in _FLAGS}
    if flags["squash"]:
        raise Denied("build-squash", "Squashed images are experimental, and lose what was built before.")
    if flags["pull"] and not policy.may_pull:
        raise Denied("build-pull", "Base images were pulled and judged before the build, and stay as they are.")
    numbers = {key: _number(key, values.get(key, "") or "0") for key in _NUMBERS}
    if numbers["cpushares"]:
        raise Denied("build-cpushares", "The guard decides on the processors of RUN steps.")
    _check_labels(_mapping("labels", values.get("labels", "")), policy)
    _check_cgroup(values.get("cgroupparent", ""), policy)
    return BuildQuery(
        dockerfile=_dockerfile(values.get("dockerfile", "")),
        target=_target(values.get("target", "")),
        build_args=_mapping("buildargs", values.get("buildargs", "")),
        quiet=flags["q"],
        no_cache=flags["nocache"],
        pull=flags["pull"],
        memory=_memory(numbers, policy),
        cpu_quota=_cpu_quota(numbers, policy),
        shm_size=_shm_size(numbers, policy),
        network=_network(values.get("networkmode", ""), policy),
    )


def _by_key(pairs: tuple[tuple[str, str], ...]) -> dict[str, str]:
    values: dict[str, str] = {}
    for key, value in pairs:
        if key in values and key != "t":
            raise Denied("query", f"{key} comes twice in the query.")
        values[key] = value
    return values


def _check_name(name: str, policy: GuardPolicy) -> None:
    if not policy.is_own_image(name):
        raise Denied("build-name", f"The image has to be named {policy.image}; its final tags are set after the build.")


def _is_neutral(key: str, value: str) -> bool:
    if not value:
        return True
    return key in _LISTS and value in ("null", "[]", "{}")


def _flag(key: str, value: str) -> bool:
    if value not in _FLAG:
        raise Denied("build-value", f"{key} is not 0 or 1.")
    return _FLAG[value]


def _number(key: str, value: str) -> int:
    if not _NUMBER.fullmatch(value):
        raise Denied("build-value", f"{key} is not a whole number.")
    return int(value)


def _mapping(key: str, value: str) -> dict[str, str | None]:
    found: Any = parse_json(value, key) if value else None
    if found is None:
        return {}
    nullable = key == "buildargs"
    if not isinstance(found, dict) or not all(
        isinstance(item, str) or (nullable and item is None) for item in found.values()
    ):
        raise Denied("build-value", f"{key} is not a JSON object of strings.")
    if any(not name.isprintable() or not name or "=" in name for name in found):
        raise Denied("build-value", f"A name in {key} is empty, or has '=' or an invisible character in it.")
    return found


def _check_labels(labels: Mapping[str, str | None], policy: GuardPolicy) -> None:
    own = dict(policy.labels)
    for key, value in labels.items():
        if own.get(key) != value:
            raise Denied(
                "build-labels", f"The label {key[:80]!r} is not one of the build's; write it in the Dockerfile."
            )


def _check_cgroup(parent: str, policy: GuardPolicy) -> None:
    if parent and parent != policy.cgroup_parent:
        own = policy.cgroup_parent or "the engine's own"
        raise Denied("build-cgroup-parent", f"RUN steps belong into the control group {own}.")


def _dockerfile(path: str) -> str:
    parts = [part for part in (path or "Dockerfile").split("/") if part != "."]
    if path.startswith("/") or "\\" in path or len(path) > _LONGEST_PATH or any(part in ("", "..") for part in parts):
        raise Denied("build-dockerfile", "dockerfile is not a plain path below the context.")
    if not parts or not path.isprintable():
        raise Denied("build-dockerfile", "dockerfile is not a plain path below the context.")
    return "/".join(parts)


def _target(stage: str) -> str:
    if stage and not _STAGE.fullmatch(stage):
        raise Denied("build-value", "target is not the name of a stage.")
    return stage


def _memory(numbers: Mapping[str, int], policy: GuardPolicy) -> int:
    memory, swap = numbers["memory"], numbers["memswap"]
    if not 0 <= memory <= policy.memory:
        raise Denied("build-memory", f"memory={memory} is more than the build's limit of {policy.memory} bytes.")
    if not 0 <= swap <= policy.memory:
        raise Denied("build-memory", f"memswap={swap} is more than the build's limit of {policy.memory} bytes.")
    return memory


def _cpu_quota(numbers: Mapping[str, int], policy: GuardPolicy) -> int:
    period, quota = numbers["cpuperiod"] or CPU_PERIOD, numbers["cpuquota"]
    if period < 0 or quota < 0 or quota * CPU_PERIOD > policy.cpu_quota * period:
        raise Denied("build-cpus", f"cpuquota={quota} is more than the build's limit of {policy.cpus:g} cores.")
    # Below 1 ms in a period the engine refuses a quota; so small a one is answered by it.
    return quota * CPU_PERIOD // period


def _shm_size(numbers: Mapping[str, int], policy: GuardPolicy) -> int:
    size = numbers["shmsize"]
    if not 0 <= size <= policy.memory:
        raise Denied("build-memory", f"shmsize={size} is more than the build's limit of {policy.memory} bytes.")
    return size


def _network(mode: str, policy: GuardPolicy) -> str:
    if mode not in ("", "default", "none", policy.network_mode):
        raise Denied(
            "build-network", f"RUN steps can have the network {policy.network_mode} or none, not {mode[:80]!r}."
        )
    if mode == "default":
        return policy.network_mode
    return mode
