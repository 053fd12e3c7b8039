"""What a running container is, as the engine and the kernel tell it: what the benchmark's checks are made of."""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker

from caisson.cgroups import Cgroup, KernelLimits, find_cgroup, read_limits
from caisson.guard.peer import peer_process
from tests.conftest import EngineHost

_SECONDS = 60
_NAMESPACES = ("net", "pid", "ipc", "uts", "user")
_LISTENS = "0A"


@dataclass(frozen=True)
class Process:
    """One process of a container: ``proc_pid_status(5)`` by its keys, and its namespaces by their kinds."""

    pid: int
    status: Mapping[str, str]
    namespaces: Mapping[str, int]

    @property
    def name(self) -> str:
        return self.status["Name"]

    @property
    def users(self) -> set[str]:
        """Real, effective, saved and of the file system."""
        return set(self.status["Uid"].split())

    @property
    def capabilities(self) -> int:
        """All that it has or could come to have."""
        sets = (self.status[key] for key in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"))
        return max(int(text, 16) for text in sets)


@dataclass(frozen=True)
class KernelMount:
    """One line of ``proc_pid_mountinfo(5)``."""

    target: str
    options: frozenset[str]
    shared: bool
    filesystem: str


@dataclass(frozen=True)
class ContainerFacts:
    """One container at one moment; documents are the engine's own."""

    inspect: Mapping[str, Any]
    info: Mapping[str, Any]
    image: Mapping[str, Any]
    networks: tuple[Mapping[str, Any], ...]
    executions: tuple[Mapping[str, Any], ...]
    """Programs that are run in it now, besides its own."""
    processes: tuple[Process, ...]
    daemon: Mapping[str, int]
    """Namespaces of the engine itself."""
    mounts: tuple[KernelMount, ...]
    limits: KernelLimits
    parent_limits: KernelLimits
    listening: int
    """TCP ports that somebody in it listens on."""
    has_engines_socket: bool

    @property
    def host(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self.inspect["HostConfig"]
        return found


def look(host: EngineHost, container: str, *, executions: bool = False) -> ContainerFacts:
    """The facts of a running container; with ``executions``, as soon as a program is run in it."""
    client = docker.APIClient(host.docker_host, version="auto")
    deadline = time.monotonic() + _SECONDS
    try:
        while True:
            inspect = client.inspect_container(container)
            found = [client.exec_inspect(each) for each in inspect["ExecIDs"] or ()]
            running = tuple(each for each in found if each["Running"])
            processes = _processes(int(inspect["State"]["Pid"]))
            # One that is just being started is not yet what it will be.
            settled = bool(processes) and not any(each.name.startswith("runc") for each in processes)
            if settled and (not executions or (running and len(processes) > 1)):
                return _facts(client, host, inspect, running, processes)
            assert time.monotonic() < deadline, (inspect, running, processes)
            time.sleep(0.05)
    finally:
        client.close()


def _facts(
    client: docker.APIClient,
    host: EngineHost,
    inspect: Mapping[str, Any],
    running: tuple[Mapping[str, Any], ...],
    processes: tuple[Process, ...],
) -> ContainerFacts:
    pid = int(inspect["State"]["Pid"])
    group = find_cgroup(pid)
    assert group is not None
    return ContainerFacts(
        inspect=inspect,
        info=client.info(),
        image=client.inspect_image(inspect["Image"]),
        networks=tuple(client.inspect_network(name) for name in inspect["NetworkSettings"]["Networks"]),
        executions=running,
        processes=processes,
        daemon=_namespaces(_engine_process(host.socket)),
        mounts=tuple(map(_mount, Path(f"/proc/{pid}/mountinfo").read_text().splitlines())),
        limits=read_limits(group),
        parent_limits=read_limits(_above(group)),
        listening=_listening(pid),
        has_engines_socket=_has_socket(pid, host.socket),
    )


def _engine_process(path: Path) -> int:
    """Who listens on the socket."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(path))
        return peer_process(connection)


def _namespaces(pid: int) -> dict[str, int]:
    return {kind: Path(f"/proc/{pid}/ns/{kind}").stat().st_ino for kind in _NAMESPACES}


def _processes(pid: int) -> tuple[Process, ...]:
    group = find_cgroup(pid)
    if group is None:
        return ()
    found = []
    for number in map(int, (group.memory / "cgroup.procs").read_text().split()):
        try:
            lines = Path(f"/proc/{number}/status").read_text().splitlines()
            pairs = (line.partition(":") for line in lines)
            found.append(Process(number, {key: value.strip() for key, _, value in pairs}, _namespaces(number)))
        except (FileNotFoundError, ProcessLookupError):
            # It has ended meanwhile.
            continue
    return tuple(found)


def _above(group: Cgroup) -> Cgroup:
    path = group.path.rpartition("/")[0]
    return Cgroup(group.version, path, group.memory.parent, group.pids.parent, group.cpu.parent)


def _mount(line: str) -> KernelMount:
    own, _, rest = line.partition(" - ")
    _, _, _, _, target, options, *optional = own.split()
    shared = any(each.startswith("shared:") for each in optional)
    return KernelMount(target, frozenset(options.split(",")), shared, rest.split()[0])


def _listening(pid: int) -> int:
    lines = [line.split() for name in ("tcp", "tcp6") for line in _lines(Path(f"/proc/{pid}/net/{name}"))]
    return sum(fields[3] == _LISTENS for fields in lines)


def _lines(file: Path) -> list[str]:
    # Where the kernel has no IPv6, there is no such file.
    return file.read_text().splitlines()[1:] if file.exists() else []


def _has_socket(pid: int, engines: Path) -> bool:
    # Not by way of /var/run: in a builder that is a symlink to /run, which would be followed to this host's.
    inside = Path(f"/proc/{pid}/root/run/docker.sock")
    return inside.exists() and inside.samefile(engines)
