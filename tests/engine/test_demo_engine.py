"""What the demonstration asks of a real engine: the way back to this host, and one run of an image."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from ipaddress import IPv4Address

import pytest

from caisson.engine import Engine
from caisson.errors import EngineRefused, EngineUnreachable
from deployments.demo_engine import LABEL_DEMO, gateway, run_image
from tests.conftest import EngineHost
from tests.engine.conftest import Builds

DOCKERFILE = """\
FROM debian:trixie-slim
CMD ["sh", "-c", "{}"]
"""


def _image(builds: Builds, script: str) -> str:
    return builds(builds.repository(DOCKERFILE.format(script), name="demo")).image_id


@pytest.fixture(autouse=True)
def _no_container_is_left(engine: Engine) -> Iterator[None]:
    yield
    assert engine.list_containers({LABEL_DEMO: None}) == []


def test_the_gateway_is_the_one_that_containers_have(builds: Builds, engine_host: EngineHost) -> None:
    ran = run_image(str(engine_host.socket), _image(builds, "cat /proc/net/route"), seconds=30)
    # The kernel's table: interface, destination, gateway; addresses in hexadecimal, in the host's order of bytes.
    routes = [line.split() for line in ran.output.splitlines()[1:]]
    (default,) = [route[2] for route in routes if route[1] == "00000000"]
    assert gateway(str(engine_host.socket), "bridge") == str(IPv4Address(bytes.fromhex(default)[::-1]))


def test_a_network_without_a_gateway_is_refused_by_name(engine_host: EngineHost) -> None:
    with pytest.raises(EngineRefused, match="network none has no IPv4 gateway"):
        gateway(str(engine_host.socket), "none")


def test_output_and_exit_code_of_a_container_are_told(builds: Builds, engine_host: EngineHost) -> None:
    ran = run_image(str(engine_host.socket), _image(builds, "echo out; echo err >&2; exit 3"), seconds=30)
    assert sorted(ran.output.split()) == ["err", "out"]
    assert ran.exit_code == 3


def test_a_container_that_goes_on_is_ended(builds: Builds, engine_host: EngineHost) -> None:
    began = time.monotonic()
    ran = run_image(str(engine_host.socket), _image(builds, "echo begun; exec sleep 600"), seconds=1)
    assert (ran.output, ran.exit_code) == ("begun\n", None)
    assert time.monotonic() - began < 30


def test_an_image_without_a_command_is_refused(engine_host: EngineHost) -> None:
    docker = ["docker", "--host", engine_host.docker_host]
    image = "caisson-test/without-a-command:1"
    # An archive of nothing: whether a base image has a command is not this test's to rely on.
    subprocess.run([*docker, "import", "-", image], input=bytes(1024), check=True, capture_output=True)
    try:
        with pytest.raises(EngineRefused, match=r"(?i)no command"):
            run_image(str(engine_host.socket), image, seconds=5)
    finally:
        subprocess.run([*docker, "rmi", image], check=True, capture_output=True)


def test_an_engine_that_is_not_there_is_told_by_its_address(tmp_path_factory: pytest.TempPathFactory) -> None:
    socket = tmp_path_factory.mktemp("none") / "docker.sock"
    with pytest.raises(EngineUnreachable, match=str(socket)):
        gateway(str(socket), "bridge")
