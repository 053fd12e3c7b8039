"""``BuildSpec`` → what will be done: the builder's container body, the build's command line, labels. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from caisson.engine import EngineInfo
from caisson.errors import LimitsNotEnforceable, RequestInvalid
from caisson.request import Builder
from caisson.settings import Settings
from caisson.spec import RESERVED_REGISTRY, BuildSpec

WORKSPACE = "/app"
SOCKET_IN_BUILDER = "/var/run/docker.sock"
KEEPER = ("/usr/bin/env", "--ignore-signal=CHLD", "/usr/bin/sleep")
"""The builder's main process, before its seconds. While it ignores SIGCHLD the kernel reaps orphans (wait(2))."""

REPOSITORY_UNDER_CONSTRUCTION = f"{RESERVED_REGISTRY}/build"
"""Every image that is being built has a tag of it, its build's ID."""
_BUILD_ID = re.compile(r"[0-9a-f]{12}")

LABEL_BUILD = "caisson.build"
LABEL_FLOW_RUN = "caisson.flow-run"
LABEL_REQUEST = "caisson.request"
LABEL_DEADLINE = "caisson.deadline"
LABEL_HOST = "caisson.host"
LABEL_SPEC = "caisson.spec"
# Of images, and not those of builders: a container has the labels of its image, and none is a builder by them.
LABEL_IMAGE_BUILD = "caisson.image.build"
LABEL_IMAGE_FLOW_RUN = "caisson.image.flow-run"
LABEL_IMAGE_HOST = "caisson.image.host"

# BuildKit knows the Dockerfile attribute cgroup-parent from engine 23.0 on (API 1.42); 20.10 ignores it silently.
_API_WITH_BUILDKIT_CGROUP_PARENT = (1, 42)
_ENVIRONMENT = {
    "HOME": "/tmp",  # noqa: S108
    "DOCKER_CONFIG": "/tmp/.docker",  # noqa: S108
    "DOCKER_CLI_HINTS": "false",
    "LC_ALL": "C.UTF-8",
}
BUILDER_ENVIRONMENT = frozenset({*_ENVIRONMENT, "PATH"})
"""Names of all variables that a builder has: ours, and the image's ``PATH``."""

_TMP_SIZE = 64 << 20


@dataclass(frozen=True)
class Socket:
    """The socket that a builder mounts: its path as the engine's host sees it, and the group that may use it.

    ``on_this_host`` is its path here, ``is_guarded`` whether it is a guard's.
    """

    path: str
    gid: int
    on_this_host: str
    is_guarded: bool = False


def container_name(build_id: str) -> str:
    """The name of a build's builder."""
    return f"caisson-build-{build_id}"


def reference_under_construction(build_id: str) -> str:
    """The name of a build's image until it gets its tags."""
    return f"{REPOSITORY_UNDER_CONSTRUCTION}:{build_id}"


def build_under_construction(reference: str) -> str:
    """The build whose image has that name; empty for any other name.

    >>> build_under_construction("caisson.local/build:0123456789ab"), build_under_construction("debian:trixie")
    ('0123456789ab', '')
    """
    repository, _, build_id = reference.rpartition(":")
    return build_id if repository == REPOSITORY_UNDER_CONSTRUCTION and _BUILD_ID.fullmatch(build_id) else ""


@dataclass(frozen=True)
class BuildIdentity:
    """Whose builder it is: labels and names come from here."""

    build_id: str
    flow_run_id: str
    request_hash: str
    host: str
    deadline: datetime

    @property
    def container_name(self) -> str:
        return container_name(self.build_id)

    @property
    def reference(self) -> str:
        """The name of the image while it is built; the final tags are set by Caisson, never by the build."""
        return reference_under_construction(self.build_id)

    def labels(self) -> dict[str, str]:
        return {
            LABEL_BUILD: self.build_id,
            LABEL_FLOW_RUN: self.flow_run_id,
            LABEL_REQUEST: self.request_hash,
            LABEL_HOST: self.host,
            LABEL_DEADLINE: self.deadline.isoformat(timespec="seconds"),
        }


