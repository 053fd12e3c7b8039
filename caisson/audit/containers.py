"""The audit's rules on containers: the least that each needs, whoever started it. Pure.

Those that a builder is held to as well are ``caisson.posture_checks``' own.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from caisson.audit.container_mounts import MOUNT_RULES
from caisson.audit.facts import ContainerFacts
from caisson.audit.rules import Found, Rule, when
from caisson.mount_doors import shown
from caisson.posture_checks import Check, ExpectedPosture
from caisson.posture_checks import apparmor as posture_apparmor
from caisson.posture_checks import cgroup_namespace as posture_cgroup_namespace
from caisson.posture_checks import ipc_namespace as posture_ipc_namespace
from caisson.posture_checks import kernel_files as posture_kernel_files
from caisson.posture_checks import log as posture_log
from caisson.posture_checks import network_namespace as posture_network_namespace
from caisson.posture_checks import no_devices as posture_no_devices
from caisson.posture_checks import no_new_privileges as posture_no_new_privileges
from caisson.posture_checks import not_privileged as posture_not_privileged
from caisson.posture_checks import pid_namespace as posture_pid_namespace
from caisson.posture_checks import seccomp as posture_seccomp
from caisson.posture_checks import selinux as posture_selinux
from caisson.posture_checks import user_namespace as posture_user_namespace
from caisson.posture_checks import uts_namespace as posture_uts_namespace
from caisson.posture_view import View, mapping
from caisson.sizes import format_size

_RESTARTS = 5
_SECRET = re.compile(
    r"(?:^|_)(?:PASS(?:WORD|WD|PHRASE)?|PWD|SECRETS?|TOKEN|CREDENTIALS?|API_?KEY|(?:ACCESS|PRIVATE|SECRET|SIGNING)_?KEY)(?:_|$)"
    r"|PASSWORD|PASSWD|SECRET|APIKEY",
    re.IGNORECASE,
)
# _FILE is how an image takes a secret from a file; PWD and OLDPWD are the shell's.
_NO_SECRET = re.compile(r"(?:^|_)(?:FILE|PATH|DIR)$|^(?:OLD)?PWD$", re.IGNORECASE)
_EVERYWHERE = ("", "0.0.0.0", "::")  # noqa: S104


def _shared(check: Check) -> Callable[[ContainerFacts], Found]:
    """A check of a builder's posture that needs no more of the plan than what the engine says of itself."""

    def found(facts: ContainerFacts) -> Found:
        result = check(View(facts.raw), _expected(facts))
        return Found(result.status, result.reason)

    return found


def _expected(facts: ContainerFacts) -> ExpectedPosture:
    return ExpectedPosture(
        keeper_uid=0,
        step_uid=0,
        socket="",
        socket_gid=0,
        memory=0,
        cpus=0,
        pids=0,
        labels={},
        environment=frozenset(),
        security_options=security_options(facts.engine.info),
    )


def security_options(info: object) -> tuple[str, ...]:
    """``SecurityOptions`` of ``GET /info``; none where it tells none."""
    found = info.get("SecurityOptions") if hasattr(info, "get") else None
    return tuple(map(str, found)) if isinstance(found, list | tuple) else ()


def _needs_info(check: Check) -> Callable[[ContainerFacts], Found]:
    shared = _shared(check)

    def found(facts: ContainerFacts) -> Found:
        if "SecurityOptions" not in facts.engine.info:
            return Found("unknown", "the engine does not tell its security options")
        return shared(facts)

    return found


def added_capabilities(facts: ContainerFacts) -> Found:
    value = View(facts.raw).host.get("CapAdd")
    if value is not None and not isinstance(value, list | tuple):
        return Found("unknown", "what is added can't be read")
    return when(not value, "none", f"added: {', '.join(shown(str(name)) for name in value or ())}")


def dropped_capabilities(facts: ContainerFacts) -> Found:
    dropped = View(facts.raw).strings("CapDrop")
    good = any(name.upper() in ("ALL", "CAP_ALL") for name in dropped)
    return when(good, "all dropped", f"dropped: {', '.join(map(shown, dropped)) or 'none'}")


def no_new_privileges(facts: ContainerFacts) -> Found:
    if "name=no-new-privileges" in security_options(facts.engine.info):
        return Found("pass", "the engine's default for all containers")
    return _shared(posture_no_new_privileges)(facts)


def user(facts: ContainerFacts) -> Found:
    value = mapping(facts.raw, "Config").get("User")
    if not isinstance(value, str):
        return Found("unknown", "its user can't be read")
    name = value.partition(":")[0].strip()
    try:
        is_root = int(name) == 0
    except ValueError:
        is_root = name in ("", "root")
    return when(not is_root, f"it runs as {shown(value)}", f"it runs as {shown(value) if value else 'root'}")


def read_only_root(facts: ContainerFacts) -> Found:
    return when(View(facts.raw).host.get("ReadonlyRootfs") is True, "yes", "it is writable")


def memory(facts: ContainerFacts) -> Found:
    limit = View(facts.raw).number("Memory")
    return when(limit > 0, format_size(max(limit, 0)), "no limit")


