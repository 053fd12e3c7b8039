"""``caisson builds`` and ``caisson logs``: what was built, from Prefect where it runs and from this host's files."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import typer
from pydantic import ValidationError

from caisson.build import log_file, report_file
from caisson.buildlog import is_being_written
from caisson.errors import CaissonError, ServiceUnreachable
from caisson.report import REPORT_DATA_KEY, BuildReport
from caisson.report_picture import format_seconds
from caisson.settings import Settings
from caisson.untrusted import clean, shorten
from deployments.cli_remote import failure_of_state, is_worth_showing
from deployments.cli_service import find_api
from deployments.cli_table import table_lines
from deployments.cli_view import printable
from deployments.names import BUILD_FLOW
from deployments.prefect_api import PrefectApi
from deployments.queue_places import places
from deployments.trigger import FINAL, FlowRunId, LogLine, follow

_RUN = re.compile(r"[0-9a-f][0-9a-f-]{3,35}")
_MOST_RUNS = 200
_POLL_SECONDS = 0.2


@dataclass(frozen=True)
class BuildRow:
    """One build in the list; ``state`` is a report's outcome, or Prefect's name of the state before there is one."""

    run: str
    state: str
    image: str
    repository_url: str
    ref: str = ""
    sha: str = ""
    started: str = ""
    seconds: float = 0
    failure: str = ""
    host: str = ""
    place: str = ""
    """Why it waits, while it does."""


def list_builds(settings: Settings, *, limit: int) -> list[BuildRow]:
    """The latest builds, the newest first: Prefect's runs, and this host's builds without Prefect."""
    rows = [row_of_report(report) for report in _reports(settings, limit) if not report.flow_run_id]
    api = find_api(settings, say=_say)
    if api is None:
        rows = [row_of_report(report) for report in _reports(settings, limit)]
    else:
        with api:
            rows += _with_places(api, settings, _runs(api, limit))
    # A run that has not started yet is the newest of all.
    return sorted(rows, key=lambda row: (not row.started, row.started), reverse=True)[:limit]


def _with_places(api: PrefectApi, settings: Settings, rows: list[BuildRow]) -> list[BuildRow]:
    if all(row.started for row in rows):
        return rows
    reasons = {str(place.flow_run_id): place.reason for place in places(api, settings)}
    return [replace(row, place=reasons.get(row.run, "")) for row in rows]


def _say(text: str) -> None:
    typer.echo(text, err=True)


def row_of_report(report: BuildReport) -> BuildRow:
    """The row of a build whose report is there."""
    return BuildRow(
        run=report.flow_run_id or report.build_id,
        state=report.outcome,
        image=report.image,
        repository_url=report.repository_url,
        ref=report.ref,
        sha=report.sha,
        started=report.started.astimezone(UTC).isoformat(timespec="seconds"),
        seconds=report.seconds,
        failure=str((report.failure or {}).get("kind", "")),
        host=report.host,
    )


def row_of_run(run: Mapping[str, Any]) -> BuildRow:
    """The row of a flow run as Prefect's API tells of it, with what its parameters say."""
    request = (run.get("parameters") or {}).get("request")
    request = request if isinstance(request, dict) else {}
    started = run.get("start_time")
    state = run.get("state") or {}
    ended = state.get("type") in FINAL - {"COMPLETED"}
    failure = failure_of_state(str(run["id"]), state["type"], str(state.get("message") or "")) if ended else None
    return BuildRow(
        run=str(run["id"]),
        state=str(run.get("state_name") or "").lower(),
        image=str(request.get("image", "")),
        repository_url=str(request.get("repository_url", "")),
        ref=str(request.get("ref", "")),
        started=datetime.fromisoformat(started).astimezone(UTC).isoformat(timespec="seconds") if started else "",
        seconds=float(run.get("total_run_time") or 0),
        failure=failure.kind if failure else "",
    )


def _runs(api: PrefectApi, limit: int) -> list[BuildRow]:
    runs = _flow_runs(api, limit)
    wanted = {"key": {"any_": [REPORT_DATA_KEY]}, "flow_run_id": {"any_": [run["id"] for run in runs]}}
    artifacts = api.post("/artifacts/filter", {"artifacts": wanted, "limit": _MOST_RUNS}) if runs else []
    reports = {str(item["flow_run_id"]): item.get("data") for item in artifacts}
    return [_row(run, reports.get(str(run["id"]))) for run in runs]


def _flow_runs(api: PrefectApi, limit: int) -> list[dict[str, Any]]:
    runs: list[dict[str, Any]] = api.post(
        "/flow_runs/filter",
        {
            "flows": {"name": {"any_": [BUILD_FLOW]}},
            "sort": "EXPECTED_START_TIME_DESC",
            "limit": min(limit, _MOST_RUNS),
        },
    )
    return runs


def _row(run: Mapping[str, Any], report: Any) -> BuildRow:
    try:
        parsed = (
            BuildReport.model_validate_json(report) if isinstance(report, str) else BuildReport.model_validate(report)
        )
    except ValidationError:
        return row_of_run(run)
    return row_of_report(parsed)


