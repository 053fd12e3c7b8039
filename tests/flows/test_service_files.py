"""How Caisson is installed as a service: the compose file by the specification's schema, units by systemd-analyze."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from caisson.settings import Settings
from deployments.launcher import GATEWAY_STOP_SECONDS, SERVER_STOP_SECONDS, WORKER_STOP_SECONDS
from deployments.state import RunningCaisson, StateDir, publish

DEPLOYMENTS = Path(__file__).parents[2] / "deployments"
UNITS = sorted((DEPLOYMENTS / "systemd").glob("*.service"))
# https://github.com/compose-spec/compose-spec, schema/compose-spec.json of 2026-06-23 (Apache License 2.0)
SCHEMA = Path(__file__).parents[1] / "unit/data/compose-spec.json"
ANSWERS = {
    "POSTGRES_PASSWORD": "pa55",
    "CAISSON_API_AUTH": "builder:w0rds",
    "CAISSON_HOST_NAME": "b1",
    "DOCKER_GID": "998",
}
# The engine's socket and the directory of the guarded ones: all of the host that any container sees.
HOST_PATHS = {"/var/run/docker.sock", "/run/caisson"}
# systemd's own scale, 0 to 100 for what it prints as 0.0 to 10.0: the lower, the less a service can reach.
MOST_EXPOSURE = {"caisson-server.service": 15, "caisson.service": 20}


def interpolated(text: str) -> str:
    """The file with its variables in place: ``${NAME:?WHAT TO DO}`` is all that it uses."""
    return re.sub(r"\$\{([A-Z_]+):\?[^}]+\}", lambda found: ANSWERS[found[1]], text)


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    text = interpolated((DEPLOYMENTS / "compose.yaml").read_text())
    # No secret has a default, and none may be left empty.
    assert "${" not in text
    found: dict[str, Any] = yaml.safe_load(text)
    return found


@pytest.fixture(scope="module")
def services(document: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = document["services"]
    return found


def test_the_compose_file_follows_the_specification(document: dict[str, Any]) -> None:
    schema = json.loads(SCHEMA.read_text())
    validator = jsonschema.Draft7Validator(schema)
    assert [f"{error.json_path}: {error.message}" for error in validator.iter_errors(document)] == []
    wrong = {**document, "services": {"x": {"imagee": "y"}}}
    assert list(validator.iter_errors(wrong))


def test_each_service_is_hardened(services: dict[str, Any]) -> None:
    assert set(services) == {"database", "server", "worker"}
    for name, service in services.items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert "privileged" not in service, name
        assert service["healthcheck"]["test"][0] == "CMD", name
        assert service["mem_limit"], name
        assert service["pids_limit"], name


def test_no_directory_of_the_host_is_mounted_but_the_sockets(services: dict[str, Any]) -> None:
    def sources(name: str) -> set[str]:
        volumes = services[name]["volumes"]
        binds = [volume for volume in volumes if isinstance(volume, dict)]
        # A source that is missing is to be told, never made.
        assert [bind["bind"] for bind in binds] == [{"create_host_path": False}] * len(binds)
        found = {volume.split(":")[0] for volume in volumes if isinstance(volume, str)}
        return {bind["source"] for bind in binds} | {source for source in found if source.startswith("/")}

    assert sources("worker") == HOST_PATHS
    assert sources("server") == sources("database") == set()


def test_the_two_apis_have_a_port_each_and_that_on_the_loopback(services: dict[str, Any]) -> None:
    assert {name: service.get("ports") for name, service in services.items() if service.get("ports")} == {
        "server": ["127.0.0.1:4200:4200"],
        "worker": ["127.0.0.1:4280:4280"],
    }
    for name, field in (("server", "server_port"), ("worker", "gateway_port")):
        host = services[name]["environment"][f"CAISSON_{field.removesuffix('_port').upper()}_HOST"]
        assert host == "0.0.0.0", "what listens on the loopback of its container has no port"
        assert Settings.model_fields[field].default == int(services[name]["ports"][0].split(":")[-1])


def test_the_workers_health_is_what_the_launcher_publishes(services: dict[str, Any], tmp_path: Path) -> None:
    _, program, option, code = services["worker"]["healthcheck"]["test"]
    code = code.replace("/var/lib/caisson", str(tmp_path))

    def is_healthy() -> bool:
        return subprocess.run([program, option, code], check=False, stderr=subprocess.DEVNULL).returncode == 0

    assert not is_healthy()
    for ready in (False, True):
        publish(StateDir(tmp_path), RunningCaisson(1, "http://x", "http://x/api", ready=ready))
        assert is_healthy() == ready


def test_only_the_server_knows_the_way_into_the_database(services: dict[str, Any]) -> None:
    assert ANSWERS["POSTGRES_PASSWORD"] in services["server"]["environment"]["CAISSON_DATABASE_URL"]
    assert ANSWERS["POSTGRES_PASSWORD"] not in json.dumps(services["worker"])
    assert set(services["worker"]["networks"]) & set(services["database"]["networks"]) == set()


def test_the_image_is_no_root_and_the_example_names_what_compose_asks_for() -> None:
    dockerfile = (DEPLOYMENTS / "image" / "Dockerfile").read_text()
    users = re.findall(r"^USER (.*)$", dockerfile, re.MULTILINE)
    assert users[-1] == "10000:10000"
    example = (DEPLOYMENTS / "compose.env.example").read_text()
    assert set(re.findall(r"^([A-Z_]+)=", example, re.MULTILINE)) == set(ANSWERS)


def test_a_host_that_was_stopped_by_its_own_command_stays_down_and_has_the_time_to_drain() -> None:
    unit = (DEPLOYMENTS / "systemd" / "caisson.service").read_text()
    # `caisson down` has the launcher end with 0.
    assert re.findall(r"^Restart=(.*)$", unit, re.MULTILINE) == ["on-failure"]
    (stop_seconds,) = re.findall(r"^TimeoutStopSec=(\d+)$", unit, re.MULTILINE)
    drain = Settings.model_fields["drain_seconds"].default
    assert int(stop_seconds) > drain + WORKER_STOP_SECONDS + GATEWAY_STOP_SECONDS + SERVER_STOP_SECONDS


def test_the_worker_is_in_the_builders_group(services: dict[str, Any]) -> None:
    # Who is not root gives a socket to none but a group of its own.
    assert str(Settings.model_fields["builder_uid"].default) in services["worker"]["group_add"]
    unit = (DEPLOYMENTS / "systemd" / "caisson.service").read_text()
    (groups,) = re.findall(r"^SupplementaryGroups=(.*)$", unit, re.MULTILINE)
    assert groups.split() == ["docker", "caisson-builder"]
    # ``@privileged`` holds ``@chown``, without which no socket can be given at all.
    filters = re.findall(r"^SystemCallFilter=(.*)$", unit, re.MULTILINE)
    assert filters[-2:] == ["~@privileged", "@chown"]
    documented = (DEPLOYMENTS.parent / "docs/operations.md").read_text()
    assert f"groupadd --gid {Settings.model_fields['builder_uid'].default} caisson-builder" in documented


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_systemd_finds_no_fault_with_a_unit(unit: Path, tmp_path: Path) -> None:
    # Where it is installed is a matter of the host; systemd looks whether the program is there.
    copy = tmp_path / unit.name
    copy.write_text(unit.read_text().replace("/opt/caisson", str(DEPLOYMENTS.parent)))
    done = subprocess.run(["systemd-analyze", "verify", str(copy)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not [line for line in done.stderr.splitlines() if unit.name in line], done.stderr


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_a_unit_reaches_as_little_as_it_can(unit: Path, capsys: pytest.CaptureFixture[str]) -> None:
    most = MOST_EXPOSURE[unit.name]
    command = ["systemd-analyze", "security", "--offline=true", "--no-pager", f"--threshold={most}", str(unit)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    (line,) = [line for line in done.stdout.splitlines() if "Overall exposure level" in line]
    with capsys.disabled():
        print(f"\n  {line.strip('→ ')}")
    assert done.returncode == 0, done.stdout
