"""The audit on real engines: what breaks each rule is found, what is hardened passes, and so does a real builder."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from caisson.audit.containers import CONTAINER_RULES
from caisson.audit.host import gather_audit
from caisson.audit.report import audit
from caisson.audit.rules import Finding
from caisson.engine import ContainerID, Engine
from caisson.settings import Settings
from tests.conftest import EngineHost
from tests.engine.conftest import Builds, Run, Start, own_builders

BODY: Mapping[str, Any] = {"Image": "debian:trixie-slim", "Cmd": ["sleep", "60"], "User": "1000:1000"}
HARDENED_HOST: Mapping[str, Any] = {
    "CapDrop": ["ALL"],
    "SecurityOpt": ["no-new-privileges"],
    "ReadonlyRootfs": True,
    "CgroupnsMode": "private",
    "IpcMode": "private",
    "Memory": 64 << 20,
    "NanoCpus": 500_000_000,
    "PidsLimit": 50,
    "LogConfig": {"Type": "json-file", "Config": {"max-size": "1m"}},
    "PortBindings": {},
}

# What breaks each rule, as a body of ``POST /containers/create`` asks for it.
BREAKING: Mapping[str, Mapping[str, Any]] = {
    "root-mount": {"HostConfig": {"Binds": ["/etc:/mnt:ro"]}},
    "engine-socket": {"HostConfig": {"Binds": ["/var/run/docker.sock:/mnt.sock"]}},
    "host-files": {"HostConfig": {"Binds": ["/proc:/mnt:ro", "/sys:/mnt2:ro", "/dev:/mnt3"]}},
    "other-bind": {"HostConfig": {"Binds": ["/caisson-test-audit:/mnt"]}},
    "mount-propagation": {
        "HostConfig": {
            "Mounts": [{"Type": "bind", "Source": "/proc", "Target": "/mnt", "BindOptions": {"Propagation": "shared"}}]
        }
    },
    "builder-mounts": {"Labels": {"caisson.build": "0123456789ab"}},
    "privileged": {"HostConfig": {"Privileged": True}},
    "added-capabilities": {"HostConfig": {"CapAdd": ["NET_ADMIN"]}},
    "dropped-capabilities": {"HostConfig": {"CapDrop": []}},
    "no-new-privileges": {"HostConfig": {"SecurityOpt": []}},
    "seccomp": {"HostConfig": {"SecurityOpt": ["seccomp=unconfined"]}},
    "kernel-files": {"HostConfig": {"MaskedPaths": [], "ReadonlyPaths": []}},
    "user": {"User": "0"},
    "read-only-root": {"HostConfig": {"ReadonlyRootfs": False}},
    "pid-namespace": {"HostConfig": {"PidMode": "host"}},
    "network-namespace": {"HostConfig": {"NetworkMode": "host"}},
    "ipc-namespace": {"HostConfig": {"IpcMode": "host"}},
    "uts-namespace": {"HostConfig": {"UTSMode": "host"}},
    "cgroup-namespace": {"HostConfig": {"CgroupnsMode": "host"}},
    "devices": {
        "HostConfig": {
            "Devices": [{"PathOnHost": "/dev/null", "PathInContainer": "/dev/mine", "CgroupPermissions": "r"}]
        }
    },
    "published-ports": {"HostConfig": {"PortBindings": {"80/tcp": [{"HostPort": "18080"}]}}},
    "memory": {"HostConfig": {"Memory": 0}},
    "cpus": {"HostConfig": {"NanoCpus": 0}},
    "pids": {"HostConfig": {"PidsLimit": 0}},
    "log": {"HostConfig": {"LogConfig": {"Type": "json-file", "Config": {}}}},
    "restart-policy": {"HostConfig": {"RestartPolicy": {"Name": "always"}}},
    "restart-loop": {"Cmd": ["false"], "HostConfig": {"RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 5}}},
    "environment": {"Env": ["MY_API_TOKEN=not-so-secret"]},
}
# What the engines here have not: their hosts have no such thing to turn off.
ABSENT = {"apparmor", "selinux", "user-namespace"}


class Audited:
    """Containers of the test's own on one engine, and what an audit of that engine says of them."""

    def __init__(self, engine: Engine, settings: Settings) -> None:
        self.engine, self.settings = engine, settings
        self.name = f"caisson-test-audit-{uuid.uuid4().hex[:8]}"
        self._made: list[ContainerID] = []

    def make(self, name: str, changes: Mapping[str, Any]) -> ContainerID:
        config = {**BODY, **changes}
        config["HostConfig"] = {**HARDENED_HOST, **changes.get("HostConfig", {})}
        self._made.append(self.engine.create_container(f"{self.name}-{name}", config))
        return self._made[-1]

    def findings(self) -> dict[str, dict[str, Finding]]:
        """Findings by rule, by container."""
        told: dict[str, dict[str, Finding]] = {}
        facts = gather_audit(self.settings, datetime.now(UTC), None)
        assert facts.engine_problem == ""
        for finding in audit(facts, None).findings:
            told.setdefault(finding.subject.removeprefix(f"{self.name}-"), {})[finding.rule] = finding
        return told

    def remove(self) -> None:
        for container in self._made:
            self.engine.remove_container(container)


