"""The report's way out: a file on this host, and two artifacts of the flow run, for people and for other machines."""

from __future__ import annotations

import os
import time
from pathlib import Path

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import ArtifactCreate
from prefect.context import FlowRunContext
from prefect.exceptions import PrefectHTTPStatusError
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from caisson.build import Build, report_file
from caisson.report import BuildReport
from caisson.report_markdown import render_markdown, summary
from caisson.untrusted import markdown
from tasks.step import run_logger

REPORT_KEY = "build-report"
REPORT_DATA_KEY = "build-report-data"

_RETRY_DELAYS = (0.05, 0.1, 0.2, 0.4, 0.8)
_BUSY = 503


def publish_report(build: Build, report: BuildReport) -> None:
    """Write the report to its file and, within a flow run, to Prefect. A failure of either is logged, never raised.

    Called plainly and not as a task: it also runs while a cancel is under way, when no new task may start.
    """
    logger = run_logger()
    logger.info(summary(report))
    try:
        write_private(
            report_file(build.settings, report.flow_run_id or report.build_id), report.model_dump_json(indent=2)
        )
    except OSError as error:
        logger.warning(f"The report could not be written to this host ({error.strerror}).")
    context = FlowRunContext.get()
    if context is None or context.flow_run is None:
        return
    flow_run_id = context.flow_run.id
    artifacts = (
        ArtifactCreate(
            key=REPORT_KEY,
            type="markdown",
            # Prefect's pages show a description as markdown too.
            description=markdown(summary(report)),
            data=render_markdown(report),
            flow_run_id=flow_run_id,
        ),
        ArtifactCreate(
            key=REPORT_DATA_KEY,
            type="json",
            description="The same report for machines",
            data=report.model_dump(mode="json"),
            flow_run_id=flow_run_id,
        ),
    )
    try:
        # Prefect's own retries begin at 2 s: too long for a SQLite that was busy for some milliseconds.
        with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}):
            client = get_client(sync_client=True)
            for artifact in artifacts:
                _create(client, artifact)
    except Exception as error:
        logger.warning(build.log.redact(f"The report could not be shown in Prefect ({type(error).__name__}: {error})."))


def write_private(path: Path, text: str) -> None:
    """Replace the file in one go, readable by its owner only; raises ``OSError``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f"{path.name}.new")
    new.unlink(missing_ok=True)
    try:
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(text)
        new.replace(path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise


def _create(client: SyncPrefectClient, artifact: ArtifactCreate) -> None:
    for delay in _RETRY_DELAYS:
        try:
            client.create_artifact(artifact)
        except PrefectHTTPStatusError as error:
            if error.response.status_code != _BUSY:
                raise
            time.sleep(delay)
        else:
            return
    client.create_artifact(artifact)
