"""Doctor's checks, one fact at a time: a healthy host gets no complaint, and each fault is told once, with its fix."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from caisson.disk import DiskUsage
from caisson.engine import EngineInfo
from caisson.file_facts import FileFacts
from caisson.settings import Settings, load_settings
from deployments.cli_doctor import item_lines
from deployments.doctor import diagnose, has_problem
from deployments.doctor.facts import (
    BuilderFacts,
    BuilderImageFacts,
    GatewayFacts,
    HostFacts,
    Item,
    ServiceFacts,
)
from deployments.doctor.gather import gather
from deployments.doctor.settings_table import settings_rows

NOW = datetime(2026, 5, 1, 12, 0, tzinfo=UTC)
GIB = 1 << 30


def settings(**changes: Any) -> Settings:
    return load_settings(_env_file=None, ssh_known_hosts="/etc/known", state_dir=Path("/state"), **changes)


ENGINE = EngineInfo(
    version="26.1.5",
    api_version="1.45",
    storage_driver="overlay2",
    cgroup_driver="cgroupfs",
    cgroup_version=2,
    data_root="/var/lib/docker",
    security_options=("name=apparmor", "name=seccomp,profile=builtin"),
    cpus=8,
    memory=16 * GIB,
    containerd_store=False,
)
SERVICE = ServiceFacts(
    api_url="http://127.0.0.1:4200/api",
    version="3.8.8",
    clock=NOW,
    asked_at=NOW,
    pool="caisson",
    pool_exists=True,
    workers_online=1,
    deployment="build-image/here",
    deployment_exists=True,
)
DISK = DiskUsage("/var/lib/docker", 100 * GIB, 50 * GIB, 1_000_000, 900_000)
HEALTHY = HostFacts(
    settings=settings(),
    now=NOW,
    socket=FileFacts("/var/run/docker.sock", True, "socket", 0o660, 0, 999, "docker", readable=True, writable=True),
    engine=ENGINE,
    engine_error="",
    state_dir=FileFacts("/state", True, "directory", 0o700, readable=True, writable=True),
    guard_dir=FileFacts("/run/caisson", True, "directory", 0o700, readable=True, writable=True),
    docker_disk=DISK,
    state_disk=DISK,
    disk_looked=NOW - timedelta(minutes=2),
    builder_image=BuilderImageFacts(True, "2026-04-01T00:00:00Z", GIB, "10001:10001", "abc", "abc"),
    builders=(BuilderFacts("caisson-build-1", NOW + timedelta(minutes=5)),),
    known_hosts=FileFacts("/etc/known", True, "file", 0o644, readable=True, size=100),
    service=SERVICE,
    gateway=GatewayFacts("http://127.0.0.1:4280", answers=True, tokens=2),
    installed_at=NOW - timedelta(days=30),
)


def complaints(**changes: Any) -> list[Item]:
    return [item for item in diagnose(replace(HEALTHY, **changes)) if item.status != "ok"]


def engine(**changes: Any) -> dict[str, Any]:
    return {"engine": replace(ENGINE, **changes)}


def socket(**changes: Any) -> dict[str, Any]:
    return {"socket": replace(HEALTHY.socket, **changes)}


def guard(**changes: Any) -> dict[str, Any]:
    return {"guard_dir": replace(HEALTHY.guard_dir, **changes)}


def state(**changes: Any) -> dict[str, Any]:
    return {"state_dir": replace(HEALTHY.state_dir, **changes)}


def service(**changes: Any) -> dict[str, Any]:
    return {"service": replace(SERVICE, **changes)}


def image(**changes: Any) -> dict[str, Any]:
    assert HEALTHY.builder_image is not None
    return {"builder_image": replace(HEALTHY.builder_image, **changes)}


def test_a_healthy_host_gets_no_complaint_and_no_advice() -> None:
    items = diagnose(HEALTHY)
    assert [item for item in items if item.status != "ok" or item.fix] == []
    assert {"socket", "engine", "limits", "builder image", "docker disk", "state directory", "service"} <= {
        item.name for item in items
    }
    assert not has_problem(items)


@pytest.mark.parametrize(
    ("changes", "name", "status", "says", "fix"),
    [
        (socket(exists=False, error="it does not exist"), "socket", "problem", "does not exist", "Start Docker"),
        (socket(kind="file"), "socket", "problem", "is a file", "CAISSON_DOCKER_HOST"),
        (socket(writable=False), "socket", "problem", "You may not use", "usermod -aG"),
        (socket(mode=0o666), "socket", "problem", "Every user", "chmod o= /var/run/docker.sock"),
        ({"settings": settings(socket="raw")}, "guard", "warning", "is root on this host", "Unset CAISSON_SOCKET"),
        ({"gives_to_builders": False}, "guard", "problem", "not in the group 10001", "groupadd --gid 10001"),
        (guard(writable=False), "guard", "problem", "no permission", "CAISSON_GUARD_DIR"),
        (guard(kind="file"), "guard", "problem", "it is a file", "CAISSON_GUARD_DIR"),
        (guard(mode=0o777), "guard", "problem", "Others may write", "chmod go-rwx /run/caisson"),
        (engine(storage_driver="vfs"), "engine", "warning", "slow", "overlay2"),
        (engine(cgroup_driver="none"), "cgroups", "problem", "can't limit", "delegation"),
        (
            {"disk_looked": NOW - timedelta(minutes=11)},
            "disk monitor",
            "warning",
            "last looked at 11 minutes ago",
            "monitor-disk",
        ),
        ({"disk_looked": None}, "disk monitor", "warning", "not been looked at yet", "monitor-disk"),
        (
            {"gateway": GatewayFacts("http://[::1]:4280")},
            "API",
            "problem",
            "does not answer at http://[::1]",
            "gateway.log",
        ),
        (
            {
                "settings": settings(gateway_host="0.0.0.0"),
                "gateway": GatewayFacts("http://127.0.0.1:4280", answers=True),
            },
            "API",
            "warning",
            "without TLS",
            "127.0.0.1",
        ),
        ({"prunes_overdue": NOW}, "prunes", "warning", "twice its interval, which is 6 hours", "prune-images"),
        ({"docker_disk": replace(DISK, free_bytes=14 * GIB)}, "disk pressure", "warning", "fills up", "--attribution"),
        ({"docker_disk": replace(DISK, free_bytes=5 * GIB)}, "disk pressure", "problem", "no build", "--attribution"),
        (engine(swap_limit=False), "cgroups", "warning", "swap", "swapaccount=1"),
        ({"cgroup_files": False}, "cgroups", "warning", "never verified", "/sys/fs/cgroup"),
        (
            engine(version="20.10.24", api_version="1.41", cgroup_driver="cgroupfs", cgroup_version=1),
            "limits",
            "warning",
            "builds with secrets need BuildKit, whose steps run without limits",
            "23.0",
        ),
        (
            engine(version="20.10.24", api_version="1.41", cgroup_driver="systemd"),
            "limits",
            "warning",
            "can't be held",
            "23.0",
        ),
        ({"settings": settings(hold_steps=False)}, "limits", "warning", "are not held", "CAISSON_HOLD_STEPS=true"),
        ({"no_group": "it may not"}, "cache", "warning", "not cached between builds: it may not.", "cgroupfs driver"),
        ({"settings": settings(cpus=16)}, "capacity", "problem", "16 cores", "CAISSON_CPUS to 8"),
        ({"settings": settings(concurrency=9)}, "capacity", "warning", "9 builds at once", "CAISSON_CONCURRENCY"),
        (image(present=False), "builder image", "problem", "is not on this engine", "caisson builder-image"),
        (image(user=""), "builder image", "warning", "root", "caisson builder-image"),
        (image(user="0:0"), "builder image", "warning", "root", "caisson builder-image"),
        (image(content="old"), "builder image", "warning", "is not what", "caisson builder-image"),
        (engine(security_options=("name=apparmor",)), "seccomp", "warning", "no system calls", "CONFIG_SECCOMP"),
        (
            {"settings": settings(seccomp_profile="/p"), "seccomp": FileFacts("/p", error="it does not exist")},
            "seccomp",
            "problem",
            "/p can't be read: it does not exist",
            "CAISSON_SECCOMP_PROFILE",
        ),
        (engine(security_options=("name=seccomp",)), "apparmor", "warning", "Neither", "apt-get install apparmor"),
        (
            {**engine(security_options=("name=seccomp",)), "settings": settings(apparmor_profile="caisson")},
            "apparmor",
            "problem",
            "does not use AppArmor",
            "unset CAISSON_APPARMOR_PROFILE",
        ),
        (
            {"settings": settings(apparmor_profile="caisson"), "apparmor_profiles": frozenset({"docker-default"})},
            "apparmor",
            "problem",
            "caisson is not loaded",
            "apparmor_parser",
        ),
        (
            {"settings": settings(selinux_label="type:x")},
            "selinux",
            "problem",
            "does not use SELinux",
            "selinux-enabled",
        ),
        (
            engine(security_options=("name=apparmor", "name=seccomp", "name=userns")),
            "user namespace",
            "problem",
            "userns-remap",
            "without userns-remap",
        ),
        (
            {"builders": (BuilderFacts("late", NOW - timedelta(seconds=1)), *HEALTHY.builders)},
            "builders",
            "warning",
            "1 of 2 builders are past their deadline: late",
            "docker rm -f late",
        ),
        ({"builders": (BuilderFacts("undated", None),)}, "builders", "warning", "undated", "docker rm -f undated"),
        (
            {"docker_disk": replace(DISK, free_bytes=GIB // 2)},
            "docker disk",
            "problem",
            "512 MiB missing",
            "caisson prune",
        ),
        ({"docker_disk": replace(DISK, free_inodes=10)}, "docker disk", "problem", "49,990 missing", "prune"),
        ({"docker_disk": replace(DISK, free_bytes=GIB * 3 // 2)}, "docker disk", "warning", "not far", "prune"),
        (
            {"docker_disk": None, "docker_disk_error": "/x does not exist here"},
            "docker disk",
            "problem",
            "/x does not exist here",
            "CAISSON_DOCKER_DATA_ROOT",
        ),
        (state(writable=False), "state directory", "problem", "no permission", "CAISSON_STATE_DIR"),
        (state(kind="file"), "state directory", "problem", "it is a file", "CAISSON_STATE_DIR"),
        (state(mode=0o770), "state directory", "problem", "Others may write", "chmod go-rwx /state"),
        (state(mode=0o755), "state directory", "warning", "Others may read", "chmod go-rwx /state"),
        ({"state_disk": replace(DISK, free_bytes=1 << 20)}, "state directory", "warning", "1 MiB free", "Free"),
        (service(error="No answer.", fix="Start it."), "service", "problem", "No answer.", "Start it."),
        (service(pool_exists=False), "worker", "problem", "caisson does not exist", "caisson up"),
        (service(pool_paused=True), "worker", "problem", "is paused", "prefect work-pool resume caisson"),
        (service(workers_online=0), "worker", "problem", "worker of the pool caisson is not online", "caisson up"),
        (service(deployment_exists=False), "worker", "problem", "build-image/here", "caisson up"),
        (
            {"settings": settings(server_host="0.0.0.0")},
            "exposure",
            "problem",
            "without a password",
            "CAISSON_API_AUTH",
        ),
        ({"known_hosts": None}, "known hosts", "warning", "first sight", "ssh-keyscan"),
        (
            {"known_hosts": FileFacts("/etc/known", True, "file", 0o644, readable=True, size=0)},
            "known hosts",
            "problem",
            "it is empty",
            "ssh-keyscan",
        ),
        (
            {"known_hosts": FileFacts("/etc/known", error="it does not exist")},
            "known hosts",
            "problem",
            "it does not exist",
            "CAISSON_SSH_KNOWN_HOSTS",
        ),
        (
            {"settings": settings(registry_username="me")},
            "registry",
            "problem",
            "CAISSON_REGISTRY_PASSWORD is not set",
            "Set both",
        ),
        (
            {"settings": settings(registry_username="me", registry_password="x")},
            "registry",
            "problem",
            "CAISSON_REGISTRY is not set",
            "the one registry that gets it",
        ),
        ({"now": NOW - timedelta(days=60)}, "clock", "problem", "before Caisson was installed", "set-ntp"),
        (service(clock=NOW + timedelta(seconds=90)), "clock", "warning", "90 s apart", "set-ntp"),
    ],
)
def test_each_fault_is_told_once_with_its_fix(
    changes: Mapping[str, Any], name: str, status: str, says: str, fix: str
) -> None:
    found = complaints(**changes)
    assert [(item.name, item.status) for item in found] == [(name, status)]
    assert says in found[0].message
    assert fix in found[0].fix


def test_without_an_engine_nothing_is_said_about_what_only_it_knows() -> None:
    found = complaints(
        engine=None,
        engine_error="The Docker engine does not answer.",
        docker_disk=None,
        builder_image=None,
        builders=(),
    )
    assert [(item.name, item.status) for item in found] == [("engine", "problem")]


def test_an_engine_that_is_too_old_is_told_first() -> None:
    found = complaints(**engine(api_version="1.38"))
    assert [(item.name, item.status) for item in found] == [("engine", "problem"), ("limits", "warning")]
    assert "20.10 or later" in found[0].fix


def test_require_limits_that_no_builder_can_keep_is_a_problem() -> None:
    found = complaints(
        settings=settings(require_limits=True),
        **engine(version="20.10.24", api_version="1.41", cgroup_driver="systemd"),
    )
    assert [(item.name, item.status) for item in found] == [("limits", "problem")]
    assert "Every build is refused" in found[0].message


def test_without_a_service_builds_are_in_process_and_that_is_well() -> None:
    assert complaints(service=ServiceFacts()) == []


def test_a_filesystem_without_a_fixed_number_of_inodes_never_runs_out_of_them() -> None:
    assert complaints(docker_disk=replace(DISK, total_inodes=0, free_inodes=0)) == []


def test_a_state_directory_that_can_be_made_is_well() -> None:
    assert complaints(state_dir=FileFacts("/state", kind="directory", writable=True)) == []


def test_a_server_with_a_password_may_listen_anywhere() -> None:
    assert complaints(settings=settings(server_host="0.0.0.0", api_auth="user:password")) == []


def test_the_lines_name_the_item_its_fix_and_the_count() -> None:
    items = [Item("socket", "ok", "fine."), Item("engine", "problem", "x" * 30 + " " + "y" * 30, "mend \x1b[31mit")]
    assert list(item_lines(items, width=60, colour=False)) == [
        "✓ socket           fine.",
        f"✗ engine           {'x' * 30}",
        f"{' ' * 19}{'y' * 30}",
        f"{' ' * 19}→ mend it",
        "1 problem, No warnings.",
    ]


# --- gathering, for real, on this machine


def test_gathering_never_fails_though_nothing_is_there(tmp_path: Path) -> None:
    facts = gather(
        load_settings(
            _env_file=None,
            docker_host=f"unix://{tmp_path}/none.sock",
            state_dir=tmp_path / "state",
            api_url="http://127.0.0.1:9/api",
            seccomp_profile=str(tmp_path / "none.json"),
            ssh_known_hosts=str(tmp_path),
        )
    )
    assert facts.engine is None
    assert "does not answer" in facts.engine_error
    assert facts.state_dir.writable
    by_name = {item.name: item for item in diagnose(facts)}
    assert {by_name[name].status for name in ("socket", "engine", "service")} == {"problem"}
    assert "127.0.0.1:9" in by_name["service"].message
    assert by_name["state directory"].status == "ok"


def test_a_docker_host_that_is_no_unix_socket_is_told(tmp_path: Path) -> None:
    facts = gather(load_settings(_env_file=None, docker_host="tcp://127.0.0.1:9", state_dir=tmp_path))
    (item,) = [item for item in diagnose(facts) if item.name == "socket"]
    assert (item.status, "is not a unix socket" in item.message) == ("problem", True)


def test_a_state_directory_open_to_others_is_seen(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    facts = gather(load_settings(_env_file=None, docker_host=f"unix://{tmp_path}/none.sock", state_dir=tmp_path))
    (item,) = [item for item in diagnose(facts) if item.name == "state directory"]
    assert (item.status, item.fix) == ("problem", f"chmod go-rwx {tmp_path}")


# --- the table of settings


def test_every_setting_is_in_the_table_with_a_description_and_its_source() -> None:
    rows = settings_rows(settings(memory="3g"), {"environment": {"memory": "3g"}, ".env": {"memory": "1g"}})
    assert [row.variable for row in rows] == [f"CAISSON_{name.upper()}" for name in Settings.model_fields]
    assert all(row.description for row in rows)
    by_name = {row.variable: row for row in rows}
    memory = by_name["CAISSON_MEMORY"]
    assert (memory.value, memory.default, memory.source) == ("3 GiB", "2 GiB", "environment")
    assert by_name["CAISSON_PIDS"].source == "default"


def test_a_value_of_the_table_can_be_set_again() -> None:
    hosts = {"key": ("git.example.com", "ssh://git.example.com:2222")}
    shown = {
        row.variable: row.value
        for row in settings_rows(
            settings(
                memory="1500m",
                fork_server=False,
                allow_protocols=("https",),
                credential_hosts=hosts,
                retention={"otherwise": {"max_age": "7d"}},
            ),
            {},
        )
    }
    again = load_settings(
        _env_file=None,
        memory=shown["CAISSON_MEMORY"],
        fork_server=shown["CAISSON_FORK_SERVER"],
        allow_protocols=json.loads(shown["CAISSON_ALLOW_PROTOCOLS"]),
        credential_hosts=json.loads(shown["CAISSON_CREDENTIAL_HOSTS"]),
        retention=json.loads(shown["CAISSON_RETENTION"]),
    )
    assert shown["CAISSON_RETENTION"] == '{"otherwise":{"max_age":"7d"}}'
    assert again.retention.otherwise.max_age == timedelta(days=7)
    assert again.credential_hosts == hosts
    assert (again.fork_server, again.allow_protocols) == (False, ("https",))
    assert abs(again.memory - (1500 << 20)) < 10 << 20


def test_no_secret_is_in_the_table() -> None:
    secret = "canary-7f3a"
    rows = settings_rows(
        settings(api_auth=f"u:{secret}", registry_password=secret, database_url=f"postgresql+asyncpg://u:{secret}@h/d"),
        {},
    )
    assert secret not in repr(rows)
    assert {row.variable for row in rows if row.value == "(hidden)"} == {
        "CAISSON_API_AUTH",
        "CAISSON_REGISTRY_PASSWORD",
        "CAISSON_DATABASE_URL",
    }


def test_the_sockets_group_matters_to_builders_that_get_the_raw_one() -> None:
    changes = socket(mode=0o600)
    assert complaints(**changes) == []
    found = complaints(**changes, settings=settings(socket="raw"))
    assert [item.fix for item in found if item.name == "socket"] == ["chmod g+rw /var/run/docker.sock"]
