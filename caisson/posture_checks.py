"""The checks behind ``caisson.posture``: each looks at one thing and says what it found. Pure.

A check takes the container as inspected and what was expected, and returns a status and a reason. A value of another
type than the engine's own is as good as none, and none never passes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, NamedTuple

from caisson.mount_doors import Mount, shown
from caisson.plan import KEEPER, LABEL_DEADLINE, SOCKET_IN_BUILDER, WORKSPACE
from caisson.posture_view import View, mapping
from caisson.sizes import format_size

Status = Literal["pass", "fail", "not applicable"]


@dataclass(frozen=True)
class ExpectedPosture:
    """What the builder was meant to be.

    ``keeper_uid`` is the user of its main process, ``step_uid`` that of what is run in it;
    ``socket`` is the path that the engine sees, ``socket_gid`` the group that owns it, ``guarded`` whether it is a
    guard's; ``memory`` in bytes, ``cpus`` in cores; ``labels`` that must be there; ``environment`` the names that may
    be set; ``security_options`` as the engine lists them (``GET /info``); ``cgroup_parent`` the group that holds the
    build, empty for the engine's own choice.
    """

    keeper_uid: int
    step_uid: int
    socket: str
    socket_gid: int
    memory: int
    cpus: float
    pids: int
    labels: Mapping[str, str]
    environment: frozenset[str]
    security_options: tuple[str, ...]
    guarded: bool = False
    cgroup_parent: str = ""


class Finding(NamedTuple):
    """What one check found."""

    status: Status
    reason: str


Check = Callable[[View, ExpectedPosture], Finding]


def _when(good: bool, found: str, otherwise: str) -> Finding:
    return Finding("pass", found) if good else Finding("fail", otherwise)


def _engine_has(expected: ExpectedPosture, name: str) -> bool:
    return any(f"name={name}" in option.split(",") for option in expected.security_options)


# What the builder reaches


def only_the_socket(view: View, expected: ExpectedPosture) -> Finding:
    found = view.file_mounts
    one = len(found) == 1 and (found[0].kind, found[0].source, found[0].target) == (
        "bind",
        expected.socket,
        SOCKET_IN_BUILDER,
    )
    listed = ", ".join(str(mount) for mount in found) or "nothing"
    return _when(one, f"{expected.socket}, and nothing else", f"it mounts {listed}")


def mount_read_only(view: View, _: ExpectedPosture) -> Finding:
    writable = [str(mount) for mount in view.file_mounts if not mount.read_only]
    good = bool(view.file_mounts) and not writable
    return _when(good, "ro (the socket still connects)", f"writable: {', '.join(writable) or 'no mount to be seen'}")


def mount_propagation(view: View, _: ExpectedPosture) -> Finding:
    shared = [str(mount) for mount in view.file_mounts if mount.options or mount.kind == "unknown"]
    good = bool(view.file_mounts) and not shared
    return _when(good, "rprivate", f"not private, or relabelled: {', '.join(shared) or 'no mount to be seen'}")


def guarded_socket(_: View, expected: ExpectedPosture) -> Finding:
    return _when(
        expected.guarded,
        "a guard lets through what one build needs, and nothing else",
        "the raw socket is root on the host: whoever controls a program in the builder can start any container; "
        "only a guarded socket takes that away",
    )


def no_devices(view: View, _: ExpectedPosture) -> Finding:
    keys = [key for key in ("Devices", "DeviceCgroupRules", "DeviceRequests") if view.host.get(key)]
    return _when(bool(view.host) and not keys, "none", f"it has {', '.join(keys) or 'no HostConfig to be seen'}")


def no_ports(view: View, _: ExpectedPosture) -> Finding:
    asked = "PortBindings" not in view.host or bool(view.host["PortBindings"])
    good = not asked and not view.published and view.host.get("PublishAllPorts") is False
    listed = ", ".join(map(str, {**mapping(view.host, "PortBindings"), **view.published}))
    return _when(good, "none", f"published: {listed or 'all'}")


def own_network(view: View, _: ExpectedPosture) -> Finding:
    network = view.text("NetworkMode")
    return _when(
        network is not None and network not in ("", "default", "bridge"),
        f"{network}",
        "on the default bridge it reaches other containers, and they it; CAISSON_BUILDER_NETWORK names another",
    )


# Who it is


def user(view: View, expected: ExpectedPosture) -> Finding:
    found = view.config.get("User")
    keeper, step = expected.keeper_uid, expected.step_uid
    if keeper == step:
        return Finding("fail", f"its steps run as {step} too, and could stop the process that keeps its deadline")
    good = found == f"{keeper}:{keeper}" and keeper > 0 and step > 0
    return _when(good, f"uid and gid {keeper}, its steps {step}", f"it runs as {shown(str(found or 'root'))}")


def groups(view: View, expected: ExpectedPosture) -> Finding:
    found = view.strings("GroupAdd")
    if found != (str(expected.socket_gid),):
        return Finding("fail", f"it has the groups {', '.join(found) or '(none)'}, not {expected.socket_gid} alone")
    return _when(
        expected.socket_gid != 0,
        f"group {expected.socket_gid} may use the socket",
        "the socket belongs to group 0, which is root's: give it a group of its own",
    )


def capabilities(view: View, _: ExpectedPosture) -> Finding:
    added, dropped = view.strings("CapAdd"), view.strings("CapDrop")
    if added or view.host.get("CapAdd"):
        return Finding("fail", f"added: {', '.join(added)}")
    good = any(name.upper() in ("ALL", "CAP_ALL") for name in dropped)
    return _when(good, "all dropped, none added", f"dropped: {', '.join(dropped) or 'none'}")


def not_privileged(view: View, _: ExpectedPosture) -> Finding:
    return _when(view.host.get("Privileged") is False, "no", "privileged: the host's devices and all capabilities")


def no_new_privileges(view: View, _: ExpectedPosture) -> Finding:
    good = view.security_option("no-new-privileges") in ("", "true")
    return _when(good, "set", "not set: a setuid program could gain privileges")


# What confines it


def seccomp(view: View, expected: ExpectedPosture) -> Finding:
    profile = view.security_option("seccomp")
    if view.host.get("Privileged") is not False or profile == "unconfined":
        return Finding("fail", "unconfined")
    if not _engine_has(expected, "seccomp"):
        return Finding("fail", "the engine has no seccomp")
    if profile and profile != "builtin":
        return _when(_denies(profile), "a profile of its own", "its profile allows what it does not name")
    unconfined = any(
        {"name=seccomp", "profile=unconfined"} <= set(option.split(",")) for option in expected.security_options
    )
    return _when(not unconfined, "the engine's default profile", "the engine's default profile is unconfined")


def _denies(profile: str) -> bool:
    """Whether a seccomp profile (JSON) denies every call that it does not name."""
    try:
        action = json.loads(profile)["defaultAction"]
    except (ValueError, KeyError, TypeError):
        return False
    return action not in ("SCMP_ACT_ALLOW", "SCMP_ACT_LOG", "SCMP_ACT_TRACE")


def apparmor(view: View, expected: ExpectedPosture) -> Finding:
    if not _engine_has(expected, "apparmor"):
        return Finding("not applicable", "AppArmor is not enabled on this host")
    profile = view.top("AppArmorProfile")
    good = profile not in ("", "unconfined") and view.host.get("Privileged") is False
    return _when(good, profile, f"{profile or 'no profile'}")


def selinux(view: View, expected: ExpectedPosture) -> Finding:
    if not _engine_has(expected, "selinux"):
        return Finding("not applicable", "the engine runs without SELinux on this host")
    label = view.top("ProcessLabel")
    good = bool(label) and view.security_option("label") != "disable"
    return _when(good, label, "no label")


def kernel_files(view: View, _: ExpectedPosture) -> Finding:
    masked, read_only = view.strings("MaskedPaths"), view.strings("ReadonlyPaths")
    good = "/proc/kcore" in masked and "/sys/firmware" in masked and "/proc/sys" in read_only
    return _when(good, f"{len(masked)} masked, {len(read_only)} read-only", "not all of the engine's own are covered")


def _namespace(key: str, *own: str) -> Check:
    def check(view: View, _: ExpectedPosture) -> Finding:
        mode = view.text(key)
        return _when(mode in own, mode or "private", f"{key} is {shown(mode or '(not told)')}")

    return check


pid_namespace = _namespace("PidMode", "")
ipc_namespace = _namespace("IpcMode", "private", "none")
uts_namespace = _namespace("UTSMode", "")


def network_namespace(view: View, _: ExpectedPosture) -> Finding:
    mode = view.text("NetworkMode")
    good = mode is not None and mode != "host" and not mode.startswith("container:")
    return _when(good, mode or "default", f"NetworkMode is {shown(mode or '(not told)')}")


def user_namespace(view: View, expected: ExpectedPosture) -> Finding:
    if view.text("UsernsMode") != "":
        return Finding("fail", f"UsernsMode is {shown(view.text('UsernsMode') or '(not told)')}")
    if _engine_has(expected, "userns") or _engine_has(expected, "rootless"):
        return Finding("pass", "the engine maps the container's users to others")
    return Finding("not applicable", "the engine runs without user namespaces (userns-remap)")


def cgroup_namespace(view: View, _: ExpectedPosture) -> Finding:
    good = view.text("CgroupnsMode") == "private"
    return _when(good, "private", "the host's, in which the names of other containers' groups are seen")


# What it can write and use up


def read_only_root(view: View, _: ExpectedPosture) -> Finding:
    return _when(
        view.host.get("ReadonlyRootfs") is True,
        "yes",
        "writable: the workspace is the container's own layer, whose size nothing limits (CAISSON_WORKSPACE=layer)",
    )


def tmpfs(view: View, _: ExpectedPosture) -> Finding:
    found = [mount for mount in view.mounts if mount.kind == "tmpfs"]
    problems = [f"{mount.target} {problem}" for mount in found for problem in _tmpfs_problems(mount)]
    if problems or not found:
        return Finding("fail", "; ".join(problems) or "there is none")
    sizes = [f"{mount.target} {_tmpfs_size(mount)}" for mount in found]
    return Finding("pass", f"{', '.join(sizes)}; programs run from {WORKSPACE} only")


def _tmpfs_size(mount: Mount) -> str:
    sizes = [option.removeprefix("size=") for option in mount.options if option.startswith("size=")]
    size = sizes[0] if len(sizes) == 1 else ""
    if not size.rstrip("kmgKMG").isdecimal() or int(size.rstrip("kmgKMG")) == 0:
        return ""
    return format_size(int(size)) if size.isdecimal() else size


def _tmpfs_problems(mount: Mount) -> list[str]:
    wanted = ["nosuid", "nodev", *(["noexec"] if mount.target != WORKSPACE else [])]
    problems = [f"is not {option}" for option in wanted if option not in mount.options]
    contradictions = {"suid", "dev", *(["exec"] if mount.target != WORKSPACE else [])}
    problems += [f"is {option}" for option in sorted(contradictions & set(mount.options))]
    return problems if _tmpfs_size(mount) else [*problems, "has no size"]


def memory(view: View, expected: ExpectedPosture) -> Finding:
    limit = view.number("Memory")
    if view.host.get("OomKillDisable"):
        return Finding("fail", "OomKillDisable: it would hang at its limit, not end")
    good = limit == expected.memory > 0
    return _when(good, format_size(limit), f"{format_size(limit) if limit > 0 else 'unlimited'}, not as planned")


def swap(view: View, _: ExpectedPosture) -> Finding:
    limit, both = view.number("Memory"), view.number("MemorySwap")
    return _when(
        both == limit > 0,
        "memory and swap together are limited to the same",
        f"swap is not held by the memory limit (MemorySwap is {both}); the kernel may lack swap accounting",
    )


def cpus(view: View, expected: ExpectedPosture) -> Finding:
    cores = view.number("NanoCpus") / 1_000_000_000
    if not cores and view.number("CpuQuota") > 0:
        cores = view.number("CpuQuota") / (view.number("CpuPeriod") or 100_000)
    good = expected.cpus > 0 and abs(cores - expected.cpus) < 0.01
    return _when(good, f"{cores:g}", f"{f'{cores:g}' if cores > 0 else 'unlimited'}, not as planned")


def pids(view: View, expected: ExpectedPosture) -> Finding:
    limit = view.number("PidsLimit")
    return _when(limit == expected.pids > 0, f"{limit}", f"{limit if limit > 0 else 'unlimited'}, not as planned")


def cgroup_parent(view: View, expected: ExpectedPosture) -> Finding:
    parent = view.text("CgroupParent")
    found = f"CgroupParent is {shown(parent or ('(not told)' if parent is None else '(empty)'))}"
    return _when(parent == expected.cgroup_parent, parent or "the engine's own choice", found)


def log(view: View, _: ExpectedPosture) -> Finding:
    config = mapping(view.host, "LogConfig")
    driver, options = config.get("Type"), mapping(config, "Config")
    if driver in ("none", "local"):
        return Finding("pass", f"{driver}, which is bounded by itself")
    size = options.get("max-size")
    good = driver == "json-file" and isinstance(size, str) and size not in ("", "-1")
    return _when(good, f"json-file, {size}", f"{shown(str(driver))} without max-size")


# How it ends, and whose it is


def restart(view: View, _: ExpectedPosture) -> Finding:
    policy = mapping(view.host, "RestartPolicy").get("Name")
    return _when(policy in ("", "no"), "never", f"the restart policy is {shown(str(policy))}")


def init(view: View, _: ExpectedPosture) -> Finding:
    if view.host.get("Init") is True:
        return Finding("pass", "by the engine's init process")
    program = view.program[:2]
    return _when(
        program == KEEPER[:2],
        "by the kernel, as its first process ignores SIGCHLD",
        f"its first process is {shown(' '.join(program) or '(not told)')}",
    )


def _labels(view: View) -> Mapping[str, Any]:
    return mapping(view.config, "Labels")


def labels(view: View, expected: ExpectedPosture) -> Finding:
    found = _labels(view)
    wrong = [name for name, value in expected.labels.items() if found.get(name) != value]
    good = bool(expected.labels) and not wrong
    return _when(good, ", ".join(expected.labels), f"missing or changed: {', '.join(wrong) or 'none was expected'}")


def deadline(view: View, _: ExpectedPosture) -> Finding:
    label = _labels(view).get(LABEL_DEADLINE)
    try:
        told = datetime.fromisoformat(label) if isinstance(label, str) else None
    except ValueError:
        told = None
    if told is None or told.tzinfo is None:
        return Finding("fail", f"its label {LABEL_DEADLINE} tells no time")
    *program, seconds = view.program or ("",)
    if tuple(program) not in (KEEPER, KEEPER[2:]) or not seconds.isdecimal():
        return Finding("fail", "its main process does not end by itself")
    return _when(
        view.host.get("AutoRemove") is True,
        f"{told.isoformat(timespec='seconds')}, whatever else is dead",
        "it is not removed when it ends (AutoRemove is off)",
    )


def environment(view: View, expected: ExpectedPosture) -> Finding:
    entries = view.config.get("Env")
    if not isinstance(entries, list | tuple):
        return Finding("fail", "it is not told")
    names = [str(entry).partition("=")[0] for entry in entries]
    strange = sorted({name for name in names if name not in expected.environment})
    return _when(
        not strange,
        f"only {', '.join(sorted(set(names)))}",
        f"set by neither the plan nor the builder's image: {', '.join(map(shown, strange))}",
    )