def cpus(facts: ContainerFacts) -> Found:
    view = View(facts.raw)
    cores = view.number("NanoCpus") / 1_000_000_000
    if cores <= 0 and view.number("CpuQuota") > 0:
        cores = view.number("CpuQuota") / (view.number("CpuPeriod") or 100_000)
    if cores <= 0 and view.text("CpusetCpus"):
        return Found("pass", f"the cores {shown(str(view.text('CpusetCpus')))}")
    return when(cores > 0, f"{cores:g}", "no limit")


def pids(facts: ContainerFacts) -> Found:
    limit = View(facts.raw).number("PidsLimit")
    return when(limit > 0, f"{limit}", "no limit")


def restart_policy(facts: ContainerFacts) -> Found:
    policy = mapping(View(facts.raw).host, "RestartPolicy")
    name, most = policy.get("Name"), policy.get("MaximumRetryCount")
    if name not in ("", "no", "always", "unless-stopped", "on-failure"):
        return Found("unknown", "its restart policy can't be read")
    bounded = name == "on-failure" and isinstance(most, int) and 0 < most <= _RESTARTS
    return when(name in ("", "no") or bounded, name or "no", f"{name}{'' if name != 'on-failure' else f':{most}'}")


def restart_loop(facts: ContainerFacts) -> Found:
    state, count = mapping(facts.raw, "State"), facts.raw.get("RestartCount")
    if not isinstance(state.get("Restarting"), bool) or not isinstance(count, int) or isinstance(count, bool):
        return Found("unknown", "its restarts can't be read")
    looping = bool(state["Restarting"]) or count > _RESTARTS
    return when(not looping, f"restarted {count} times", f"restarted {count} times, and still it ends")


def published(facts: ContainerFacts) -> Found:
    view = View(facts.raw)
    asked, given = view.host.get("PortBindings"), view.published
    if not isinstance(asked, dict | None) or not isinstance(view.host.get("PublishAllPorts"), bool):
        return Found("unknown", "what it publishes can't be read")
    if view.host["PublishAllPorts"]:
        return Found("fail", "it publishes every port that its image names, on every address")
    wide: list[str] = []
    bound: list[str] = []
    for port, bindings in [*(asked or {}).items(), *given.items()]:
        if not isinstance(bindings, list | tuple | None):
            return Found("unknown", "what it publishes can't be read")
        for binding in bindings or ():
            address = binding.get("HostIp") if isinstance(binding, dict) else None
            (wide if not isinstance(address, str) or address in _EVERYWHERE else bound).append(str(port))
    told = ", ".join(map(shown, dict.fromkeys(wide)))
    return when(not wide, f"{len(set(bound)) or 'no'} ports, on named addresses", f"on every address: {told}")


def log(facts: ContainerFacts) -> Found:
    driver = mapping(View(facts.raw).host, "LogConfig").get("Type")
    if not isinstance(driver, str) or not driver:
        return Found("unknown", "its logging driver can't be read")
    if driver not in ("json-file", "local", "none"):
        return Found("pass", f"{shown(driver)}, which keeps it outside of the engine's files")
    return _shared(posture_log)(facts)


def environment(facts: ContainerFacts) -> Found:
    entries = mapping(facts.raw, "Config").get("Env")
    if entries is not None and not isinstance(entries, list | tuple):
        return Found("unknown", "its environment can't be read")
    pairs = [str(entry).partition("=") for entry in entries or ()]
    names = sorted({name for name, _, value in pairs if value and _SECRET.search(name) and not _NO_SECRET.search(name)})
    return when(
        not names, "no name looks like a secret's", f"values in {', '.join(map(shown, names))}, which inspect shows"
    )


def _host(*keys: str) -> tuple[str, ...]:
    return tuple(f"HostConfig.{key}" for key in keys)


