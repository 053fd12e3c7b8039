"""Two Caissons, one that the tests share and one whose parts are killed, and a receiver for what they tell."""

from __future__ import annotations

import http.server
import json
import queue
import threading
from collections.abc import Iterator
from typing import Any

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


@pytest.fixture
def receiver() -> Iterator[tuple[str, queue.Queue[dict[str, Any]]]]:
    """A webhook's receiver: its URL, and what was posted there."""
    posted: queue.Queue[dict[str, Any]] = queue.Queue()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            posted.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/s3cr3t-path", posted
        server.shutdown()
