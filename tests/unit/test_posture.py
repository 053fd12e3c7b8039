"""The security posture, item by item: a good builder passes, and each fault fails its own item and no other."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from caisson.plan import LABEL_DEADLINE
from caisson.posture import CHECKS, ExpectedPosture, PostureItem, check_posture

SOCKET = "/var/run/docker.sock"
DEADLINE = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC).isoformat()
LABELS = {"caisson.build": "b1", LABEL_DEADLINE: DEADLINE}
EXPECTED = ExpectedPosture(
    keeper_uid=10002,
    step_uid=10001,
    socket=SOCKET,
    socket_gid=999,
    memory=1 << 30,
    cpus=1.5,
    pids=256,
    labels=LABELS,
    environment=frozenset({"PATH", "HOME", "DOCKER_CONFIG"}),
    security_options=("name=seccomp,profile=builtin", "name=apparmor", "name=selinux", "name=userns"),
    guarded=True,
)
GOOD: dict[str, Any] = {
    "Path": "/usr/bin/env",
    "Args": ["--ignore-signal=CHLD", "/usr/bin/sleep", "1860"],
    "AppArmorProfile": "docker-default",
    "ProcessLabel": "system_u:system_r:container_t:s0:c1,c2",
    "Mounts": [
        {
            "Type": "bind",
            "Source": SOCKET,
            "Destination": SOCKET,
            "Mode": "ro",
            "RW": False,
            "Propagation": "rprivate",
        }
    ],
    "Config": {"User": "10002:10002", "Env": ["HOME=/tmp", "PATH=/usr/bin"], "Labels": {**LABELS, "other": "x"}},
    "HostConfig": {
        "Binds": [f"{SOCKET}:{SOCKET}:ro"],
        "Tmpfs": {
            "/tmp": "rw,noexec,nosuid,nodev,size=67108864,mode=1777",
            "/app": "rw,exec,nosuid,nodev,size=1g,mode=0755,uid=10001,gid=10001",
        },
        "ReadonlyRootfs": True,
        "AutoRemove": True,
        "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0},
        "NetworkMode": "builders",
        "PidMode": "",
        "IpcMode": "private",
        "UTSMode": "",
        "UsernsMode": "",
        "CgroupnsMode": "private",
        "CgroupParent": "",
        "GroupAdd": ["999"],
        "CapAdd": None,
        "CapDrop": ["ALL"],
        "SecurityOpt": ["no-new-privileges:true"],
        "Privileged": False,
        "Memory": 1 << 30,
        "MemorySwap": 1 << 30,
        "OomKillDisable": False,
        "NanoCpus": 1_500_000_000,
        "CpuQuota": 0,
        "PidsLimit": 256,
        "PortBindings": {},
        "PublishAllPorts": False,
        "Devices": [],
        "DeviceCgroupRules": None,
        "DeviceRequests": None,
        "LogConfig": {"Type": "json-file", "Config": {"max-size": "1m"}},
        "MaskedPaths": ["/proc/kcore", "/proc/keys", "/sys/firmware"],
        "ReadonlyPaths": ["/proc/bus", "/proc/sys"],
    },
    "NetworkSettings": {"Ports": {}},
}

Fault = Callable[[dict[str, Any]], None]


def host(key: str, value: Any) -> Fault:
    return lambda inspect: inspect["HostConfig"].update({key: value})


def config(key: str, value: Any) -> Fault:
    return lambda inspect: inspect["Config"].update({key: value})


def top(key: str, value: Any) -> Fault:
    return lambda inspect: inspect.update({key: value})


def mount(**changes: Any) -> Fault:
    return lambda inspect: inspect["Mounts"][0].update(changes)


def another_mount(**fields: Any) -> Fault:
    read_only = {"RW": False, "Mode": "ro", "Propagation": "rprivate"}
    return lambda inspect: inspect["Mounts"].append({**read_only, **fields})


def without(section: str, key: str) -> Fault:
    return lambda inspect: inspect[section].pop(key)


def tmpfs(**targets: str) -> Fault:
    return host("Tmpfs", {f"/{name}": options for name, options in targets.items()})


def labels(**changes: str) -> Fault:
    return config("Labels", {**LABELS, **{name.replace("_", "."): value for name, value in changes.items()}})


def fails(fault: Fault | None = None, expected: ExpectedPosture = EXPECTED) -> dict[str, str]:
    """The items that fail after one fault, with their reasons."""
    inspect = copy.deepcopy(GOOD)
    if fault is not None:
        fault(inspect)
    return {item.name: item.reason for item in check_posture(inspect, expected) if item.status == "fail"}


def expecting(**changes: Any) -> ExpectedPosture:
    return ExpectedPosture(**{**EXPECTED.__dict__, **changes})


def test_a_good_builder_passes_every_item() -> None:
    items = check_posture(GOOD, EXPECTED)
    assert [(item.name, item.status) for item in items] == [(check.name, "pass") for check in CHECKS]
    assert all(item.reason and item.title and item.source for item in items)


GOOD_TMP = GOOD["HostConfig"]["Tmpfs"]["/tmp"]
FAULTS: list[tuple[str, Fault]] = [
    ("only-the-socket", another_mount(Type="bind", Source="/etc", Destination="/x")),
    ("only-the-socket", another_mount(Type="volume", Name="cache", Destination="/x")),
    ("only-the-socket", mount(Source="/run/other.sock")),
    ("only-the-socket", mount(Destination="/run/docker.sock")),
    ("mount-propagation", mount(Propagation="rshared")),
    ("mount-propagation", mount(Mode="ro,Z")),
    ("mount-read-only", mount(RW=True)),
    ("mount-read-only", lambda inspect: inspect["Mounts"][0].pop("RW")),
    ("devices", host("Devices", [{"PathOnHost": "/dev/fuse"}])),
    ("devices", host("DeviceCgroupRules", ["a *:* rwm"])),
    ("devices", host("DeviceRequests", [{"Driver": "nvidia"}])),
    ("ports", host("PortBindings", {"80/tcp": [{"HostPort": "80"}]})),
    ("ports", host("PublishAllPorts", True)),
    ("ports", top("NetworkSettings", {"Ports": {"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "80"}]}})),
    ("ports", without("HostConfig", "PortBindings")),
    ("network", host("NetworkMode", "default")),
    ("network", host("NetworkMode", "bridge")),
    ("user", config("User", "")),
    ("user", config("User", "0:0")),
    ("user", config("User", "10001:10001")),
    ("user", config("User", "10002")),
    ("user", config("User", "10002:0")),
    ("user", without("Config", "User")),
    ("groups", host("GroupAdd", ["999", "0"])),
    ("groups", host("GroupAdd", None)),
    ("capabilities", host("CapAdd", ["SYS_ADMIN"])),
    ("capabilities", host("CapAdd", "SYS_ADMIN")),
    ("capabilities", host("CapDrop", ["NET_RAW"])),
    ("capabilities", host("CapDrop", None)),
    ("no-new-privileges", host("SecurityOpt", [])),
    ("no-new-privileges", host("SecurityOpt", ["no-new-privileges:false"])),
    ("no-new-privileges", host("SecurityOpt", ["no-new-privileges=false"])),
    ("seccomp", host("SecurityOpt", ["no-new-privileges", "seccomp=unconfined"])),
    ("seccomp", host("SecurityOpt", ["no-new-privileges", "seccomp:unconfined"])),
    ("seccomp", host("SecurityOpt", ["no-new-privileges", 'seccomp={"defaultAction":"SCMP_ACT_ALLOW"}'])),
    ("seccomp", host("SecurityOpt", ["no-new-privileges", "seccomp={}"])),
    ("apparmor", top("AppArmorProfile", "")),
    ("apparmor", top("AppArmorProfile", "unconfined")),
    ("selinux", top("ProcessLabel", "")),
    ("selinux", host("SecurityOpt", ["no-new-privileges", "label=disable"])),
    ("kernel-files", host("MaskedPaths", [])),
    ("kernel-files", host("ReadonlyPaths", None)),
    ("pid-namespace", host("PidMode", "host")),
    ("pid-namespace", host("PidMode", "container:other")),
    ("ipc-namespace", host("IpcMode", "host")),
    ("ipc-namespace", host("IpcMode", "shareable")),
    ("uts-namespace", host("UTSMode", "host")),
    ("uts-namespace", without("HostConfig", "UTSMode")),
    ("user-namespace", host("UsernsMode", "host")),
    ("cgroup-namespace", host("CgroupnsMode", "host")),
    ("network-namespace", host("NetworkMode", "host")),
    ("network-namespace", host("NetworkMode", "container:other")),
    ("read-only-root", host("ReadonlyRootfs", False)),
    ("tmpfs", tmpfs(tmp="rw,noexec,nosuid,nodev")),
    ("tmpfs", tmpfs(tmp="rw,noexec,nosuid,nodev,size=0")),
    ("tmpfs", tmpfs(tmp="rw,noexec,nosuid,nodev,size=90%")),
    ("tmpfs", tmpfs(tmp="rw,noexec,nosuid,nodev,size=1m,size=9g")),
    ("tmpfs", tmpfs(tmp=GOOD_TMP.replace("nosuid,", ""))),
    ("tmpfs", tmpfs(tmp=GOOD_TMP.replace("nodev,", ""))),
    ("tmpfs", tmpfs(tmp=GOOD_TMP.replace("noexec,", ""))),
    ("tmpfs", tmpfs(tmp=GOOD_TMP + ",exec")),
    ("tmpfs", tmpfs(tmp=GOOD_TMP + ",suid")),
    ("tmpfs", tmpfs(tmp=GOOD_TMP, app="exec,size=1g,nosuid")),
    ("tmpfs", host("Tmpfs", None)),
    ("memory", lambda inspect: inspect["HostConfig"].update(Memory=2 << 30, MemorySwap=2 << 30)),
    ("memory", host("OomKillDisable", True)),
    ("swap", host("MemorySwap", -1)),
    ("swap", host("MemorySwap", 2 << 30)),
    ("swap", host("MemorySwap", 0)),
    ("cpus", host("NanoCpus", 0)),
    ("cpus", host("NanoCpus", 2_000_000_000)),
    ("pids", host("PidsLimit", None)),
    ("pids", host("PidsLimit", -1)),
    ("pids", host("PidsLimit", 512)),
    ("pids", host("PidsLimit", True)),
    ("cgroup", host("CgroupParent", "/other")),
    ("cgroup", host("CgroupParent", None)),
    ("log", host("LogConfig", {"Type": "json-file", "Config": {}})),
    ("log", host("LogConfig", {"Type": "json-file", "Config": {"max-size": "-1"}})),
    ("log", host("LogConfig", {"Type": "syslog", "Config": {"max-size": "1m"}})),
    ("restart", host("RestartPolicy", {"Name": "always"})),
    ("restart", host("RestartPolicy", None)),
    ("init", lambda inspect: inspect.update(Path="/usr/bin/sleep", Args=["1860"])),
    ("labels", labels(caisson_build="another")),
    ("labels", lambda inspect: inspect["Config"]["Labels"].pop("caisson.build")),
    ("deadline", host("AutoRemove", False)),
    ("deadline", top("Args", ["--ignore-signal=CHLD", "/usr/bin/sleep", "infinity"])),
    ("deadline", top("Args", ["--ignore-signal=CHLD", "cat"])),
    ("deadline", top("Args", ["--ignore-signal=CHLD", "cat", "/usr/bin/sleep", "1860"])),
    ("environment", config("Env", ["PATH=/usr/bin", "GITHUB_TOKEN=x"])),
    ("environment", config("Env", "PATH=/usr/bin")),
]


@pytest.mark.parametrize(("item", "fault"), FAULTS, ids=[f"{item}-{n}" for n, (item, _) in enumerate(FAULTS)])
def test_a_fault_fails_its_own_item_and_no_other(item: str, fault: Fault) -> None:
    assert set(fails(fault)) == {item}


def test_a_privileged_builder_fails_all_that_it_undoes() -> None:
    assert set(fails(host("Privileged", True))) == {"privileged", "seccomp", "apparmor"}
    assert set(fails(without("HostConfig", "Privileged"))) == {"privileged", "seccomp", "apparmor"}


def test_without_a_memory_limit_swap_is_not_held_either() -> None:
    assert set(fails(host("Memory", 0))) == {"memory", "swap"}


def test_a_deadline_that_can_not_be_read_fails() -> None:
    for value in ("", "soon", "2030-01-02T03:04:05"):
        assert "deadline" in fails(labels(**{LABEL_DEADLINE: value}))


def test_every_item_has_a_fault_that_fails_it() -> None:
    tried = {item for item, _ in FAULTS} | {"privileged", "guarded-socket"}
    assert tried == {check.name for check in CHECKS}
    assert len({check.name for check in CHECKS}) == len(CHECKS)


def test_a_raw_socket_fails_and_says_why() -> None:
    failed = fails(expected=expecting(guarded=False))
    assert set(failed) == {"guarded-socket"}
    assert failed["guarded-socket"].startswith("the raw socket is root on the host")


def status(name: str, expected: ExpectedPosture, fault: Fault | None = None) -> PostureItem:
    inspect = copy.deepcopy(GOOD)
    if fault is not None:
        fault(inspect)
    return next(item for item in check_posture(inspect, expected) if item.name == name)


def test_what_the_host_lacks_is_not_applicable_and_says_so() -> None:
    bare = expecting(security_options=("name=seccomp,profile=default",))
    for name, reason in (
        ("apparmor", "AppArmor is not enabled on this host"),
        ("selinux", "the engine runs without SELinux on this host"),
        ("user-namespace", "the engine runs without user namespaces (userns-remap)"),
    ):
        item = status(name, bare, top("ProcessLabel", ""))
        assert (item.status, item.reason) == ("not applicable", reason)


def test_an_engine_without_seccomp_or_with_an_open_default_fails() -> None:
    assert status("seccomp", expecting(security_options=())).reason == "the engine has no seccomp"
    unconfined = expecting(security_options=("name=seccomp,profile=unconfined",))
    assert status("seccomp", unconfined).status == "fail"
    own = host("SecurityOpt", ["no-new-privileges", f"seccomp={json.dumps({'defaultAction': 'SCMP_ACT_ERRNO'})}"])
    assert status("seccomp", unconfined, own).reason == "a profile of its own"
    assert status("seccomp", EXPECTED, host("SecurityOpt", ["seccomp=builtin"])).status == "pass"


def test_a_rootless_engine_maps_users() -> None:
    assert status("user-namespace", expecting(security_options=("name=rootless",))).status == "pass"


def test_a_socket_of_group_0_fails() -> None:
    assert "root's" in fails(host("GroupAdd", ["0"]), expecting(socket_gid=0))["groups"]


def test_other_ways_to_the_same_end_pass() -> None:
    assert not fails(host("SecurityOpt", ["no-new-privileges"]))
    assert status("init", EXPECTED, host("Init", True)).reason == "by the engine's init process"
    assert status("log", EXPECTED, host("LogConfig", {"Type": "local", "Config": {}})).status == "pass"

    def quota(inspect: dict[str, Any]) -> None:
        inspect["HostConfig"].update(NanoCpus=0, CpuQuota=150_000, CpuPeriod=100_000)

    assert not fails(quota)


def test_root_is_refused_though_it_was_planned() -> None:
    assert "user" in fails(config("User", "0:0"), expecting(keeper_uid=0))
    assert "user" in fails(expected=expecting(step_uid=0))


def test_steps_that_could_stop_the_deadline_fail() -> None:
    assert "user" in fails(expected=expecting(step_uid=10002))


def test_limits_that_were_planned_away_fail() -> None:
    assert {"memory", "swap"} <= set(fails(host("Memory", 0), expecting(memory=0)))
    assert "pids" in fails(host("PidsLimit", 0), expecting(pids=0))
    assert "cpus" in fails(host("NanoCpus", 0), expecting(cpus=0))
    assert "labels" in fails(expected=expecting(labels={}))


def test_no_value_of_the_environment_is_ever_shown() -> None:
    inspect = copy.deepcopy(GOOD)
    inspect["Config"]["Env"] = ["PATH=/canary", "GITHUB_TOKEN=canary"]
    items = check_posture(inspect, EXPECTED)
    assert "canary" not in repr(items)
    assert any("GITHUB_TOKEN" in item.reason for item in items)


@pytest.mark.parametrize("inspect", [{}, {"HostConfig": None, "Config": []}, {"HostConfig": {}, "Mounts": []}], ids=str)
def test_what_is_not_told_fails(inspect: dict[str, Any]) -> None:
    told = {item.name for item in check_posture(inspect, EXPECTED) if item.status != "fail"}
    assert told <= {"guarded-socket", "user-namespace"}
    assert "user-namespace" not in told


@pytest.mark.parametrize("wrong", [None, "", "x", 7, True, [], {}, [None], {"x": None}, [["x"]]], ids=repr)
def test_a_value_of_another_type_never_makes_a_traceback(wrong: Any) -> None:
    for key in GOOD:
        assert len(check_posture({**GOOD, key: wrong}, EXPECTED)) == len(CHECKS)
    for fault in (host, config):
        for key in (*GOOD["HostConfig"], *GOOD["Config"]):
            fails(fault(key, wrong))


@pytest.mark.parametrize("wrong", [7, [None], {"x": None}], ids=repr)
def test_a_value_of_another_type_never_passes(wrong: Any) -> None:
    # What came of Binds is in Mounts, and CpuQuota does not count where there are NanoCpus.
    for key in GOOD["HostConfig"].keys() - {"Binds", "CpuQuota"}:
        assert fails(host(key, wrong)), key
    for key in GOOD["Config"]:
        assert fails(config(key, wrong)), key