def _reports(settings: Settings, limit: int) -> Iterator[BuildReport]:
    """Reports in this host's files, the newest first; what can't be read is left out."""
    try:
        files = sorted(
            report_file(settings, "x").parent.glob("*.json"), key=lambda file: file.stat().st_mtime, reverse=True
        )
    except OSError:
        return
    for file in files[:limit]:
        try:
            yield BuildReport.model_validate_json(file.read_bytes())
        except (OSError, ValidationError):
            continue


def print_builds(rows: Iterable[BuildRow], *, as_json: bool) -> None:
    """The list as a table, or as one JSON document."""
    rows = list(rows)
    if as_json:
        typer.echo(json.dumps([asdict(row) for row in rows], indent=2, ensure_ascii=False))
        return
    if not rows:
        typer.echo("No builds yet. Try `caisson build --help`.")
        return
    header = ("RUN", "STATE", "IMAGE", "REF", "COMMIT", "STARTED (UTC)", "TOOK")
    for line in table_lines(header, map(_cells, rows)):
        typer.echo(line)


def _cells(row: BuildRow) -> tuple[str, ...]:
    return (
        row.run[:12],
        shorten(
            f"{row.place or row.state}{f' ({row.failure})' if row.failure and row.failure != row.state else ''}", 44
        ),
        shorten(clean(row.image), 50),
        shorten(clean(row.ref), 24) or "-",
        row.sha[:7] or "-",
        row.started[:19].replace("T", " ") or "-",
        format_seconds(row.seconds) if row.seconds else "-",
    )


def print_log(settings: Settings, run: str, *, follow_it: bool) -> None:
    """The log of one build, from this host's file, else over the API; raises ``CaissonError`` when there is none."""
    if run and not _RUN.fullmatch(run):
        raise CaissonError(
            f"{run[:60]!r} is not the ID of a run.", hint="`caisson builds` lists them; the first 4 characters do."
        )
    file = _find_file(settings, run)
    if file is not None:
        _print_file(settings, file, follow_it=follow_it)
        return
    api = find_api(settings, say=_say)
    if api is None:
        raise _unknown(run)
    with api:
        _print_run(api, _find_run(api, run), follow_it=follow_it)


def _unknown(run: str) -> CaissonError:
    if not run:
        return CaissonError("There are no builds on this host yet.", hint="Try `caisson build --help`.")
    return CaissonError(f"There is no build {run}.", hint="`caisson builds` lists them.")


def _find_file(settings: Settings, run: str) -> Path | None:
    """The log whose name begins so, or the newest; None where there is none on this host."""
    try:
        files = sorted(log_file(settings, "x").parent.glob("*.log"), key=lambda file: file.stat().st_mtime)
    except OSError:
        return None
    if not run:
        return files[-1] if files else None
    found = [file for file in files if file.stem.startswith(run)]
    if len(found) > 1:
        raise _ambiguous(run, [file.stem for file in found])
    return found[0] if found else None


def _find_run(api: PrefectApi, run: str) -> FlowRunId:
    if len(run) == 36:
        try:
            return FlowRunId(api.get(f"/flow_runs/{run}")["id"])
        except ServiceUnreachable as error:
            if error.details.get("status") in (404, 422):
                raise _unknown(run) from None
            raise
    found = [item["id"] for item in _flow_runs(api, _MOST_RUNS) if str(item["id"]).startswith(run)]
    if not found:
        raise _unknown(run)
    if run and len(found) > 1:
        raise _ambiguous(run, found)
    return FlowRunId(found[0])


def _ambiguous(run: str, found: list[str]) -> CaissonError:
    return CaissonError(f"{len(found)} builds begin with {run}.", hint=f"Say which: {', '.join(found[:5])}.")


def _print_file(settings: Settings, file: Path, *, follow_it: bool) -> None:
    finished = report_file(settings, file.stem)
    rounds_without_a_writer = 0
    with file.open(encoding="utf-8", errors="replace") as log:
        while True:
            # Asked before reading, the writer first: whatever it wrote before its end is then read.
            rounds_without_a_writer = 0 if is_being_written(file) else rounds_without_a_writer + 1
            ended = finished.exists()
            # Not in the first round: a log is there a moment before it is locked.
            over = not follow_it or ended or rounds_without_a_writer > 1
            rest = ""
            for line in log:
                rest = line
                _write(line)
            if over:
                _write("" if not rest or rest.endswith("\n") else "\n")
                if follow_it and not ended:
                    raise CaissonError(
                        f"The build {file.stem} has ended without a report: its process was killed.",
                        hint="Start the build again; `caisson builds` lists how runs ended.",
                    )
                return
            sys.stdout.flush()
            time.sleep(_POLL_SECONDS)


def _write(text: str) -> None:
    # A terminal obeys what is in it; a file or a pipe gets the log as it is.
    sys.stdout.write(printable(text) if sys.stdout.isatty() else text)


class _OneRoundIsEnough(Exception):
    """Ends the following of a run whose log is wanted as of now."""


def _print_run(api: PrefectApi, run: FlowRunId, *, follow_it: bool) -> None:
    def stop(_: float) -> None:
        raise _OneRoundIsEnough

    try:
        for event in follow(api, run, sleep=time.sleep if follow_it else stop):
            if isinstance(event, LogLine) and is_worth_showing(event):
                _write(f"{event.message}\n")
                sys.stdout.flush()
    except _OneRoundIsEnough:
        return
