"""Checks of the engine: its socket, what it can hold to limits, what confines its containers. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from caisson.engine import EngineInfo
from caisson.errors import CaissonError, LimitsNotEnforceable
from caisson.file_facts import FileFacts
from caisson.plan import choose_builder
from caisson.request import Builder
from caisson.sizes import format_size
from deployments.doctor.facts import HostFacts, Item

# 20.10's API; the docker clients in the builder's image speak nothing much older.
_LEAST_API = (1, 41)


def socket(facts: HostFacts) -> Iterator[Item]:
    name, path = "socket", facts.socket.path
    try:
        path = facts.settings.docker_socket
    except CaissonError as error:
        yield Item(name, "problem", error.message, error.hint)
        return
    if facts.socket.error or not facts.socket.exists:
        why = facts.socket.error or "it does not exist"
        yield Item(name, "problem", f"{path} can't be used: {why}.", "Start Docker, or set CAISSON_DOCKER_HOST.")
    elif facts.socket.kind != "socket":
        yield Item(
            name, "problem", f"{path} is a {facts.socket.kind}, not a socket.", "Set CAISSON_DOCKER_HOST to the socket."
        )
    elif not facts.socket.writable:
        yield Item(
            name,
            "problem",
            f"You may not use {path} ({_owner(facts.socket)}).",
            f"Join the group {facts.socket.group or facts.socket.gid} (`usermod -aG`), then log in again; or run as "
            "root. Whoever may use the socket is as good as root.",
        )
    elif facts.socket.mode & 0o007:
        yield Item(
            name,
            "problem",
            f"Every user of this host may use {path} ({_owner(facts.socket)}), and so is as good as root.",
            f"chmod o= {path}",
        )
    elif facts.settings.socket == "raw" and not facts.socket.mode & 0o020:
        yield Item(
            name,
            "problem",
            f"The group of {path} may not use it ({_owner(facts.socket)}): the builder joins that group.",
            f"chmod g+rw {path}",
        )
    else:
        joined = f"; builders join group {facts.socket.gid}" if facts.settings.socket == "raw" else ""
        yield Item(name, "ok", f"{path} ({_owner(facts.socket)}){joined}.")


def _owner(file: FileFacts) -> str:
    return f"mode {file.mode:04o}, owner {file.uid}, group {file.group or file.gid}"


def engine(facts: HostFacts) -> Iterator[Item]:
    engine = facts.engine
    if engine is None:
        yield Item(
            "engine",
            "problem",
            facts.engine_error or "The Docker engine does not answer.",
            "Start it (`systemctl start docker`, or deployments/setup/engine.sh), or set CAISSON_DOCKER_HOST.",
        )
        return
    store = "containerd image store" if engine.containerd_store else engine.storage_driver
    message = f"Docker engine {engine.version} (API {engine.api_version}), {store}, data in {engine.data_root}."
    if engine.api < _LEAST_API:
        yield Item("engine", "problem", message, "Upgrade the engine to 20.10 or later.")
    elif engine.storage_driver in ("vfs", "devicemapper", "aufs"):
        yield Item(
            "engine",
            "warning",
            f"{message} The {engine.storage_driver} driver is slow and wastes disk.",
            'Use overlay2 ("storage-driver" in /etc/docker/daemon.json).',
        )
    else:
        yield Item("engine", "ok", message)


def cgroups(facts: HostFacts) -> Iterator[Item]:
    if facts.engine is None:
        return
    engine = facts.engine
    message = f"Version {engine.cgroup_version}, {engine.cgroup_driver or 'no'} driver."
    if engine.cgroup_driver in ("", "none"):
        yield Item(
            "cgroups",
            "problem",
            f"{message} The engine can't limit containers at all.",
            "Run the engine as root, or enable cgroup v2 delegation for the rootless engine.",
        )
    elif not facts.cgroup_files:
        yield Item(
            "cgroups",
            "warning",
            f"{message} /sys/fs/cgroup can't be read here, so that limits are asked for but never verified.",
            "Run Caisson on the engine's host, with /sys/fs/cgroup mounted (read-only does).",
        )
    elif not engine.swap_limit:
        yield Item(
            "cgroups",
            "warning",
            f"{message} The kernel does not account for swap, so that a build can take more than its memory.",
            "Boot with swapaccount=1, or turn swap off.",
        )
    else:
        yield Item("cgroups", "ok", message)


def limits(facts: HostFacts) -> Iterator[Item]:
    """Asked of the plan itself, so that doctor and builds can't disagree."""
    if facts.engine is None:
        return
    try:
        plain, secret = (
            choose_builder(
                Builder.AUTO,
                engine=facts.engine,
                needs_buildkit=needs_buildkit,
                require_limits=facts.settings.require_limits and not needs_buildkit,
                hold_steps=facts.settings.hold_steps,
            )
            for needs_buildkit in (False, True)
        )
    except LimitsNotEnforceable as error:
        yield Item("limits", "problem", f"{error.message} Every build is refused.", error.hint)
        return
    upgrade = "Upgrade the engine to 23.0 or later."
    if not facts.settings.hold_steps:
        yield Item("limits", "warning", "RUN steps are not held to a build's limits.", "Set CAISSON_HOLD_STEPS=true.")
    elif not plain.holds_steps:
        yield Item("limits", "warning", "RUN steps can't be held to a build's limits on this engine.", upgrade)
    elif not secret.holds_steps:
        refused = "are refused (CAISSON_REQUIRE_LIMITS)" if facts.settings.require_limits else "run without limits"
        yield Item(
            "limits",
            "warning",
            f"RUN steps are held to the limits by the {plain.builder.value} builder; builds with secrets need "
            f"BuildKit, whose steps {refused} on engine {facts.engine.version}.",
            upgrade,
        )
    else:
        yield Item("limits", "ok", f"RUN steps are held to a build's limits ({plain.builder.value}).")
    if plain.holds_steps and plain.builder is Builder.BUILDKIT and facts.no_group:
        yield Item(
            "cache",
            "warning",
            f"RUN steps are not cached between builds: {facts.no_group}.",
            "Run Caisson as root on the engine's host and give the engine the cgroupfs driver "
            '("exec-opts": ["native.cgroupdriver=cgroupfs"] in daemon.json), or give up the limits of RUN steps with '
            "CAISSON_HOLD_STEPS=false.",
        )


