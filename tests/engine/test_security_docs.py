"""What the document's table says of a builder's posture is what a real build's report says."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import docker
import pytest

from caisson.report import BuildReport
from tests.conftest import EngineHost
from tests.engine.conftest import Builds
from tests.security_docs import bench_table, cis_numbers

BASE = "FROM debian:trixie-slim\n"


@pytest.fixture
def network(engine_host: EngineHost) -> Iterator[str]:
    """A network for builders, made as the document says."""
    client = docker.APIClient(engine_host.docker_host, version="auto")
    name = f"caisson-test-{uuid.uuid4().hex[:12]}"
    client.create_network(name, options={"com.docker.network.bridge.enable_icc": "false"})
    yield name
    client.remove_network(name)
    client.close()


def posture(report: BuildReport) -> list[tuple[str, str]]:
    """CIS number and status of each item that has one."""
    return [(number, item.status) for item in report.posture for number in cis_numbers(item.source)]


def test_a_builders_posture_is_the_one_of_the_table(builds: Builds) -> None:
    table, found = bench_table(), posture(builds(builds.repository(BASE)))
    assert len(found) >= 25
    assert [(number, status) for number, status in found if status not in table[number].posture] == []


def test_with_a_network_for_builders_nothing_fails(builds: Builds, network: str) -> None:
    found = posture(builds.with_settings(builder_network=network)(builds.repository(BASE)))
    assert ("5.30", "pass") in found
    assert [number for number, status in found if status == "fail"] == []