PRIVILEGE_RULES: tuple[Rule[ContainerFacts], ...] = (
    # What it may do.
    Rule(
        "privileged",
        "It is not privileged",
        "high",
        "CIS 5.5",
        "Run it without --privileged; add the one capability or device that it needs.",
        _shared(posture_not_privileged),
        _host("Privileged"),
    ),
    Rule(
        "added-capabilities",
        "It has no capability besides the engine's default ones",
        "high",
        "CIS 5.4",
        "Run it without --cap-add, or accept it with its name.",
        added_capabilities,
        _host("CapAdd"),
    ),
    Rule(
        "dropped-capabilities",
        "All capabilities are dropped",
        "medium",
        "CIS 5.4; least privilege",
        "Run it with --cap-drop=ALL, and add those that it needs.",
        dropped_capabilities,
        _host("CapDrop"),
    ),
    Rule(
        "no-new-privileges",
        "It can't gain privileges",
        "medium",
        "CIS 5.26",
        "Run it with --security-opt=no-new-privileges.",
        no_new_privileges,
        _host("SecurityOpt"),
    ),
    Rule(
        "seccomp",
        "A seccomp profile confines it",
        "high",
        "CIS 5.22",
        "Run it without seccomp=unconfined.",
        _needs_info(posture_seccomp),
        _host("SecurityOpt", "Privileged"),
    ),
    Rule(
        "apparmor",
        "An AppArmor profile confines it",
        "medium",
        "CIS 5.2",
        "Run it without apparmor=unconfined.",
        _needs_info(posture_apparmor),
        ("AppArmorProfile", "HostConfig.Privileged"),
    ),
    Rule(
        "selinux",
        "An SELinux label confines it",
        "medium",
        "CIS 5.3",
        "Run it without label=disable.",
        _needs_info(posture_selinux),
        ("ProcessLabel", "HostConfig.SecurityOpt"),
    ),
    Rule(
        "kernel-files",
        "The kernel's sensitive files are covered",
        "medium",
        "Docker's defaults",
        "Run it without --privileged and without systempaths=unconfined.",
        _shared(posture_kernel_files),
        _host("MaskedPaths", "ReadonlyPaths"),
    ),
    Rule(
        "user",
        "It does not run as root",
        "medium",
        "CIS 4.1",
        "Set USER in its Dockerfile, or run it with --user.",
        user,
        ("Config.User",),
    ),
    Rule(
        "read-only-root",
        "Its root file system is read-only",
        "low",
        "CIS 5.13",
        "Run it with --read-only, and a tmpfs or a volume where it writes.",
        read_only_root,
        _host("ReadonlyRootfs"),
    ),
    # What it shares with the host.
    Rule(
        "pid-namespace",
        "It has its own process namespace",
        "high",
        "CIS 5.16",
        "Run it without --pid.",
        _shared(posture_pid_namespace),
        _host("PidMode"),
    ),
    Rule(
        "network-namespace",
        "It has its own network namespace",
        "high",
        "CIS 5.10",
        "Run it without --network=host; publish the ports that it needs.",
        _shared(posture_network_namespace),
        _host("NetworkMode"),
    ),
    Rule(
        "ipc-namespace",
        "It has its own IPC namespace",
        "medium",
        "CIS 5.17",
        "Run it with --ipc=private.",
        _shared(posture_ipc_namespace),
        _host("IpcMode"),
    ),
    Rule(
        "uts-namespace",
        "It has its own UTS namespace",
        "medium",
        "CIS 5.21",
        "Run it without --uts=host.",
        _shared(posture_uts_namespace),
        _host("UTSMode"),
    ),
    Rule(
        "user-namespace",
        "Its users are not the host's",
        "medium",
        "CIS 5.31",
        "Run it without --userns=host.",
        _needs_info(posture_user_namespace),
        _host("UsernsMode"),
    ),
    Rule(
        "cgroup-namespace",
        "It has its own cgroup namespace",
        "low",
        "Least privilege",
        "Run it with --cgroupns=private, or set default-cgroupns-mode in daemon.json.",
        _shared(posture_cgroup_namespace),
        _host("CgroupnsMode"),
    ),
    Rule(
        "devices",
        "It has no device of the host's",
        "high",
        "CIS 5.18",
        "Run it without --device, or accept it with its name.",
        _shared(posture_no_devices),
        _host("Devices", "DeviceCgroupRules", "DeviceRequests"),
    ),
    Rule(
        "published-ports",
        "It publishes no port on every address of the host",
        "medium",
        "CIS 5.14",
        "Publish it on one address, such as 127.0.0.1:8080:80.",
        published,
        _host("PortBindings", "PublishAllPorts"),
    ),
    # What it can use up.
    Rule("memory", "Its memory is limited", "medium", "CIS 5.11", "Run it with --memory.", memory, _host("Memory")),
    Rule(
        "cpus",
        "Its CPU time is limited",
        "low",
        "CIS 5.12",
        "Run it with --cpus.",
        cpus,
        _host("NanoCpus", "CpuQuota", "CpusetCpus"),
    ),
    Rule(
        "pids",
        "Its processes are limited",
        "medium",
        "CIS 5.29",
        "Run it with --pids-limit.",
        pids,
        _host("PidsLimit"),
    ),
    Rule(
        "log",
        "Its log is bounded",
        "medium",
        "Docker's logging drivers",
        "Run it with --log-opt max-size=10m, or set log-opts in daemon.json.",
        log,
        _host("LogConfig"),
    ),
    Rule(
        "restart-policy",
        "It is restarted five times at most",
        "low",
        "CIS 5.15",
        "Run it with --restart=on-failure:5.",
        restart_policy,
        _host("RestartPolicy"),
    ),
    Rule(
        "restart-loop",
        "It is not restarted again and again",
        "medium",
        "CIS 5.15",
        "See `docker logs`, and mend what ends it.",
        restart_loop,
        ("State.Restarting", "RestartCount"),
    ),
    # What it gives away.
    Rule(
        "environment",
        "Its environment holds no secret, as far as names tell",
        "medium",
        "CIS 4.10",
        "Give it a file (a secret of compose or swarm) and the variable that ends in _FILE.",
        environment,
        ("Config.Env",),
    ),
)

CONTAINER_RULES: tuple[Rule[ContainerFacts], ...] = (*MOUNT_RULES, *PRIVILEGE_RULES)
