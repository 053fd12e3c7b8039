"""What a reader of a build's events is told while the build waits, runs and ends; its log is a file of the test."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import anyio
import pytest

from deployments.api.build_view import BuildDetail, QueuePlace, detail_of
from deployments.api.log_source import FileLog, PrefectLog
from deployments.api.log_stream import LogStream

RUN = {
    "id": "0b9f2a3e-6a0e-4c44-9a0c-2d7f6f1c9a51",
    "created": "2026-05-01T12:00:00Z",
    "state": {"type": "SCHEDULED", "message": ""},
}


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOG_SECONDS", "STATE_SECONDS"):
        monkeypatch.setattr(f"deployments.api.log_stream.{name}", 0.001)


def build(state_type: str, *, step: str = "", ahead: int = -1) -> BuildDetail:
    place = QueuePlace(ahead=ahead, reason=f"waits: {ahead} builds ahead") if ahead >= 0 else None
    return detail_of({**RUN, "state_type": state_type}, step=step, place=place)


def events(path: Path, *states: BuildDetail | None) -> list[tuple[str, Any]]:
    """The events of a build that goes through these states, one a look; data that is JSON is read."""
    looks: Iterator[BuildDetail | None] = iter(states)

    def no_log(position: str) -> PrefectLog:
        raise AssertionError(f"Prefect was asked for the log after {position!r}")

    stream = LogStream(
        build=lambda: next(looks),
        open_file=lambda at: FileLog(path, at) if path.exists() else None,
        open_prefect=no_log,
    )

    async def all_of_them() -> bytes:
        return b"".join([event async for event in stream.events()])

    # The thread of the tests may have the loop of a browser's.
    with ThreadPoolExecutor(1) as pool:
        sent = pool.submit(anyio.run, all_of_them).result(10).decode()
    found = []
    for block in sent.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines())
        if "event" in fields:
            data = fields["data"]
            found.append((fields["event"], json.loads(data) if data.startswith("{") else data))
    return found


def test_a_place_in_the_queue_is_told_whenever_it_changes(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("a line\n")
    seen = events(
        log,
        build("SCHEDULED", ahead=2),
        build("SCHEDULED", ahead=2),
        build("SCHEDULED", ahead=1),
        build("PENDING"),
        build("RUNNING", step="clone"),
        build("RUNNING", step="clone"),
        build("COMPLETED"),
    )
    told = [(data["state"], data["step"], data["queue"]) for name, data in seen if name == "state"]
    assert told == [
        ("queued", "", {"ahead": 2, "reason": "waits: 2 builds ahead"}),
        ("queued", "", {"ahead": 1, "reason": "waits: 1 builds ahead"}),
        ("starting", "", None),
        ("running", "clone", None),
    ]
    assert [data for name, data in seen if name == "log"] == ["a line"]
    assert (seen[-1][0], seen[-1][1]["state"]) == ("end", "succeeded")


def test_who_may_not_see_the_build_any_more_is_told_nothing_more(tmp_path: Path) -> None:
    assert [name for name, _ in events(tmp_path / "log", build("SCHEDULED", ahead=0), None)] == ["state"]
