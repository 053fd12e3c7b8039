"""Every rule of the audit: what passes, what fails, what does not apply, and that what is not known never passes."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from caisson.audit.care import CARE_RULES
from caisson.audit.containers import CONTAINER_RULES
from caisson.audit.daemon import DAEMON_RULES
from caisson.audit.report import audit
from caisson.audit.rules import Status
from caisson.disk import DiskUsage
from caisson.disk_state import DiskState
from caisson.engine import EngineDescription
from caisson.file_facts import FileFacts
from tests import audited
from tests.audited import CONFIG, ENGINE, GUARDED, HARDENED, NOW, builder, care, changed, container, daemon

CONTAINER = {rule.name: rule for rule in CONTAINER_RULES}
DAEMON = {rule.name: rule for rule in DAEMON_RULES}
CARE = {rule.name: rule for rule in CARE_RULES}
NO_FILE = FileFacts("x", error="it does not exist")
DENIED = FileFacts("x", error="permission denied")


def bind(source: str, target: str = "/mnt", **more: Any) -> dict[str, Any]:
    mount = {"Type": "bind", "Source": source, "Destination": target, "Mode": "", "RW": True, "Propagation": "rprivate"}
    return {"Mounts": [{**mount, **more}]}


def statuses(raw: dict[str, Any]) -> dict[str, Status]:
    found = audit(audited.host(raw), None).findings
    return {finding.rule: finding.status for finding in found if finding.area == "containers"}


def test_what_is_hardened_passes_everything() -> None:
    told = statuses(HARDENED)
    assert told.keys() == CONTAINER.keys()
    assert {name for name, status in told.items() if status != "pass"} == {"builder-mounts", "selinux"}
    assert {told["builder-mounts"], told["selinux"]} == {"not applicable"}


def test_a_builder_passes_everything() -> None:
    told = statuses(builder())
    assert {name: status for name, status in told.items() if status != "pass"} == {
        "other-bind": "not applicable",
        "selinux": "not applicable",
    }


FAILING: list[tuple[str, dict[str, Any]]] = [
    ("root-mount", bind("/")),
    ("root-mount", bind("/etc/passwd")),
    ("root-mount", bind("/data/link")),
    ("root-mount", bind("/HOME")),
    ("root-mount", {"Mounts": [{"Type": "volume", "Name": "share", "Source": "/v", "Destination": "/mnt"}]}),
    ("engine-socket", bind("/var/run/docker.sock")),
    ("engine-socket", bind("/data/innocent")),
    ("engine-socket", bind("/data/podman.sock")),
    ("engine-socket", bind("/data/containerd.sock")),
    ("host-files", bind("/proc")),
    ("host-files", bind("/sys/fs/cgroup")),
    ("host-files", bind("/dev/sda")),
    ("host-files", bind("/var/lib/docker/overlay2")),
    ("host-files", bind("/run")),
    ("other-bind", bind("/data/files")),
    ("mount-propagation", bind("/data/files", Propagation="rshared")),
    ("privileged", {"HostConfig__Privileged": True}),
    ("added-capabilities", {"HostConfig__CapAdd": ["SYS_ADMIN"]}),
    ("dropped-capabilities", {"HostConfig__CapDrop": ["NET_RAW"]}),
    ("no-new-privileges", {"HostConfig__SecurityOpt": None}),
    ("seccomp", {"HostConfig__SecurityOpt": ["seccomp=unconfined"]}),
    ("apparmor", {"AppArmorProfile": "unconfined"}),
    ("kernel-files", {"HostConfig__MaskedPaths": []}),
    ("user", {"Config__User": ""}),
    ("user", {"Config__User": "0:1000"}),
    ("user", {"Config__User": "root"}),
    ("user", {"Config__User": "00"}),
    ("read-only-root", {"HostConfig__ReadonlyRootfs": False}),
    ("pid-namespace", {"HostConfig__PidMode": "host"}),
    ("network-namespace", {"HostConfig__NetworkMode": "host"}),
    ("ipc-namespace", {"HostConfig__IpcMode": "host"}),
    ("uts-namespace", {"HostConfig__UTSMode": "host"}),
    ("user-namespace", {"HostConfig__UsernsMode": "host"}),
    ("cgroup-namespace", {"HostConfig__CgroupnsMode": "host"}),
    ("devices", {"HostConfig__Devices": [{"PathOnHost": "/dev/kvm", "PathInContainer": "/dev/kvm"}]}),
    ("published-ports", {"HostConfig__PortBindings": {"80/tcp": [{"HostIp": "", "HostPort": "80"}]}}),
    ("published-ports", {"NetworkSettings__Ports": {"80/tcp": [{"HostIp": "::", "HostPort": "80"}]}}),
    ("published-ports", {"HostConfig__PublishAllPorts": True}),
    ("memory", {"HostConfig__Memory": 0}),
    ("cpus", {"HostConfig__NanoCpus": 0}),
    ("pids", {"HostConfig__PidsLimit": None}),
    ("log", {"HostConfig__LogConfig": {"Type": "json-file", "Config": {}}}),
    ("restart-policy", {"HostConfig__RestartPolicy": {"Name": "always", "MaximumRetryCount": 0}}),
    ("restart-loop", {"RestartCount": 6}),
    ("restart-loop", {"State__Restarting": True}),
    ("environment", {"Config__Env": ["DB_PASSWORD=hunter2"]}),
    ("environment", {"Config__Env": ["githubToken=1", "GITHUB_TOKEN=x"]}),
]


@pytest.mark.parametrize(("rule", "changes"), FAILING, ids=[f"{name}-{n}" for n, (name, _) in enumerate(FAILING)])
def test_what_breaks_a_rule_of_containers_fails_it(rule: str, changes: dict[str, Any]) -> None:
    assert statuses(changed(HARDENED, **changes))[rule] == "fail"


def test_every_rule_of_containers_is_broken_above() -> None:
    assert {name for name, _ in FAILING} == CONTAINER.keys() - {"selinux", "builder-mounts"}


def test_selinux_is_judged_where_the_engine_has_it() -> None:
    engine = replace(ENGINE, info={**ENGINE.info, "SecurityOptions": ["name=selinux"]})
    assert CONTAINER["selinux"].check(container(HARDENED, engine=engine)).status == "fail"
    labelled = changed(HARDENED, ProcessLabel="system_u:system_r:container_t:s0")
    assert CONTAINER["selinux"].check(container(labelled, engine=engine)).status == "pass"


@pytest.mark.parametrize(
    "changes",
    [
        bind("/var/run/docker.sock", "/var/run/docker.sock", Mode="ro", RW=False),
        bind(GUARDED, "/var/run/docker.sock", RW=True),
        bind(GUARDED, "/elsewhere", RW=False),
        bind(f"{GUARDED}/../../docker.sock", "/var/run/docker.sock", RW=False),
        {"Mounts": []},
        {"Mounts": [*builder()["Mounts"], *bind("/data/more")["Mounts"]]},
        {"Mounts": [*builder()["Mounts"], {"Type": "volume", "Name": "v", "Destination": "/v"}]},
        {"HostConfig__Devices": [{"PathOnHost": "/dev/kvm", "PathInContainer": "/dev/kvm"}]},
    ],
)
def test_the_label_of_a_builder_gives_nothing_but_a_stricter_rule(changes: dict[str, Any]) -> None:
    told = statuses(builder(**changes))
    assert told["builder-mounts"] == "fail"


def test_a_builder_with_the_raw_socket_fails_as_anyone_would() -> None:
    told = statuses(builder(**bind("/var/run/docker.sock", "/var/run/docker.sock", RW=False)))
    assert (told["engine-socket"], told["builder-mounts"]) == ("fail", "fail")


@pytest.mark.parametrize("rule", CONTAINER_RULES, ids=lambda rule: rule.name)
def test_what_a_rule_of_containers_needs_and_does_not_get_is_unknown(rule: Any) -> None:
    assert rule.needs
    for need in rule.needs:
        raw = changed(builder(), **{need.replace(".", "__"): ...})
        (finding,) = [f for f in audit(audited.host(raw), None).findings if f.rule == rule.name]
        assert (finding.status, need in finding.found) == ("unknown", True), need


def test_values_of_the_environment_are_never_shown() -> None:
    raw = changed(HARDENED, Config__Env=["API_KEY=hunter2-value", "EMPTY_SECRET=", "TOKEN_FILE=/run/x"])
    found = CONTAINER["environment"].check(container(raw)).what
    assert "API_KEY" in found
    assert not any(word in found for word in ("hunter2", "EMPTY", "TOKEN_FILE"))


def test_volumes_that_the_engine_does_not_tell_of_are_unknown() -> None:
    engine = replace(ENGINE, volumes=None)
    assert CONTAINER["root-mount"].check(container(HARDENED, engine=engine)).status == "unknown"


def test_no_new_privileges_may_be_the_engines_default() -> None:
    engine = replace(ENGINE, info={**ENGINE.info, "SecurityOptions": ["name=no-new-privileges"]})
    raw = changed(HARDENED, HostConfig__SecurityOpt=None)
    assert CONTAINER["no-new-privileges"].check(container(raw, engine=engine)).status == "pass"


@pytest.mark.parametrize("rule", DAEMON_RULES, ids=lambda rule: rule.name)
def test_a_daemon_set_up_well_passes_every_rule_and_a_silent_one_none(rule: Any) -> None:
    assert rule.check(daemon()).status == "pass"
    silent = replace(daemon(config=None), engine=EngineDescription({}, {}), socket=DENIED)
    silent = replace(silent, config=replace(silent.config, file=DENIED))
    assert rule.check(silent).status == "unknown"
    assert rule.check(replace(silent, engine=None)).status == "unknown"


@pytest.mark.parametrize(
    ("rule", "facts"),
    [
        ("api-tls", daemon(Warnings=["WARNING: API is accessible on http://0.0.0.0:2375 without encryption."])),
        ("socket-mode", replace(daemon(), socket=FileFacts("s", exists=True, mode=0o666))),
        (
            "config-mode",
            replace(daemon(), config=replace(daemon().config, file=FileFacts("d", exists=True, mode=0o666))),
        ),
        ("daemon-seccomp", daemon(SecurityOptions=["name=seccomp,profile=unconfined"])),
        ("daemon-seccomp", daemon(SecurityOptions=["name=apparmor"])),
        ("user-namespaces", daemon(SecurityOptions=["name=apparmor"])),
        ("icc", daemon(engine=replace(ENGINE, bridge={"Options": {"com.docker.network.bridge.enable_icc": "true"}}))),
        ("daemon-no-new-privileges", daemon(config={})),
        ("insecure-registries", daemon(RegistryConfig={"InsecureRegistryCIDRs": ["10.0.0.0/8"]})),
        ("insecure-registries", daemon(RegistryConfig={"IndexConfigs": {"r:5000": {"Secure": False}}})),
        ("engine-version", daemon(engine=replace(ENGINE, version={"Version": "20.10.24"}))),
        ("log-limits", daemon(LoggingDriver="json-file")),
        ("live-restore", daemon(LiveRestoreEnabled=False)),
        ("default-ulimits", daemon(config={})),
        ("iptables", daemon(config={"iptables": False})),
        ("userland-proxy", daemon(config={})),
        ("storage-driver", daemon(Driver="aufs")),
        ("experimental", daemon(ExperimentalBuild=True)),
        ("swarm", daemon(Swarm={"LocalNodeState": "active"})),
    ],
)
def test_what_breaks_a_rule_of_the_daemon_fails_it(rule: str, facts: Any) -> None:
    assert DAEMON[rule].check(facts).status == "fail"


def test_without_a_daemon_json_its_mode_does_not_apply_and_its_log_options_are_unknown() -> None:
    facts = daemon(config=None, LoggingDriver="json-file")
    facts = replace(facts, config=replace(facts.config, file=NO_FILE))
    assert DAEMON["config-mode"].check(facts).status == "not applicable"
    assert DAEMON["log-limits"].check(facts).status == "unknown"
    limited = daemon(config={**CONFIG, "log-opts": {"max-size": "10m"}}, LoggingDriver="json-file")
    assert DAEMON["log-limits"].check(limited).status == "pass"


@pytest.mark.parametrize("rule", CARE_RULES, ids=lambda rule: rule.name)
def test_a_host_that_is_looked_after_passes_every_rule(rule: Any) -> None:
    assert rule.check(care()).status == "pass"


BUSY = DiskUsage("/d", 100 << 30, 10 << 30, 0, 0)
OPEN = FileFacts("d", exists=True, kind="directory", mode=0o777, uid=1)
READ = FileFacts("d", exists=True, kind="directory", mode=0o755, uid=1)


@pytest.mark.parametrize(
    ("rule", "facts", "status"),
    [
        ("monitor-scheduled", care(monitor_seconds=0), "fail"),
        ("monitor-scheduled", care(schedules={}), "fail"),
        ("monitor-scheduled", care(schedules=None), "unknown"),
        ("monitor-alive", care(state=DiskState(looked=NOW - timedelta(hours=1))), "fail"),
        ("monitor-alive", care(state=DiskState(looked=NOW + timedelta(hours=1))), "fail"),
        ("monitor-alive", care(state=DiskState()), "unknown"),
        ("monitor-alive", care(monitor_seconds=0), "not applicable"),
        ("prune-scheduled", care(prune_seconds=0), "fail"),
        ("prune-scheduled", care(schedules=None), "unknown"),
        ("prune-alive", care(state=DiskState(prune_succeeded=NOW - timedelta(days=1))), "fail"),
        ("prune-alive", care(state=DiskState(prunes_expected=NOW - timedelta(days=1))), "fail"),
        ("prune-alive", care(state=DiskState(prune_succeeded=NOW, overdue_told=NOW)), "fail"),
        ("prune-alive", care(state=DiskState(prunes_expected=NOW)), "unknown"),
        ("prune-alive", care(prune_seconds=0), "not applicable"),
        ("prune-on-pressure", care(prune_on_pressure=False), "fail"),
        ("audit-scheduled", care(audit_seconds=0), "fail"),
        ("audit-scheduled", care(schedules=None), "unknown"),
        ("free-space", care(disk=BUSY), "fail"),
        ("free-space", care(disk=None), "unknown"),
        ("guard-directory", care(guard_dir=OPEN), "fail"),
        ("guard-directory", care(guard_dir=replace(READ, uid=99)), "fail"),
        ("guard-directory", care(guard_dir=NO_FILE), "not applicable"),
        ("guard-directory", care(guard_dir=DENIED), "unknown"),
        ("state-directory", care(state_dir=OPEN), "fail"),
        ("state-directory", care(state_dir=DENIED), "unknown"),
        ("state-directory-read", care(state_dir=READ), "fail"),
        ("state-directory-read", care(state_dir=DENIED), "unknown"),
    ],
)
def test_what_breaks_a_rule_of_care_is_told(rule: str, facts: Any, status: Status) -> None:
    assert CARE[rule].check(facts).status == status


def test_thresholds_out_of_order_fail() -> None:
    facts = care()
    broken = facts.settings.model_copy(update={"disk_low": "99%"})
    assert CARE["thresholds"].check(replace(facts, settings=broken)).status == "fail"
    assert CARE["free-space"].check(replace(facts, settings=broken)).status == "unknown"
