"""The report of a request whose build never began: what is valid is told, and nothing else is repeated."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from caisson.errors import BuildCancelled, EngineUnreachable, RequestInvalid
from caisson.report import BuildReport
from caisson.report_markdown import render_markdown, summary
from caisson.request import BuildRequest
from caisson.unbegun import report_unbegun

STARTED = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)


def _report(failure: BaseException, **fields: Any) -> BuildReport:
    request = BuildRequest.model_construct(**{"repository_url": "", "ref": "", "image": "", **fields})
    return report_unbegun(request, failure, host="h", flow_run_id="run", started=STARTED, seconds=1.25004)


def test_what_was_asked_for_is_told() -> None:
    failure = EngineUnreachable("The engine does not answer.", hint="Start it.")
    report = _report(failure, repository_url="git@git.example.com:team/app.git", ref="main", image="team/app")
    assert (report.outcome, report.failure, report.flow_run_id) == ("failed", failure.to_dict(), "run")
    assert (report.repository_url, report.ref) == ("git@git.example.com:team/app.git", "main")
    assert (report.image, report.seconds, report.steps) == ("team/app", 1.25, [])
    assert summary(report) == "The build of team/app failed after 1.25 s."
    assert "Start it" in render_markdown(report)


def test_what_is_not_valid_is_not_repeated() -> None:
    report = _report(
        RequestInvalid("x"),
        repository_url="https://user:hunter2@git.example.com/a.git",
        ref="-hunter2",
        image="user:hunter2@registry",
    )
    assert "hunter2" not in report.model_dump_json()
    assert summary(report) == "The build of an image without a valid name failed after 1.25 s."


@pytest.mark.parametrize("failure", [KeyboardInterrupt(), BuildCancelled("The build was cancelled.")])
def test_a_cancel_is_no_failure(failure: BaseException) -> None:
    report = _report(failure, image="team/app")
    assert report.outcome == "cancelled"
    assert report.failure is not None
    assert report.failure["kind"] == "cancelled"


def test_of_a_defect_only_its_type_is_told() -> None:
    report = _report(ZeroDivisionError("hunter2"), image="team/app")
    assert "ZeroDivisionError" in str(report.failure)
    assert "hunter2" not in report.model_dump_json()