@pytest.fixture
def audited(engine: Engine, settings: Settings) -> Iterator[Audited]:
    made = Audited(engine, settings)
    try:
        yield made
    finally:
        made.remove()


def not_passed(findings: Mapping[str, Finding]) -> dict[str, str]:
    return {rule: finding.found for rule, finding in findings.items() if finding.status in ("fail", "unknown")}


def test_each_rule_is_broken_by_a_real_container_and_a_hardened_one_passes_all(
    audited: Audited, engine_host: EngineHost
) -> None:
    assert BREAKING.keys() | ABSENT == {rule.name for rule in CONTAINER_RULES}
    directory = engine_host.root / "caisson-test-audit"
    directory.mkdir(exist_ok=True)
    try:
        for rule, changes in BREAKING.items():
            made = audited.make(rule, changes)
            if rule == "restart-loop":
                audited.engine.start_container(made)
        hardened = audited.make("hardened", {})
        audited.engine.start_container(hardened)
        deadline = time.monotonic() + 15
        while (told := audited.findings())["restart-loop"]["restart-loop"].status != "fail":
            assert time.monotonic() < deadline
    finally:
        directory.rmdir()
    assert {rule: told[rule][rule].status for rule in BREAKING} == dict.fromkeys(BREAKING, "fail")
    assert not_passed(told["hardened"]) == {}
    # Each breaks its own rule and, but for what privileges and mounts of the host bring with them, no other.
    alone = {"memory", "cpus", "pids", "user", "log", "environment", "read-only-root", "devices", "published-ports"}
    assert {rule: set(not_passed(told[rule])) for rule in alone} == {rule: {rule} for rule in alone}
    shown = json.dumps([finding.model_dump() for finding in told["environment"].values()])
    assert "not-so-secret" not in shown


def test_a_volume_that_is_a_bind_of_etc_is_one(audited: Audited, engine_host: EngineHost) -> None:
    options = {"type": "none", "o": "bind,password=hunter2", "device": "/etc"}
    mount = {
        "Type": "volume",
        "Source": audited.name,
        "Target": "/mnt",
        "VolumeOptions": {"DriverConfig": {"Name": "local", "Options": options}},
    }
    audited.make("alias", {"HostConfig": {"Mounts": [mount]}})
    try:
        found = audited.findings()["alias"]["root-mount"]
    finally:
        audited.remove()
        audited.engine.remove_volume(audited.name)
    assert found.status == "fail"
    assert "/etc" in found.found
    assert "hunter2" not in found.found


def test_a_real_builder_passes_every_rule(audited: Audited, builds: Builds, start: Start, engine: Engine) -> None:
    repository = builds.repository("FROM debian:trixie-slim\nRUN sleep 8\n")
    process = start("build", repository.url, "--image", "caisson-test/audited", "--no-cache")
    deadline = time.monotonic() + 60
    while not (running := [c for c in own_builders(engine, builds.settings) if c.state == "running"]):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    told = audited.findings()[running[0].name]
    assert told["builder-mounts"].status == "pass", told["builder-mounts"].found
    assert not_passed(told) == {}
    process.terminate()
    process.wait(30)


def test_what_the_engine_tells_of_itself_is_understood(audited: Audited) -> None:
    told = audited.findings()[""]
    known = {rule: told[rule].status for rule in ("live-restore", "icc", "api-tls", "storage-driver", "engine-version")}
    assert "unknown" not in known.values()
    assert told["insecure-registries"].status in ("pass", "fail")


def test_the_command_says_what_it_found_and_its_exit_code_is_by_severity(audited: Audited, run: Run) -> None:
    audited.make("bad", {"HostConfig": {"Privileged": True}})
    first = run("audit", "--json")
    assert first.returncode == 1, first.stderr
    report = json.loads(first.stdout)
    assert f"privileged@{audited.name}-bad" in {item["key"] for item in report["findings"] if item["status"] == "fail"}
    audited.remove()
    second = run("audit")
    assert f"mended privileged@{audited.name}-bad" in second.stdout


def test_without_an_engine_nothing_is_known_of_it(settings: Settings, tmp_path: Path) -> None:
    gone = settings.model_copy(update={"docker_host": f"unix://{tmp_path}/none.sock"})
    report = audit(gather_audit(gone, datetime.now(UTC), None), None)
    assert "does not answer" in report.engine_problem
    assert all(
        item.status in ("unknown", "fail") for item in report.findings if item.rule in ("icc", "api-tls", "swarm")
    )
