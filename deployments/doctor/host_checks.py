"""Checks of the host: disks, state, service, git, clock. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, timedelta

from caisson.disk import require_room
from caisson.errors import DiskTooFull
from caisson.sizes import format_size
from deployments.doctor.facts import HostFacts, Item
from deployments.same_origin import is_loopback

_MOST_CLOCK_SKEW = timedelta(seconds=5)
_LOOPBACK = ("127.", "::1", "localhost")
_LEAST_STATE_BYTES = 256 << 20


def docker_disk(facts: HostFacts) -> Iterator[Item]:
    usage, settings = facts.docker_disk, facts.settings
    if usage is None:
        if facts.docker_disk_error:
            yield Item(
                "docker disk",
                "problem",
                f"Docker's disk can't be looked at: {facts.docker_disk_error}.",
                "Set CAISSON_DOCKER_DATA_ROOT to the engine's data root as this host sees it.",
            )
        return
    try:
        require_room(usage, min_free_bytes=settings.min_free_bytes, min_free_inodes=settings.min_free_inodes)
    except DiskTooFull as error:
        yield Item("docker disk", "problem", error.message, error.hint)
        return
    inodes = f"{usage.free_inodes:,} inodes" if usage.total_inodes else "no limit of inodes"
    message = f"{format_size(usage.free_bytes)} and {inodes} free at {usage.path}"
    # Between one and two floors, the next build may be the one that does not fit.
    if usage.free_bytes < 2 * settings.min_free_bytes:
        yield Item(
            "docker disk",
            "warning",
            f"{message}: not far above the floor of {format_size(settings.min_free_bytes)}.",
            "Free some room: `caisson prune` shows what could go, `caisson disk --attribution` what holds it.",
        )
    else:
        yield Item("docker disk", "ok", f"{message}; builds need {format_size(settings.min_free_bytes)}.")


def guard(facts: HostFacts) -> Iterator[Item]:
    directory, path = facts.guard_dir, facts.settings.guard_dir
    if facts.settings.socket == "raw":
        yield Item(
            "guard",
            "warning",
            "CAISSON_SOCKET is raw: a builder's socket is root on this host for whatever runs in it.",
            "Unset CAISSON_SOCKET.",
        )
    elif directory.error or (directory.exists and directory.kind != "directory") or not directory.writable:
        is_other = directory.exists and directory.kind != "directory"
        why = directory.error or (f"it is a {directory.kind}" if is_other else "no permission")
        yield Item(
            "guard",
            "problem",
            f"Guarded sockets can't be made in {path}: {why}.",
            "Set CAISSON_GUARD_DIR to a directory that belongs to Caisson's user.",
        )
    elif directory.exists and directory.mode & 0o022:
        yield Item(
            "guard",
            "problem",
            f"Others may write to {path} (mode {directory.mode:04o}), where the guarded sockets are.",
            f"chmod go-rwx {path}",
        )
    elif not facts.gives_to_builders:
        gid = facts.settings.builder_uid
        yield Item(
            "guard",
            "problem",
            f"This user is not in the group {gid} (CAISSON_BUILDER_UID), so that no builder would get its socket.",
            f"groupadd --gid {gid} caisson-builder; usermod --append --groups caisson-builder USER; then start anew.",
        )
    else:
        yield Item("guard", "ok", f"Each builder gets a guarded socket, in {path}, that can build its image only.")


def state_dir(facts: HostFacts) -> Iterator[Item]:
    state, path = facts.state_dir, facts.settings.state_dir
    if state.error or (state.exists and state.kind != "directory") or not state.writable:
        why = state.error or (
            f"it is a {state.kind}" if state.exists and state.kind != "directory" else "no permission"
        )
        yield Item(
            "state directory",
            "problem",
            f"{path} can't be written to: {why}.",
            "Set CAISSON_STATE_DIR to a directory that you may write to.",
        )
    elif not state.exists:
        yield Item("state directory", "ok", f"{path} will be made.")
    elif state.mode & 0o022:
        yield Item(
            "state directory",
            "problem",
            f"Others may write to {path} (mode {state.mode:04o}), and so decide what a build is answered with.",
            f"chmod go-rwx {path}",
        )
    elif state.mode & 0o055:
        yield Item(
            "state directory",
            "warning",
            f"Others may read {path} (mode {state.mode:04o}): logs and reports are in it.",
            f"chmod go-rwx {path}",
        )
    elif facts.state_disk is not None and facts.state_disk.free_bytes < _LEAST_STATE_BYTES:
        yield Item(
            "state directory",
            "warning",
            f"{format_size(facts.state_disk.free_bytes)} free for {path}: logs and the database grow.",
            "Free some room there, or set CAISSON_STATE_DIR.",
        )
    else:
        yield Item("state directory", "ok", f"{path} (mode {state.mode:04o}).")


def gateway(facts: HostFacts) -> Iterator[Item]:
    found = facts.gateway
    if not found.url:
        return
    if not found.answers:
        yield Item(
            "API",
            "problem",
            f"Caisson's own API does not answer at {found.url}.",
            f"Its log says why: {facts.settings.state_dir}/logs/gateway.log",
        )
    elif not is_loopback(facts.settings.gateway_host):
        yield Item(
            "API",
            "warning",
            f"Caisson's own API is reached from other hosts, at {found.url}, without TLS: tokens can be read.",
            "Set CAISSON_GATEWAY_HOST to 127.0.0.1 and put a proxy with TLS before it (CAISSON_GATEWAY_NAMES).",
        )
    else:
        tokens = f"{found.tokens} tokens are valid" if found.tokens != 1 else "1 token is valid"
        first = "" if found.tokens else "; `caisson tokens create` makes one"
        yield Item("API", "ok", f"Caisson's own API is at {found.url}; {tokens}{first}.")


def service(facts: HostFacts) -> Iterator[Item]:
    service = facts.service
    if not service.api_url:
        yield Item("service", "ok", "No Caisson runs here: `caisson build` builds in-process. `caisson up` starts one.")
    elif service.error:
        yield Item("service", "problem", service.error, service.fix)
    else:
        version = f"Prefect {service.version}" if service.version else "Prefect"
        yield Item("service", "ok", f"{version} answers at {service.api_url}.")


def worker(facts: HostFacts) -> Iterator[Item]:
    service = facts.service
    if not service.api_url or service.error:
        return
    start = "Start `caisson up` on this host."
    if service.pool_exists is False:
        yield Item("worker", "problem", f"The work pool {service.pool} does not exist.", start)
    elif service.pool_paused:
        yield Item(
            "worker",
            "problem",
            f"The work pool {service.pool} is paused: builds wait.",
            f"prefect work-pool resume {service.pool}",
        )
    elif service.workers_online == 0:
        yield Item(
            "worker", "problem", f"This host's worker of the pool {service.pool} is not online: its builds wait.", start
        )
    elif service.deployment_exists is False:
        yield Item("worker", "problem", f"There is no deployment {service.deployment}.", start)
    elif service.workers_online:
        yield Item("worker", "ok", f"This host's worker is online for {service.pool}.")


def exposure(facts: HostFacts) -> Iterator[Item]:
    host = facts.settings.server_host
    if not facts.settings.api_url and not host.startswith(_LOOPBACK) and not facts.settings.api_auth:
        yield Item(
            "exposure",
            "problem",
            f"The server listens on {host} without a password: whoever reaches it can run builds here.",
            "Set CAISSON_API_AUTH to `user:password`, or CAISSON_SERVER_HOST to 127.0.0.1.",
        )


def git(facts: HostFacts) -> Iterator[Item]:
    if "ssh" not in facts.settings.allow_protocols:
        return
    hosts = facts.known_hosts
    if hosts is None:
        yield Item(
            "known hosts",
            "warning",
            "The key of a git server is taken at first sight (ssh).",
            "`ssh-keyscan HOST > FILE`, compare it with what its owner published, set CAISSON_SSH_KNOWN_HOSTS=FILE.",
        )
    elif not hosts.readable or not hosts.size:
        why = hosts.error or ("it is empty" if hosts.readable else "permission denied")
        yield Item(
            "known hosts",
            "problem",
            f"{hosts.path} is of no use: {why}. No clone over ssh will work.",
            "Correct CAISSON_SSH_KNOWN_HOSTS, or fill the file with `ssh-keyscan HOST`.",
        )
    else:
        yield Item("known hosts", "ok", f"Git servers are known by {hosts.path} (ssh).")


def registry(facts: HostFacts) -> Iterator[Item]:
    settings = facts.settings
    if bool(settings.registry_username) != bool(settings.registry_password):
        missing = "password" if settings.registry_username else "username"
        yield Item(
            "registry",
            "problem",
            f"CAISSON_REGISTRY_{missing.upper()} is not set, its counterpart is.",
            "Set both or neither.",
        )
    elif settings.registry_username and not settings.registry:
        yield Item(
            "registry",
            "problem",
            "CAISSON_REGISTRY is not set, so CAISSON_REGISTRY_PASSWORD is for no registry, and no push can work.",
            "Set CAISSON_REGISTRY to the one registry that gets it, such as registry.example.com:5000.",
        )


def clock(facts: HostFacts) -> Iterator[Item]:
    service = facts.service
    if facts.installed_at is not None and facts.now < facts.installed_at - timedelta(days=1):
        yield Item(
            "clock",
            "problem",
            f"It is {facts.now:%Y-%m-%d} on this host, before Caisson was installed: TLS will fail.",
            "Set the clock (`timedatectl set-ntp true`).",
        )
    elif service.clock is not None and service.asked_at is not None:
        skew = abs(service.clock - service.asked_at)
        # The API tells whole seconds.
        if skew > _MOST_CLOCK_SKEW + timedelta(seconds=1):
            yield Item(
                "clock",
                "warning",
                f"This host and the Prefect API are {skew.total_seconds():.0f} s apart: schedules and times are off.",
                "Let both follow the same time servers (`timedatectl set-ntp true`).",
            )
        else:
            yield Item("clock", "ok", f"{facts.now.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC, as the Prefect API's.")
    else:
        yield Item("clock", "ok", f"{facts.now.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC.")
