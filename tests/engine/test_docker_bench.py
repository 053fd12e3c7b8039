"""Section 5 of the CIS Docker Benchmark, measured on a running builder: the document's table says what was found.

Each check gives what docker-bench-security 1.6.0 says of such a container (``tests/5_container_runtime.sh``), in its
own words. That script asks the engine alone; here the kernel has to bear it out, and where it is no PASS, the reason
that the document gives.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import docker
import pytest
from prefect import Task

from caisson.spec import parse_request
from flows.build_image import as_function, run_build
from tests.conftest import EngineHost
from tests.engine.conftest import Builds
from tests.engine.container_facts import ContainerFacts, look
from tests.security_docs import bench_table

# Long enough to be looked at.
DOCKERFILE = "FROM debian:trixie-slim\nRUN sleep 4\n"
_PRIVILEGED_PORTS = 1025
_SENSITIVE = {"/", "/boot", "/dev", "/etc", "/lib", "/proc", "/sys", "/usr"}
_OWN_FILES = {f"/etc/{name}" for name in ("hosts", "hostname", "resolv.conf")}
_IN_MEMORY = {"overlay", "proc", "sysfs", "tmpfs", "devpts", "mqueue", "cgroup", "cgroup2"}


@dataclass(frozen=True)
class Measured:
    """What the benchmark says, whether engine and kernel bear it out, and the reason that the document has to give."""

    result: str
    proven: bool
    because: str = ""


Check = Callable[[ContainerFacts], Measured]


def _warns(bad: object, proven: object, because: str = "") -> Measured:
    return Measured("WARN" if bad else "PASS", bool(proven), because)


def _informs(bad: object, proven: object, because: str = "") -> Measured:
    return Measured("INFO" if bad else "PASS", bool(proven), because)


def _ports(facts: ContainerFacts) -> list[tuple[str, int]]:
    published = facts.inspect["NetworkSettings"]["Ports"] or {}
    return [(each["HostIp"], int(each["HostPort"])) for to in published.values() for each in to or ()]


def _options(facts: ContainerFacts) -> list[str]:
    return [str(option) for option in facts.host["SecurityOpt"] or ()]


def _shares(facts: ContainerFacts, kind: str) -> bool:
    return any(process.namespaces[kind] == facts.daemon[kind] for process in facts.processes)


def _powerless(facts: ContainerFacts) -> bool:
    return all(process.capabilities == 0 for process in facts.processes)


def _mode(key: str, kind: str) -> Check:
    """A namespace that may be the host's."""
    return lambda facts: _warns(facts.host[key] == "host", not _shares(facts, kind))


def _swarm(facts: ContainerFacts) -> Measured:
    labels = facts.inspect["Config"]["Labels"] or {}
    own = not any(key.startswith("com.docker.swarm.") for key in labels)
    return _warns(facts.info["Swarm"]["LocalNodeState"] != "inactive", own, "swarm mode is the host's")


def _kernel_has_apparmor() -> bool:
    enabled = Path("/sys/module/apparmor/parameters/enabled")
    return enabled.exists() and enabled.read_text().startswith("Y")


def _apparmor(facts: ContainerFacts) -> Measured:
    confined = facts.inspect.get("AppArmorProfile") not in (None, "", "unconfined")
    return _warns(not confined, confined is _kernel_has_apparmor(), "this kernel has no AppArmor")


def _sensitive(facts: ContainerFacts) -> Measured:
    bad = [
        each for each in facts.inspect["Mounts"] if each["RW"] and _SENSITIVE & {each["Source"], each["Destination"]}
    ]
    of_the_host = {each.target: each.options for each in facts.mounts if each.filesystem not in _IN_MEMORY}
    only = of_the_host.keys() - _OWN_FILES <= {"/run/docker.sock"}
    return _warns(bad, only and all("ro" in options for options in of_the_host.values()))


def _sshd(facts: ContainerFacts) -> Measured:
    # What the script asks ps for; the kernel knows it without a ps.
    found = any("sshd" in process.name for process in facts.processes)
    return _warns(found, not facts.listening, "nor has it sshd")


def _read_only(facts: ContainerFacts) -> Measured:
    root = [mount for mount in facts.mounts if mount.target == "/"]
    return _warns(not facts.host["ReadonlyRootfs"], root and all("ro" in mount.options for mount in root))


def _devices(facts: ContainerFacts) -> Measured:
    return _informs(facts.host["Devices"], not any(each.filesystem == "devtmpfs" for each in facts.mounts))


