"""A prune of the command line tells Prefect what the flow's prunes do, if a server is there, and never waits long."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from prefect.server.events.schemas.events import Event

from caisson.settings import Settings, load_settings
from deployments import prune_telling
from deployments.prune_telling import tell_prune
from tests.unit.test_prune_views import made_report


@contextmanager
def server(*, status: int = 204, pause: float = 0) -> Iterator[tuple[str, list[tuple[str, Any]]]]:
    """The address of one, and what was posted there."""
    posted: list[tuple[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            posted.append((self.path, json.loads(body)))
            time.sleep(pause)
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Nobody reads it."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        http.daemon_threads = True
        threading.Thread(target=http.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{http.server_port}/api", posted
        finally:
            http.shutdown()


def settings_for(state: Path, api_url: str = "") -> Settings:
    return load_settings(_env_file=None, state_dir=state, api_url=api_url, host_name="build-1")


def test_the_server_gets_the_events_that_a_flow_would_emit(tmp_path: Path) -> None:
    with server() as (url, posted):
        assert (
            tell_prune(settings_for(tmp_path, url), made_report("removed", "removed", ending="short", free_mib=250))
            == ""
        )
    ((path, body),) = posted
    assert path == "/api/events"
    finished, short = (Event.model_validate(event) for event in body)
    assert (finished.event, short.event) == ("caisson.prune.finished", "caisson.prune.short")
    assert finished.resource.id == "caisson.host.build-1"
    assert finished.resource["caisson.disk.path"] == "/var/lib/docker"
    assert finished.payload["removed"] == 2
    assert abs(finished.occurred - datetime.now(UTC)) < timedelta(minutes=1)
    assert finished.id != short.id


def test_what_was_told_lately_is_not_told_again(tmp_path: Path) -> None:
    failed = made_report("not-reached", "not-reached", ending="stopped", problem="The engine does not answer.")
    with server() as (url, posted):
        for _ in range(2):
            assert tell_prune(settings_for(tmp_path, url), failed) == ""
    assert [[event["event"] for event in body] for _, body in posted] == [["caisson.prune.failed"]]


def test_without_a_server_nobody_is_told_and_nothing_is_remembered(tmp_path: Path) -> None:
    assert tell_prune(settings_for(tmp_path), made_report("removed", "removed")) == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("status", [500, 503, 401])
def test_a_server_that_refuses_is_one_sentence_and_the_next_prune_tells_all(
    tmp_path: Path, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prune_telling, "TIMEOUT_SECONDS", 0.2)
    short = made_report("removed", "removed", ending="short", free_mib=250)
    with server(status=status) as (url, _):
        problem = tell_prune(settings_for(tmp_path, url), short)
    assert problem.startswith("Prefect was not told of this prune: http://127.0.0.1:")
    with server() as (url, posted):
        assert tell_prune(settings_for(tmp_path, url), short) == ""
    assert len(posted[0][1]) == 2


def test_one_that_does_not_answer_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert prune_telling.TIMEOUT_SECONDS <= 5
    monkeypatch.setattr(prune_telling, "TIMEOUT_SECONDS", 0.2)
    began = time.monotonic()
    with server(pause=5) as (url, _):
        problem = tell_prune(settings_for(tmp_path, url), made_report("removed", "removed"))
        assert time.monotonic() - began < 3
    assert "timed out" in problem


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/api", "http://127.0.0.1:99999/api", "nonsense"])
def test_an_address_where_none_is_is_told_and_no_failure(tmp_path: Path, url: str) -> None:
    assert tell_prune(settings_for(tmp_path, url), made_report("removed", "removed")).startswith(
        "Prefect was not told of this"
    )
