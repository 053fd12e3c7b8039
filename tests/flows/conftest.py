"""Two Caissons: one that the tests share, and one whose parts are killed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.flows.caisson_host import CaissonHost, free_port


@pytest.fixture(scope="session")
def caisson(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CaissonHost]:
    """A Caisson that is up. Its safety poll is so slow that only events can start a run in time."""
    variables = {
        "CAISSON_POLL_SECONDS": "600",
        "CAISSON_CONCURRENCY": "4",
        "CAISSON_GATEWAY_PORT": str(free_port()),
        "CAISSON_GATEWAY_RATE": "2000",
    }
    host = CaissonHost(tmp_path_factory.mktemp("caisson"), "first", variables)
    try:
        host.up()
        host.apply_samples()
        yield host
    finally:
        host.stop()


@pytest.fixture(scope="session")
def _mortal(tmp_path_factory: pytest.TempPathFactory, caisson: CaissonHost) -> Iterator[CaissonHost]:
    host = CaissonHost(
        tmp_path_factory.mktemp("mortal"),
        "mortal",
        {"CAISSON_DRAIN_SECONDS": "2", "CAISSON_POLL_SECONDS": "2", "CAISSON_API_AUTH": "builder:h0rse-battery"},
    )
    host.copy_database(caisson)
    host.up()
    host.apply_samples()
    yield host
    if host.is_up:
        host.stop()


@pytest.fixture
def mortal(_mortal: CaissonHost) -> Iterator[CaissonHost]:
    """A Caisson to be killed: up, with two seconds of drain; its parts may be gone after the test."""
    if not _mortal.is_up:
        _mortal.up()
    yield _mortal
    if not _mortal.is_up:
        assert _mortal.processes() == {}