@dataclass(frozen=True)
class ChosenBuilder:
    """Which builder builds, why, and whether its RUN steps can be held to the builder container's limits."""

    builder: Builder
    reason: str
    holds_steps: bool


def buildkit_holds(engine: EngineInfo) -> bool:
    """Whether the engine's BuildKit can put RUN steps into a control group."""
    return engine.api >= _API_WITH_BUILDKIT_CGROUP_PARENT


def choose_builder(
    asked: Builder, *, engine: EngineInfo, needs_buildkit: bool, require_limits: bool, hold_steps: bool = True
) -> ChosenBuilder:
    """BuildKit where the engine can hold its steps to the limits, else the classic builder.

    Raises ``LimitsNotEnforceable`` when ``require_limits`` leaves no builder, ``RequestInvalid`` when the classic
    builder was asked for what only BuildKit has.
    """
    classic_holds = engine.cgroup_driver == "cgroupfs"
    if asked is Builder.CLASSIC and needs_buildkit:
        raise RequestInvalid.from_fields([("builder", "the classic builder has no secrets; choose auto or buildkit")])
    if asked is Builder.AUTO:
        if buildkit_holds(engine):
            chosen = ChosenBuilder(Builder.BUILDKIT, "the engine's BuildKit can hold its steps to the limits", True)
        elif needs_buildkit:
            chosen = ChosenBuilder(Builder.BUILDKIT, "the request has secrets, which only BuildKit can mount", False)
        else:
            chosen = ChosenBuilder(
                Builder.CLASSIC,
                f"BuildKit in engine {engine.version} can't hold its steps to the limits; the classic builder can",
                classic_holds,
            )
    elif asked is Builder.BUILDKIT:
        chosen = ChosenBuilder(Builder.BUILDKIT, "asked for", buildkit_holds(engine))
    else:
        chosen = ChosenBuilder(Builder.CLASSIC, "asked for", classic_holds)
    if not hold_steps:
        chosen = replace(chosen, holds_steps=False, reason=f"{chosen.reason}; CAISSON_HOLD_STEPS is off")
    if require_limits and not chosen.holds_steps:
        raise LimitsNotEnforceable(
            f"Engine {engine.version} can't hold the RUN steps of the {chosen.builder.value} builder to the limits.",
            hint="Upgrade the engine to 23.0 or later, choose builder=classic, set CAISSON_HOLD_STEPS=true, "
            "or unset CAISSON_REQUIRE_LIMITS.",
        )
    return chosen