def _ulimits(facts: ContainerFacts) -> Measured:
    held = facts.limits.memory and facts.limits.pids
    return _informs(not facts.host["Ulimits"], held, "memory and processes are held by the control group")


def _propagation(facts: ContainerFacts) -> Measured:
    bad = any("shared" in each["Propagation"] for each in facts.inspect["Mounts"])
    return _warns(bad, not any(mount.shared for mount in facts.mounts))


def _seccomp(facts: ContainerFacts) -> Measured:
    bad = any(option in ("seccomp:unconfined", "seccomp=unconfined") for option in _options(facts))
    return _warns(bad, all(process.status["Seccomp"] == "2" for process in facts.processes))


def _privileged_exec(facts: ContainerFacts) -> Measured:
    asked = any(each["ProcessConfig"].get("privileged") for each in facts.executions)
    return Measured("NOTE", bool(facts.executions) and not asked and _powerless(facts), "with `privileged`")


def _root_exec(facts: ContainerFacts) -> Measured:
    asked = {each["ProcessConfig"].get("user", "").partition(":")[0] for each in facts.executions}
    others = set().union(*(process.users for process in facts.processes))
    return Measured("NOTE", asked == {"10001"} and others == {"10001", "10002"}, "programs are run as 10001")


def _cgroup(facts: ContainerFacts) -> Measured:
    parent = facts.host["CgroupParent"]
    held = parent.startswith("/caisson/") and facts.parent_limits.memory and facts.parent_limits.pids
    return _warns(parent, held, "the group `/caisson/…` is Caisson's own, with limits")


def _no_new_privileges(facts: ContainerFacts) -> Measured:
    bad = not any("no-new-privileges" in option for option in _options(facts))
    return _warns(bad, all(process.status["NoNewPrivs"] == "1" for process in facts.processes))


def _health(facts: ContainerFacts) -> Measured:
    ends = facts.host["AutoRemove"] and "caisson.deadline" in facts.inspect["Config"]["Labels"]
    return _warns(not facts.inspect["State"].get("Health"), ends, "or at its deadline")


def _latest(facts: ContainerFacts) -> Measured:
    return Measured("INFO", not facts.image["RepoDigests"], "the builder's image is built on the host")


def _bridge(facts: ContainerFacts) -> Measured:
    names = {network["Options"].get("com.docker.network.bridge.name") for network in facts.networks}
    return _informs("docker0" in names, facts.host["NetworkMode"] in ("default", "bridge"), "on the default bridge")


def _socket(facts: ContainerFacts) -> Measured:
    bad = any("docker.sock" in f"{each['Source']} {each['Destination']}" for each in facts.inspect["Mounts"])
    return _warns(bad, not facts.has_engines_socket, "what is mounted there is the guard's socket")


CHECKS: dict[str, Check] = {
    "5.1": _swarm,
    "5.2": _apparmor,
    "5.3": lambda facts: _warns(not _options(facts), True, "it looks for any security option"),
    "5.4": lambda facts: _warns(facts.host["CapAdd"], _powerless(facts)),
    "5.5": lambda facts: _warns(facts.host["Privileged"], _powerless(facts)),
    "5.6": _sensitive,
    "5.7": _sshd,
    "5.8": lambda facts: _warns([1 for _, port in _ports(facts) if port < _PRIVILEGED_PORTS], not facts.listening),
    "5.9": lambda facts: _warns(_ports(facts), not facts.listening),
    "5.10": _mode("NetworkMode", "net"),
    "5.11": lambda facts: _warns(not facts.host["Memory"], facts.limits.memory == facts.host["Memory"]),
    "5.12": lambda facts: _warns(not (facts.host["CpuShares"] or facts.host["NanoCpus"]), facts.limits.cpus),
    "5.13": _read_only,
    "5.14": lambda facts: _warns([1 for ip, _ in _ports(facts) if ip == "0.0.0.0"], not facts.listening),
    "5.15": lambda facts: _warns(
        facts.host["RestartPolicy"]["MaximumRetryCount"] > 5,
        facts.host["RestartPolicy"]["Name"] in ("", "no"),
        "it is never restarted",
    ),
    "5.16": _mode("PidMode", "pid"),
    "5.17": _mode("IpcMode", "ipc"),
    "5.18": _devices,
    "5.19": _ulimits,
    "5.20": _propagation,
    "5.21": _mode("UTSMode", "uts"),
    "5.22": _seccomp,
    "5.23": _privileged_exec,
    "5.24": _root_exec,
    "5.25": _cgroup,
    "5.26": _no_new_privileges,
    "5.27": _health,
    "5.28": _latest,
    "5.29": lambda facts: _warns(
        facts.host["PidsLimit"] in (None, 0, -1), facts.limits.pids == facts.host["PidsLimit"]
    ),
    "5.30": _bridge,
    "5.31": lambda facts: _warns(
        facts.host["UsernsMode"] == "host", _shares(facts, "user"), "without userns-remap there is no mapping"
    ),
    "5.32": _socket,
}


