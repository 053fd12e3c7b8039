"""The record of a build's end in the worker's log, which no report may bring down."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from uuid import UUID

import pytest

from caisson.build import report_file
from caisson.settings import Settings
from deployments.build_record import log_end

RUN = UUID("0b9f2a3e-6a0e-4c44-9a0c-2d7f6f1c9a51")
REPORT = {
    "image": "team/app",
    "outcome": "cancelled",
    "seconds": 3,
    "build_id": "ab",
    "failure": {"kind": "cancelled"},
    "host": "b1",
    "repository_url": "https://example.com/team/app.git",
    "started": "2026-05-01T12:00:00Z",
}


def records(state_dir: Path, text: str | None, caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    settings = Settings(_env_file=None, state_dir=state_dir)
    if text is not None:
        file = report_file(settings, str(RUN))
        file.parent.mkdir()
        file.write_text(text)
    with caplog.at_level(logging.INFO, "caisson.worker"):
        log_end(settings, RUN)
    return caplog.records


def test_it_names_run_and_build_and_says_how_it_ended(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (record,) = records(tmp_path, json.dumps(REPORT), caplog)
    assert record.getMessage() == f"Run {RUN}: the build of team/app is cancelled after 3.0 s"
    assert (record.__dict__["flow_run_id"], record.__dict__["build_id"]) == (str(RUN), "ab")


def test_a_failure_is_told_with_its_kind(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    failed = {**REPORT, "outcome": "failed", "seconds": 3.25, "failure": {"kind": "out-of-memory"}}
    (record,) = records(tmp_path, json.dumps(failed), caplog)
    assert record.getMessage() == f"Run {RUN}: the build of team/app is failed (out-of-memory) after 3.2 s"


@pytest.mark.parametrize("text", [None, "", "{", "[]", "{}", '{"image": 1}', json.dumps({**REPORT, "failure": "x"})])
def test_a_report_that_is_none_is_told_of_by_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str | None
) -> None:
    assert records(tmp_path, text, caplog) == []
