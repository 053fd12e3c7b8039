"""Lists and logs of builds from this host's files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner

from caisson.build import log_file, report_file
from caisson.buildlog import BuildLog
from caisson.report import BuildReport
from caisson.settings import Settings, load_settings
from deployments.cli import app
from deployments.cli_runs import row_of_run

ROOT = Path(__file__).parents[2]
runner = CliRunner()


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CAISSON_STATE_DIR", str(tmp_path / "state"))
    found = load_settings()
    log_file(found, "x").parent.mkdir(parents=True)
    return found


def keep(settings: Settings, run: str, *, age: float, log: str = "a line\n", outcome: str = "built") -> None:
    """A build that ended ``age`` seconds ago."""
    failed = outcome == "failed"
    report = BuildReport.model_validate(
        {
            "outcome": outcome,
            "build_id": run,
            "host": "here",
            "repository_url": "https://example.com/app.git",
            "ref": "main",
            "sha": "c" * 40,
            "image": "team/app",
            "started": datetime.fromtimestamp(1_800_000_000 - age, UTC),
            "seconds": 12.3,
            "failure": {"kind": "out-of-memory", "exit_code": 41, "message": "m", "hint": ""} if failed else None,
        }
    )
    for file, text in ((log_file(settings, run), log), (report_file(settings, run), report.model_dump_json())):
        file.write_text(text)
        os.utime(file, (1_800_000_000 - age,) * 2)


def test_builds_are_listed_with_the_newest_first(settings: Settings) -> None:
    keep(settings, "aaaa11112222", age=100)
    keep(settings, "bbbb11112222", age=10, outcome="failed")
    result = runner.invoke(app, ["builds"])
    header, first, second = result.stdout.splitlines()
    assert header.split() == ["RUN", "STATE", "IMAGE", "REF", "COMMIT", "STARTED", "(UTC)", "TOOK"]
    assert first.split()[:5] == ["bbbb11112222", "failed", "(out-of-memory)", "team/app", "main"]
    assert second.split()[:2] == ["aaaa11112222", "built"]
    rows = json.loads(runner.invoke(app, ["builds", "--json", "--limit", "1"]).stdout)
    assert [(row["run"], row["failure"]) for row in rows] == [("bbbb11112222", "out-of-memory")]


def test_no_builds_is_no_failure(settings: Settings) -> None:
    result = runner.invoke(app, ["builds"])
    assert (result.exit_code, "No builds yet" in result.stdout) == (0, True)
    assert json.loads(runner.invoke(app, ["builds", "--json"]).stdout) == []


def test_a_report_that_cannot_be_read_hides_no_other(settings: Settings) -> None:
    keep(settings, "aaaa11112222", age=10)
    report_file(settings, "bbbb").write_text("{ not a report")
    assert [row["run"] for row in json.loads(runner.invoke(app, ["builds", "--json"]).stdout)] == ["aaaa11112222"]


def test_a_run_without_a_report_is_listed_from_its_parameters() -> None:
    row = row_of_run(
        {
            "id": "6a3c",
            "state_name": "Scheduled",
            "start_time": None,
            "parameters": {"request": {"image": "team/app", "repository_url": "u", "ref": "main"}},
        }
    )
    assert (row.run, row.state, row.image, row.started) == ("6a3c", "scheduled", "team/app", "")
    assert row_of_run({"id": "6a3c", "parameters": {"request": "what?"}}).image == ""


def test_logs_are_the_latest_builds_or_those_of_the_run_that_is_named_by_its_beginning(settings: Settings) -> None:
    keep(settings, "aaaa11112222", age=100, log="old\n")
    keep(settings, "abbb11112222", age=10, log="new without an end")
    assert runner.invoke(app, ["logs"]).stdout == "new without an end\n"
    assert runner.invoke(app, ["logs", "AAAA"]).stdout == "old\n"


@pytest.mark.parametrize(
    ("run", "says"),
    [
        ("../../etc/passwd", "is not the ID of a run"),
        ("aa*", "is not the ID of a run"),
        ("a", "is not the ID of a run"),
        ("ffff", "There is no build ffff"),
        ("aaaa", "2 builds begin with aaaa"),
    ],
)
def test_a_run_that_is_none_is_told(settings: Settings, run: str, says: str) -> None:
    keep(settings, "aaaa11112222", age=100)
    keep(settings, "aaaa33334444", age=10)
    result = runner.invoke(app, ["logs", run])
    assert (result.exit_code, result.stdout) == (1, "")
    assert says in result.stderr


def test_following_ends_when_the_build_has_ended_and_misses_no_line(settings: Settings) -> None:
    build_log = BuildLog(log_file(settings, "aaaa11112222"), [])
    build_log.line("first")

    def build() -> None:
        with build_log:
            for number in range(20):
                time.sleep(0.03)
                build_log.line(f"line {number}")
            build_log.flush()
            report_file(settings, "aaaa11112222").write_text("{}")

    thread = threading.Thread(target=build)
    thread.start()
    result = runner.invoke(app, ["logs", "--follow"])
    thread.join()
    assert result.exit_code == 0
    assert result.stdout.splitlines() == ["first", *(f"line {number}" for number in range(20))]


def test_following_a_build_whose_process_is_killed_ends_and_says_so(settings: Settings) -> None:
    log = log_file(settings, "aaaa11112222")
    code = (
        "import pathlib, sys, time; from caisson.buildlog import BuildLog\n"
        "log = BuildLog(pathlib.Path(sys.argv[1]), []); log.line('its last word'); log.flush(); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(log)], cwd=ROOT) as process:
        while not log.exists() or not log.read_text():
            time.sleep(0.02)
        killer = threading.Timer(0.7, process.kill)
        killer.start()
        began = time.monotonic()
        result = runner.invoke(app, ["logs", "--follow"])
        assert 0.5 < time.monotonic() - began < 5
    assert (result.exit_code, result.stdout) == (1, "its last word\n")
    assert "The build aaaa11112222 has ended without a report: its process was killed." in result.stderr
    # Who does not follow gets the log as it is.
    assert runner.invoke(app, ["logs"]).exit_code == 0