@pytest.fixture
def builder(builds: Builds, engine_host: EngineHost) -> ContainerFacts:
    """The builder of a guarded build, while the docker client runs in it."""
    looking: list[Future[ContainerFacts]] = []

    with ThreadPoolExecutor(1) as threads:

        def call(step: Task[..., Any], /, *args: Any, **kwargs: Any) -> Any:
            if step.name == "build":
                looking.append(threads.submit(look, engine_host, args[1].id, executions=True))
            return as_function(step, *args, **kwargs)

        request = {"repository_url": builds.repository(DOCKERFILE).url, "image": "caisson-test/app", "no_cache": True}
        run_build(parse_request(request), builds.settings, call=call)
    return looking[0].result()


def test_the_table_says_what_is_measured_on_a_running_builder(builder: ContainerFacts) -> None:
    table = {number: row for number, row in bench_table().items() if number.startswith("5.")}
    assert table.keys() == CHECKS.keys()
    found = {number: check(builder) for number, check in CHECKS.items()}
    assert {number: each.result for number, each in found.items() if each.result not in table[number].result} == {}
    assert [number for number, each in found.items() if not each.proven] == []
    # Where it is no PASS, what was proven is the document's reason, and one is there.
    assert [number for number, each in found.items() if each.because not in table[number].reason] == []
    assert [number for number, each in found.items() if each.result != "PASS" and not each.because] == []


@pytest.fixture
def lax(engine_host: EngineHost) -> Iterator[tuple[ContainerFacts, ...]]:
    """Two containers that are what no builder may be; one in the host's network has no ports."""
    client = docker.APIClient(engine_host.docker_host, version="auto")
    command = ["sh", "-c", "cp /usr/bin/sleep /tmp/sshd && exec /tmp/sshd 60"]
    shared = {
        **dict.fromkeys(("NetworkMode", "PidMode", "IpcMode", "UTSMode", "UsernsMode"), "host"),
        "SecurityOpt": ["seccomp=unconfined"],
        "Binds": ["/etc:/mnt", f"{engine_host.socket_in_engine or engine_host.socket}:/run/docker.sock"],
        "RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 9},
    }
    plain = {
        "PortBindings": {"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "1023"}]},
        "Devices": [{"PathOnHost": "/dev/null", "PathInContainer": "/dev/mine", "CgroupPermissions": "r"}],
    }
    made: list[str] = []
    try:
        for host in (shared, plain):
            body = {"Image": "debian:trixie-slim", "Cmd": command, "ExposedPorts": {"80/tcp": {}}, "HostConfig": host}
            made.append(client.create_container_from_config(body, f"caisson-bench-{uuid.uuid4().hex[:12]}")["Id"])
            client.start(made[-1])
        yield tuple(look(engine_host, container) for container in made)
    finally:
        for container in made:
            client.remove_container(container, force=True)
        client.close()


def test_each_check_tells_a_builder_from_a_container_that_is_lax(lax: tuple[ContainerFacts, ...]) -> None:
    # What the tests' engines may not do, or are not: privileged containers, a swarm, AppArmor, shared mounts.
    first = replace(
        lax[0],
        info={"Swarm": {"LocalNodeState": "active"}},
        image={"RepoDigests": ["debian@sha256:0"]},
        inspect={
            **lax[0].inspect,
            "HostConfig": {**lax[0].host, "Privileged": True, "CapAdd": ["SYS_ADMIN"]},
            "AppArmorProfile": "unconfined" if _kernel_has_apparmor() else "docker-default",
            "Mounts": [*lax[0].inspect["Mounts"], {"Propagation": "shared", **_NO_MOUNT}],
        },
    )
    rows = bench_table()
    for number, check in CHECKS.items():
        found = [check(facts) for facts in (first, lax[1])]
        assert any(not each.proven or each.result not in rows[number].result for each in found), number


_NO_MOUNT = {"Source": "", "Destination": "", "RW": False}