def capacity(facts: HostFacts) -> Iterator[Item]:
    engine, settings = facts.engine, facts.settings
    if engine is None or not engine.memory:
        return
    # The engine refuses a container that asks for more cores than it has.
    if engine.cpus and settings.cpus > engine.cpus:
        yield Item(
            "capacity",
            "problem",
            f"A build's default of {settings.cpus:g} cores is more than the engine's {engine.cpus}.",
            f"Set CAISSON_CPUS to {engine.cpus} or less.",
        )
        return
    wanted = settings.memory * settings.concurrency
    message = (
        f"{settings.concurrency} builds at once of {format_size(settings.memory)} each, on {engine.cpus} cores and "
        f"{format_size(engine.memory)}"
    )
    if wanted > engine.memory:
        yield Item(
            "capacity",
            "warning",
            f"{message}: together they can take more than there is.",
            "Lower CAISSON_CONCURRENCY or CAISSON_MEMORY.",
        )
    else:
        yield Item("capacity", "ok", f"{message}.")


def builder_image(facts: HostFacts) -> Iterator[Item]:
    image, name = facts.builder_image, facts.settings.builder_image
    make = "Make it with `caisson builder-image`."
    if image is None:
        return
    if not image.present:
        yield Item("builder image", "problem", f"{name} is not on this engine.", make)
    elif image.user.partition(":")[0] in ("", "0", "root"):
        yield Item("builder image", "warning", f"{name} is made for root; builders never run as root.", make)
    elif image.wanted and image.content != image.wanted:
        yield Item("builder image", "warning", f"{name} is not what this version of Caisson describes.", make)
    else:
        sure = "up to date" if image.wanted else "present"
        yield Item("builder image", "ok", f"{name} is {sure} ({format_size(image.size)}, made {image.created[:10]}).")