def container_body(
    spec: BuildSpec,
    identity: BuildIdentity,
    socket: Socket,
    settings: Settings,
    *,
    now: datetime,
    seccomp: str = "",
    cgroup_parent: str = "",
) -> dict[str, Any]:
    """The Docker API body of the builder (``POST /containers/create``): least privilege, one mount.

    The main process sleeps from ``now`` until the deadline; then the container ends and the engine removes it, though
    whatever started it is dead. What is run in it has another user, who can't stop that process
    (``Settings.step_user``). ``seccomp`` is the profile itself (JSON), not its path; ``cgroup_parent`` the group that
    holds the build, empty for the engine's own choice.
    """
    limits = spec.limits
    owner = f"uid={settings.builder_uid},gid={settings.builder_uid}"
    tmpfs = {"/tmp": f"rw,noexec,nosuid,nodev,size={_TMP_SIZE},mode=1777"}  # noqa: S108
    if settings.workspace == "tmpfs":
        tmpfs[WORKSPACE] = f"rw,exec,nosuid,nodev,size={limits.workspace},mode=0755,{owner}"
    security = ["no-new-privileges:true"]
    if seccomp:
        security.append(f"seccomp={seccomp}")
    if settings.apparmor_profile:
        security.append(f"apparmor={settings.apparmor_profile}")
    if settings.selinux_label:
        security.append(f"label={settings.selinux_label}")
    seconds = max(1.0, (identity.deadline - now).total_seconds())
    return {
        "Image": settings.builder_image,
        # Said here, so that an image can't say otherwise.
        "Entrypoint": list(KEEPER),
        "Cmd": [f"{seconds:.0f}"],
        "Healthcheck": {"Test": ["NONE"]},
        "User": f"{settings.keeper_uid}:{settings.keeper_uid}",
        "WorkingDir": WORKSPACE,
        "Env": [f"{name}={value}" for name, value in _ENVIRONMENT.items()],
        "Labels": identity.labels(),
        "StopSignal": "SIGKILL",
        "HostConfig": {
            # Not as Binds: an engine that does not see the socket would make a directory in its place.
            "Mounts": [{"Type": "bind", "Source": socket.path, "Target": SOCKET_IN_BUILDER, "ReadOnly": True}],
            "Tmpfs": tmpfs,
            "ReadonlyRootfs": settings.workspace == "tmpfs",
            "AutoRemove": True,
            "RestartPolicy": {"Name": "no"},
            "NetworkMode": settings.builder_network or "default",
            "GroupAdd": [str(socket.gid)],
            "CapDrop": ["ALL"],
            "SecurityOpt": security,
            "Memory": limits.memory,
            "MemorySwap": limits.memory,
            "NanoCpus": int(limits.cpus * 1_000_000_000),
            "PidsLimit": limits.pids,
            "CgroupParent": cgroup_parent,
            "IpcMode": "private",
            "CgroupnsMode": "private",
            "LogConfig": {"Type": "json-file", "Config": {"max-size": "1m", "max-file": "1"}},
        },
    }


def _context_path(spec: BuildSpec) -> str:
    return f"{WORKSPACE}/{spec.context}" if spec.context else WORKSPACE


def dockerfile_path(spec: BuildSpec) -> str:
    """Where the Dockerfile is in the builder."""
    return f"{_context_path(spec)}/{spec.dockerfile or 'Dockerfile'}"


def build_command(
    spec: BuildSpec,
    *,
    builder: Builder,
    reference: str,
    cgroup_parent: str,
    labels: Mapping[str, str],
    secret_env: Mapping[str, str],
) -> tuple[list[str], dict[str, str]]:
    """The program that builds, and its environment, to be run in the builder without a shell.

    ``cgroup_parent`` is the group that holds the build, empty where steps can't be held; ``secret_env`` maps a secret's
    name to the variable in the build's environment that holds its value, so that no value is an argument.
    """
    directory = _context_path(spec)
    if builder is Builder.BUILDKIT:
        argv = ["docker", "buildx", "build", "--progress=rawjson", "--provenance=false"]
        env = {"BUILDX_NO_DEFAULT_ATTESTATIONS": "1"}
        argv += [f"--secret=id={name},env={variable}" for name, variable in secret_env.items()]
    else:
        argv = ["docker", "build", "--force-rm"]
        env = {"DOCKER_BUILDKIT": "0"}
        # Where a nested group can't be had, each step is at least held by limits of its own.
        argv += [
            f"--memory={spec.limits.memory}",
            f"--memory-swap={spec.limits.memory}",
            "--cpu-period=100000",
            f"--cpu-quota={int(spec.limits.cpus * 100_000)}",
        ]
    if cgroup_parent:
        argv.append(f"--cgroup-parent={cgroup_parent}")
    if spec.no_cache:
        argv.append("--no-cache")
    if spec.target:
        argv.append(f"--target={spec.target}")
    argv += [f"--build-arg={key}={value}" for key, value in spec.build_args]
    argv += [f"--label={key}={value}" for key, value in labels.items()]
    argv += [f"--tag={reference}", f"--file={dockerfile_path(spec)}", directory]
    return argv, env
