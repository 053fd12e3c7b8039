"""The mount policy without Docker: every door of a container's body, every rule, every sentence."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from caisson.errors import MountRefused
from caisson.mounts import (
    RULES,
    AllowedBind,
    DeniedRoot,
    Mount,
    MountPolicy,
    Resolved,
    Verdict,
    builder_policy,
    mounts_of_body,
    mounts_of_inspect,
    require_allowed,
    resolve_for_engine,
    resolve_on_host,
)
from caisson.plan import SOCKET_IN_BUILDER, WORKSPACE

SOCKET = "/var/run/docker.sock"
LINKS = {"/var/run": "/run", "/data/users": "/home", "/lib": "/usr/lib", "/proc/self/root": "/", "/srv": "/disk/srv"}
KINDS = {"/run/docker.sock": "socket", "/run/podman/podman.sock": "socket", "/data/file": "file"}


def resolve(path: str) -> Resolved:
    """A host with a few symlinks, where everything that is not named is a directory."""
    for link, leads_to in LINKS.items():
        if path == link or path.startswith(f"{link}/"):
            path = f"{leads_to.rstrip('/')}{path.removeprefix(link)}" or "/"
            break
    return Resolved(path, KINDS.get(path, "directory"))  # type: ignore[arg-type]


def body(**host_config: Any) -> dict[str, Any]:
    return {"Image": "builder", "HostConfig": host_config}


BUILDER_BODY = body(
    Binds=[f"{SOCKET}:{SOCKET}:ro"],
    Tmpfs={"/app": "rw,exec,nosuid,nodev,size=1048576", "/tmp": "rw,noexec,nosuid,nodev,size=1048576"},
    ReadonlyRootfs=True,
    IpcMode="private",
    NetworkMode="default",
    CapDrop=["ALL"],
)


def check(container_body: Mapping[str, Any], policy: MountPolicy | None = None) -> tuple[Verdict, ...]:
    return (policy or builder_policy(SOCKET)).check(mounts_of_body(container_body), resolve)


def rules(container_body: Mapping[str, Any]) -> list[str]:
    return [verdict.rule for verdict in check(container_body) if not verdict.allowed]


def test_the_builders_own_body_is_allowed() -> None:
    verdicts = check(BUILDER_BODY)
    assert [(verdict.decision, verdict.rule) for verdict in verdicts] == [("allow", "allowlist")] * 3
    require_allowed(verdicts)


def test_the_policys_defaults_are_those_of_the_plan() -> None:
    policy = builder_policy(SOCKET)
    assert [bind.target for bind in policy.allowed_binds] == [SOCKET_IN_BUILDER]
    assert WORKSPACE in policy.allowed_tmpfs


@pytest.mark.parametrize(
    "source",
    [
        *("/", "//", "/.", "///./"),
        *("/etc", "/etc/", "//etc", "/./etc", "/etc/.", "/etc/passwd", "/x/../etc", "/etc/../etc", "/../etc"),
        *("/home", "/home/user/.ssh", "/root", "/root/.docker", "/Users", "/Users/me", "/users/me", "/USERS/Me"),
        *("/ETC", "/etc\u200c", "/e\u200dtc", "/\uff45tc", "/eT\u00ad\u0063"),
        *("/data/users", "/data/users/me", "/proc/self/root", "/proc/self/root/", "/proc/self/root/etc/ssh"),
    ],
)
def test_never_the_roots_of_the_first_rule_nor_below_nor_aliased(source: str) -> None:
    for read_only in ("", ":ro"):
        assert rules(body(Binds=[f"{source}:/x{read_only}"])) == ["first-rule"]
    assert rules(body(Mounts=[{"Type": "bind", "Source": source, "Target": "/x", "ReadOnly": True}])) == ["first-rule"]


def test_never_above_a_root_where_the_root_is_a_symlink() -> None:
    def elsewhere(path: str) -> Resolved:
        return Resolved("/data/people" if path == "/home" else path, "directory")

    policy = MountPolicy(allowed_binds=(AllowedBind("/data", "/x", kind="directory"),))
    (verdict,) = policy.check(mounts_of_body(body(Binds=["/data:/x:ro"])), elsewhere)
    assert (verdict.rule, verdict.reason) == ("first-rule", "/data is above /home, the users' files")


@pytest.mark.parametrize(
    "source",
    [
        *("/boot", "/dev", "/dev/sda", "/lib/modules", "/proc/1/root", "/proc", "/sys/fs/cgroup", "/usr/bin", "/run"),
        *("/run/user/1000/docker.sock", "/var", "/var/lib", "/var/lib/docker/volumes", "/var/lib/kubelet", "/var/run"),
        *("/srv", "/srv/git", "/opt", "/mnt/disk", "/media", "/disk/srv", "/disk", "/host_mnt/c", "/private/etc"),
        *("/run/docker.sock", "/var/run/../run/docker.sock", "/var/run//docker.sock", "/var/run/docker.sock/"),
    ],
)
def test_never_the_hosts_directories_nor_below_nor_above(source: str) -> None:
    assert rules(body(Binds=[f"{source}:{SOCKET}:ro"])) == ["host-roots"]


@pytest.mark.parametrize(
    "source",
    ["/run/containerd/containerd.sock", "/run/crio/crio.sock", "/run/podman/podman.sock", "/tmp/buildkitd.sock"],
)
def test_never_another_runtimes_socket_though_it_is_on_the_allowlist(source: str) -> None:
    assert rules(body(Binds=[f"{source}:/x:ro"])) == ["runtime-sockets"]
    (verdict,) = builder_policy(source).check(mounts_of_body(body(Binds=[f"{source}:{SOCKET}:ro"])), resolve)
    assert verdict.rule == "runtime-sockets"


@pytest.mark.parametrize("source", ["/home/me/docker.sock", "/root/docker.sock", "/etc/docker.sock", "/"])
def test_the_allowlist_does_not_lift_the_first_rule(source: str) -> None:
    def all_sockets(path: str) -> Resolved:
        return Resolved(path, "socket")

    (verdict,) = builder_policy(source).check(mounts_of_body(body(Binds=[f"{source}:{SOCKET}:ro"])), all_sockets)
    assert verdict.rule == "first-rule"


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("", "its source is empty"),
        ("data", "is not an absolute path"),
        ("./data", "is not an absolute path"),
        ("~/data", "starts with '~'"),
        ("~root", "starts with '~'"),
        ("C:/data", "has a drive letter"),
        ("/c:/data", "has a drive letter"),
        ("C:\\data", "has a backslash"),
        ("/data\\..\\x", "has a backslash"),
        ("/data\x00", "has a NUL character"),
        ("/data\n", "has an invisible character"),
        ("/da\u200bta", "has an invisible character"),
        ("/data\ud800", "is not valid Unicode"),
        ("/data/../data", "climbs with '..'"),
        ("/data/..", "climbs with '..'"),
        ("/data//x", "is not spelt plainly"),
        ("/data/", "is not spelt plainly"),
        ("/data/./x", "is not spelt plainly"),
    ],
)
def test_a_path_that_is_not_spelt_plainly_is_refused_though_it_is_on_the_allowlist(source: str, problem: str) -> None:
    policy = MountPolicy(allowed_binds=(AllowedBind(source, "/x", kind="directory"),))
    mount = Mount("bind", source, "/x", read_only=True)
    (verdict,) = policy.check((mount,), resolve)
    # What climbs to / is the first rule's.
    assert verdict.rule == ("first-rule" if source == "/data/.." else "spelling")
    assert problem in verdict.reason or verdict.rule == "first-rule"


def test_a_resolver_is_never_asked_what_it_can_not_answer() -> None:
    asked: list[str] = []

    def record(path: str) -> Resolved:
        asked.append(path)
        return resolve(path)

    mounts = [Mount("bind", source, "/x") for source in ("", "etc", "/a\x00b", "/a\ud800", "~", "C:\\x")]
    builder_policy(SOCKET).check(mounts, record)
    assert all(path.startswith("/") and "\x00" not in path and "\ud800" not in path for path in asked)


HOST_CONFIG_DOORS: list[tuple[dict[str, Any], str]] = [
    ({"Binds": ["cache:/x"]}, "volume"),
    ({"Binds": ["/x"]}, "volume"),
    ({"Binds": ["C:\\data:/x"]}, "volume"),
    ({"Binds": ["C:\\data:/x:ro"]}, "unknown"),
    ({"Binds": ["/a:/b:ro:rw"]}, "unknown"),
    ({"Binds": ["/a::ro"]}, "unknown"),
    ({"Binds": [":/a"]}, "unknown"),
    ({"Binds": [""]}, "unknown"),
    ({"Binds": [["/etc", "/x"]]}, "unknown"),
    ({"Binds": "/etc:/x"}, "unknown"),
    ({"Mounts": [{"Type": "volume", "Source": "cache", "Target": "/x"}]}, "volume"),
    ({"Mounts": [{"Type": "image", "Source": "alpine", "Target": "/x"}]}, "image"),
    ({"Mounts": [{"Type": "npipe", "Source": r"\\.\pipe\docker_engine", "Target": "/x"}]}, "npipe"),
    ({"Mounts": [{"Type": "cluster", "Source": "group:x", "Target": "/x"}]}, "cluster"),
    ({"Mounts": [{"Type": "Bind", "Source": "/data", "Target": "/x"}]}, "unknown"),
    ({"Mounts": [{"Source": "/data", "Target": "/x"}]}, "unknown"),
    ({"Mounts": [{"Type": "tmpfs", "Target": "/app", "source": "/etc"}]}, "unknown"),
    ({"Mounts": [{"Type": "tmpfs", "type": "bind", "Source": "/etc", "Target": "/app"}]}, "unknown"),
    ({"Mounts": [{"Type": "tmpfs", "Target": "/app", "\u017fource": "/etc"}]}, "unknown"),
    ({"Mounts": ["/etc:/x"]}, "unknown"),
    ({"Mounts": {"Type": "bind"}}, "unknown"),
    ({"Tmpfs": ["/app"]}, "unknown"),
    ({"Tmpfs": {"/app": None}}, "unknown"),
    ({"VolumesFrom": ["other:ro"]}, "container"),
    ({"VolumesFrom": "other"}, "unknown"),
    ({"VolumeDriver": "sshfs"}, "volume"),
    ({"Devices": [{"PathOnHost": "/data/disk.img", "PathInContainer": "/dev/x"}]}, "device"),
    ({"Devices": [{"pathonhost": "/dev/sda"}]}, "unknown"),
    ({"DeviceCgroupRules": ["b *:* rwm"]}, "device"),
    ({"DeviceRequests": [{"Driver": "cdi", "DeviceIDs": ["vendor.com/device=all"]}]}, "device"),
    ({"Privileged": True}, "host"),
    ({"MaskedPaths": []}, "host"),
    ({"ReadonlyPaths": []}, "host"),
    ({"Annotations": {"run.oci.hooks.stdin": "x"}}, "host"),
    ({"Runtime": "nvidia"}, "unknown"),
    ({"StorageOpt": {"dm.basesize": "1g"}}, "unknown"),
    ({"PidMode": "host"}, "host"),
    ({"PidMode": "container:other"}, "container"),
    ({"IpcMode": "host"}, "host"),
    ({"IpcMode": "container:other"}, "container"),
    ({"IpcMode": "Host"}, "unknown"),
    ({"NetworkMode": "container:other"}, "container"),
    ({"NetworkMode": ["host"]}, "unknown"),
    ({"CgroupnsMode": "container:other"}, "unknown"),
    ({"Cgroup": "container:other"}, "container"),
    ({"LxcConf": {"lxc.mount.entry": "/etc"}}, "unknown"),
    ({"binds": []}, "unknown"),
    ({"BINDS": ["/etc:/x"]}, "unknown"),
    ({"Bind\u017f": ["/etc:/x"]}, "unknown"),
    ({"SomethingNew": None}, "unknown"),
]


@pytest.mark.parametrize(("host_config", "kind"), HOST_CONFIG_DOORS, ids=lambda value: str(value)[:70])
def test_every_door_of_the_host_config_is_seen_and_refused(host_config: dict[str, Any], kind: str) -> None:
    (verdict,) = check(body(**host_config))
    assert (verdict.mount.kind, verdict.rule) == (kind, "kind")
    assert verdict.mount.door.startswith("HostConfig.")
    with pytest.raises(MountRefused):
        require_allowed(check({**BUILDER_BODY, "HostConfig": {**BUILDER_BODY["HostConfig"], **host_config}}))


@pytest.mark.parametrize(
    "top",
    [
        {"Volumes": {"/x": {}}},
        {"Volumes": {"/etc:/x": {}}},
        {"Volumes": ["/x"]},
        {"Binds": ["/etc:/x"]},
        {"Mounts": []},
        {"hostconfig": {"Binds": ["/etc:/x"]}},
        {"Host\u017fonfig": {}},
        {"HOSTCONFIG": None},
        {"Privileged": True},
        {1: "x"},
    ],
    ids=str,
)
def test_every_door_of_the_top_level_is_seen_and_refused(top: dict[Any, Any]) -> None:
    (verdict,) = check({"Image": "builder", **top})
    assert verdict.rule == "kind"
    assert not [verdict for verdict in check(BUILDER_BODY) if not verdict.allowed]


@pytest.mark.parametrize("value", ["Binds", ["Binds"], 1])
def test_a_host_config_that_is_not_an_object_is_refused(value: Any) -> None:
    assert rules({"Image": "builder", "HostConfig": value}) == ["kind"]


def test_a_body_without_any_mount_has_none() -> None:
    assert mounts_of_body({"Image": "builder", "HostConfig": None, "Volumes": None}) == ()
    assert mounts_of_body(body(Binds=None, Mounts=[], Tmpfs={}, Devices=None, Privileged=False, PidMode="")) == ()


def test_a_volume_that_is_a_bind_of_a_denied_root_is_refused_by_that_root() -> None:
    driver = {"Name": "local", "Options": {"type": "none", "o": "bind", "device": "/proc/self/root/etc"}}
    volume = {"Type": "volume", "Source": "v", "Target": "/x", "VolumeOptions": {"DriverConfig": driver}}
    (verdict,) = check(body(Mounts=[volume]))
    assert verdict.rule == "first-rule"
    assert "leads to /etc" in verdict.reason


def test_a_volumes_options_are_never_shown() -> None:
    driver = {"Name": "local", "Options": {"type": "cifs", "o": "password=hunter2", "device": "//nas/share"}}
    volume = {"Type": "volume", "Source": "v", "Target": "/x", "VolumeOptions": {"DriverConfig": driver}}
    verdicts = check(body(Mounts=[volume]))
    with pytest.raises(MountRefused) as caught:
        require_allowed(verdicts)
    assert "hunter2" not in f"{caught.value} {caught.value.details} {verdicts!r}"


@pytest.mark.parametrize(
    ("bind", "rule"),
    [
        (f"{SOCKET}:{SOCKET}", "read-only"),
        (f"{SOCKET}:{SOCKET}:rw", "read-only"),
        (f"{SOCKET}:{SOCKET}:rw,ro", "read-only"),
        (f"{SOCKET}:{SOCKET}:RO", "read-only"),
        (f"{SOCKET}:{SOCKET}:ro,rshared", "options"),
        (f"{SOCKET}:{SOCKET}:ro,Z", "options"),
        (f"{SOCKET}:/app/docker.sock:ro", "host-roots"),
        (f"{SOCKET}:{SOCKET}/:ro", "host-roots"),
        (f"{SOCKET}:{SOCKET}:ro,rprivate", ""),
    ],
)
def test_the_socket_is_mounted_exactly_as_listed_or_not_at_all(bind: str, rule: str) -> None:
    assert rules(body(Binds=[bind])) == ([rule] if rule else [])


@pytest.mark.parametrize(
    "options",
    [{"Propagation": "rshared"}, {"CreateMountpoint": True}, {"ReadOnlyNonRecursive": True}, {"Something": 1}],
    ids=str,
)
def test_a_bind_with_options_is_refused(options: dict[str, Any]) -> None:
    mount = {"Type": "bind", "Source": SOCKET, "Target": SOCKET, "ReadOnly": True}
    assert rules(body(Mounts=[mount])) == []
    assert rules(body(Mounts=[{**mount, "BindOptions": options}])) == ["options"]
    assert rules(body(Mounts=[{**mount, "BindOptions": {"Propagation": "rprivate", "NonRecursive": False}}])) == []


@pytest.mark.parametrize("found", ["directory", "file", "device", "missing", "unreadable", "other"])
def test_what_is_in_the_sockets_place_must_be_a_socket(found: Any) -> None:
    for path in (SOCKET, "/tmp/docker.sock"):
        mounts = mounts_of_body(body(Binds=[f"{path}:{SOCKET}:ro"]))
        (verdict,) = builder_policy(path).check(mounts, lambda path: Resolved(path, found))
        assert (verdict.rule, verdict.reason) == ("content", f"what is at {path} is {found}, not a socket")


def test_a_socket_that_leads_into_a_home_is_refused() -> None:
    def into_home(path: str) -> Resolved:
        return Resolved("/home/me/evil.sock" if path == SOCKET else path, "socket")

    (verdict,) = builder_policy(SOCKET).check(mounts_of_body(body(Binds=[f"{SOCKET}:{SOCKET}:ro"])), into_home)
    assert verdict.rule == "first-rule"
    assert "/home/me/evil.sock" in verdict.reason


def test_a_tmpfs_is_allowed_at_its_listed_target_only() -> None:
    assert rules(body(Tmpfs={"/app": "size=1", "/tmp": "", "/app/": "", "/run": ""})) == ["allowlist", "allowlist"]
    assert rules(body(Mounts=[{"Type": "tmpfs", "Target": "/app", "TmpfsOptions": {"SizeBytes": 1}}])) == []
    assert rules(body(Mounts=[{"Type": "tmpfs", "Target": "/app", "Source": "/data"}])) == ["allowlist"]


def test_a_directory_is_allowed_where_it_is_listed_and_lies_in_none_of_the_hosts() -> None:
    policy = MountPolicy(
        allowed_binds=(
            AllowedBind("/data/cache", "/cache", read_only=False, kind="directory"),
            AllowedBind("/srv/git", "/git", kind="directory"),
        )
    )
    mounts = mounts_of_body(body(Binds=["/data/cache:/cache", "/data/cache:/other", "/srv/git:/git:ro"]))
    assert [verdict.rule for verdict in policy.check(mounts, resolve)] == ["allowlist", "allowlist", "host-roots"]
    assert [verdict.allowed for verdict in policy.check(mounts, resolve)] == [True, False, False]


def test_a_denied_root_must_be_absolute() -> None:
    with pytest.raises(ValueError, match="'data' is not an absolute path"):
        MountPolicy(denied_roots=(DeniedRoot("data", "data"),))


def test_a_root_of_ones_own_is_denied() -> None:
    policy = MountPolicy(denied_roots=(DeniedRoot("/data/docker", "the engine's data"),))
    verdicts = policy.check(mounts_of_body(body(Binds=["/data:/x", "/data/docker/a:/y", "/data/other:/z"])), resolve)
    assert [verdict.rule for verdict in verdicts] == ["host-roots", "host-roots", "allowlist"]


# What inspect shows


def inspected(mounts: list[Any], **host_config: Any) -> dict[str, Any]:
    engine_defaults = {"Runtime": "crun", "MaskedPaths": ["/proc/kcore"], "ConsoleSize": [0, 0], "CgroupnsMode": "host"}
    return {"Id": "abc", "Mounts": mounts, "HostConfig": {**engine_defaults, **host_config}}


SOCKET_MOUNT = {
    "Type": "bind",
    "Source": SOCKET,
    "Destination": SOCKET,
    "Mode": "ro",
    "RW": False,
    "Propagation": "rprivate",
}


def test_planned_and_effective_mounts_are_equal() -> None:
    host_config = {key: BUILDER_BODY["HostConfig"][key] for key in ("Binds", "Tmpfs")}
    effective = mounts_of_inspect(inspected([SOCKET_MOUNT], **host_config))
    assert set(effective) == set(mounts_of_body(BUILDER_BODY))
    require_allowed(builder_policy(SOCKET).check(effective, resolve))


@pytest.mark.parametrize(
    "mount",
    [
        {**SOCKET_MOUNT, "RW": True},
        {key: value for key, value in SOCKET_MOUNT.items() if key != "RW"},
        {**SOCKET_MOUNT, "Propagation": "rshared"},
        {**SOCKET_MOUNT, "Mode": "ro,z"},
        {**SOCKET_MOUNT, "Source": "/etc"},
        {**SOCKET_MOUNT, "Destination": "/x"},
        {"Type": "volume", "Name": "v", "Source": "/var/lib/docker/volumes/v/_data", "Destination": "/x", "RW": False},
        {"Type": "image", "Source": "alpine", "Destination": "/x", "RW": False},
        {"Type": "something new", "Source": SOCKET, "Destination": SOCKET, "RW": False},
        {"Type": ["bind"]},
        "bind",
    ],
    ids=str,
)
def test_an_effective_mount_that_is_not_as_listed_is_refused(mount: Any) -> None:
    verdicts = builder_policy(SOCKET).check(mounts_of_inspect(inspected([mount])), resolve)
    with pytest.raises(MountRefused):
        require_allowed(verdicts)


@pytest.mark.parametrize(
    "host_config",
    [
        {"Privileged": True},
        {"PidMode": "host"},
        {"Devices": [{"PathOnHost": "/dev/sda"}]},
        {"VolumesFrom": ["other"]},
        {"Binds": ["/etc:/x"]},
        {"Tmpfs": {"/run": ""}},
        {"SomethingNew": {"mounts": "all"}},
    ],
    ids=str,
)
def test_a_door_that_shows_in_inspect_is_refused(host_config: dict[str, Any]) -> None:
    verdicts = builder_policy(SOCKET).check(mounts_of_inspect(inspected([SOCKET_MOUNT], **host_config)), resolve)
    assert sum(not verdict.allowed for verdict in verdicts) == 1


def test_an_unknown_empty_setting_of_a_newer_engine_is_harmless_in_inspect() -> None:
    assert mounts_of_inspect(inspected([], SomethingNew=None, More=[], Other=0, Last=False)) == ()


@pytest.mark.parametrize("inspect", [{}, {"Mounts": []}, {"HostConfig": {}}, {"Mounts": None, "HostConfig": {}}])
def test_an_answer_that_does_not_tell_the_mounts_is_refused(inspect: dict[str, Any]) -> None:
    with pytest.raises(MountRefused):
        require_allowed(builder_policy(SOCKET).check(mounts_of_inspect(inspect), resolve))


# What a refusal says


def test_a_refusal_names_the_mount_the_rule_and_the_reason() -> None:
    with pytest.raises(MountRefused) as caught:
        require_allowed(check(body(Binds=["/x/../etc:/config"])))
    assert caught.value.message == (
        "The container's HostConfig.Binds[0] (bind /x/../etc → /config) is refused by the rule 'first-rule' (Never /, "
        "/Users, /home, /root or /etc, nor what is below or above them): /x/../etc is /etc, the system's configuration."
    )
    assert "CAISSON_DOCKER_HOST" in caught.value.hint


def test_a_refusal_of_a_setting_reads_as_a_sentence() -> None:
    with pytest.raises(MountRefused, match=r"^The container's HostConfig\.binds is refused .*: it is not a setting"):
        require_allowed(check(body(binds=[])))


def test_all_refusals_are_in_the_details() -> None:
    with pytest.raises(MountRefused, match="1 more refused") as caught:
        require_allowed(check(body(Binds=["/etc:/x", "v:/y", f"{SOCKET}:{SOCKET}:ro"])))
    assert [(refused["mount"], refused["rule"]) for refused in caught.value.details["refused"]] == [
        ("bind /etc → /x", "first-rule"),
        ("volume v → /y", "kind"),
    ]


def test_a_refusal_shows_no_control_character_and_is_not_endless() -> None:
    with pytest.raises(MountRefused) as caught:
        require_allowed(check(body(Binds=["/a\x1b[2Jb:/x", f"/{'a' * 10_000_000}:/y"])))
    assert "\x1b" not in f"{caught.value}{caught.value.details}"
    assert len(f"{caught.value}{caught.value.details}") < 5000


def test_no_rule_is_named_twice_and_the_first_rule_is_the_first() -> None:
    names = [rule.name for rule in RULES]
    assert len(set(names)) == len(names)
    assert names[0] == "first-rule"


# The impure side


def test_the_host_is_asked_through_every_symlink(tmp_path: Path) -> None:
    (tmp_path / "one").symlink_to("two")
    (tmp_path / "two").symlink_to("/etc")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s.sock"))
    (tmp_path / "to-socket").symlink_to("s.sock")
    real = os.path.realpath(tmp_path)
    assert resolve_on_host(f"{tmp_path}/one") == Resolved("/etc", "directory")
    assert resolve_on_host("/proc/self/root/etc").path == "/etc"
    assert resolve_on_host(f"{tmp_path}/to-socket") == Resolved(f"{real}/s.sock", "socket")
    assert resolve_on_host(f"{tmp_path}/file").kind == "file"
    assert resolve_on_host(f"{tmp_path}/fifo").kind == "other"
    assert resolve_on_host(f"{tmp_path}/loop").kind == "other"
    assert resolve_on_host(f"{tmp_path}/none").kind == "missing"
    assert resolve_on_host(f"{tmp_path}/file/below").kind == "missing"
    assert resolve_on_host("/dev/null").kind == "device"
    assert resolve_on_host(f"/{'a' * 5000}").kind == "unreadable"


def test_an_engine_that_sees_its_socket_elsewhere_is_believed_about_that_path_only(tmp_path: Path) -> None:
    here = str(tmp_path / "s.sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(here)
    there = "/run/elsewhere/docker.sock"
    resolve_there = resolve_for_engine(here, there)
    assert resolve_there(there) == Resolved(there, "socket")
    assert resolve_there("/run/elsewhere/other.sock").kind == "missing"
    assert resolve_for_engine(f"{here}.gone", there)(there).kind == "missing"
    assert resolve_for_engine(here, here)(here) == resolve_on_host(here)