def confinement(facts: HostFacts) -> Iterator[Item]:
    engine, settings = facts.engine, facts.settings
    if engine is None:
        return
    options = _options(engine)
    if "seccomp" not in options:
        yield Item(
            "seccomp",
            "warning",
            "The engine filters no system calls.",
            "Use a kernel and an engine with seccomp (CONFIG_SECCOMP_FILTER).",
        )
    elif facts.seccomp is not None and not facts.seccomp.readable:
        yield Item(
            "seccomp",
            "problem",
            f"{settings.seccomp_profile} can't be read: {facts.seccomp.error or 'permission denied'}.",
            "Correct CAISSON_SECCOMP_PROFILE, or unset it for the engine's default profile.",
        )
    else:
        yield Item("seccomp", "ok", f"{settings.seccomp_profile or 'The default profile'} filters system calls.")
    yield _apparmor(facts, options)
    if settings.selinux_label and "selinux" not in options:
        yield Item(
            "selinux",
            "problem",
            "CAISSON_SELINUX_LABEL is set, but the engine does not use SELinux.",
            'Set "selinux-enabled": true in /etc/docker/daemon.json, or unset CAISSON_SELINUX_LABEL.',
        )
    elif "selinux" in options:
        yield Item("selinux", "ok", f"Builders have {settings.selinux_label or 'the default container label'}.")


def _apparmor(facts: HostFacts, options: set[str]) -> Item:
    profile = facts.settings.apparmor_profile
    if "apparmor" not in options:
        if profile:
            return Item(
                "apparmor",
                "problem",
                "CAISSON_APPARMOR_PROFILE is set, but the engine does not use AppArmor.",
                "Start the host with AppArmor, or unset CAISSON_APPARMOR_PROFILE.",
            )
        if "selinux" in options:
            return Item("apparmor", "ok", "Not used: SELinux confines containers here.")
        return Item(
            "apparmor",
            "warning",
            "Neither AppArmor nor SELinux confines containers on this host.",
            "Enable AppArmor (`apt-get install apparmor`, then reboot), and restart Docker.",
        )
    if profile and facts.apparmor_profiles is not None and profile not in facts.apparmor_profiles:
        return Item(
            "apparmor",
            "problem",
            f"The profile {profile} is not loaded.",
            "Load it with `apparmor_parser -r FILE`, or unset CAISSON_APPARMOR_PROFILE.",
        )
    return Item("apparmor", "ok", f"Builders have the profile {profile or 'docker-default'}.")


def namespaces(facts: HostFacts) -> Iterator[Item]:
    if facts.engine is None:
        return
    options = _options(facts.engine)
    if "userns" in options:
        yield Item(
            "user namespace",
            "problem",
            "The engine maps users (userns-remap): a builder's group is then another one than the socket's.",
            "Run the engine without userns-remap, or give builds an engine of their own.",
        )
    elif "rootless" in options:
        yield Item("user namespace", "ok", "The engine is rootless: root in a RUN step is nobody on the host.")
    else:
        yield Item("user namespace", "ok", "Users are not mapped.")


def live_restore(facts: HostFacts) -> Iterator[Item]:
    if facts.engine is None:
        return
    if facts.engine.live_restore:
        message = "On: builders outlive a restart of the engine, and are removed when it is back."
    else:
        message = "Off: a restart of the engine ends running builds, and their builders with them."
    yield Item("live restore", "ok", message)


def builders(facts: HostFacts) -> Iterator[Item]:
    late = [builder.name for builder in facts.builders if builder.deadline is None or builder.deadline < facts.now]
    if late:
        yield Item(
            "builders",
            "warning",
            f"{len(late)} of {len(facts.builders)} builders are past their deadline: {', '.join(late[:5])}.",
            f"docker rm -f {' '.join(late[:5])}",
        )
    elif facts.builders:
        yield Item("builders", "ok", f"{len(facts.builders)} at work.")


def _options(engine: EngineInfo) -> set[str]:
    """Names of the security options: ``name=seccomp,profile=default`` on 20.10, ``seccomp`` on others."""
    names = (option.split(",")[0] for option in engine.security_options)
    return {name.removeprefix("name=") for name in names}
