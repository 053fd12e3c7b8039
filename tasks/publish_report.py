"""The report's way out: a file on this host, and two artifacts of the flow run, for people and for other machines."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import copy_context
from datetime import UTC, datetime
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import ArtifactCreate
from prefect.context import FlowRunContext

from caisson.build import Build, report_file
from caisson.errors import LedgerUnusable
from caisson.ledger import Ledger
from caisson.metric_counts import build_counts
from caisson.private_file import write_private
from caisson.redact import Redactor
from caisson.report import REPORT_DATA_KEY, REPORT_KEY, BuildReport
from caisson.report_markdown import render_markdown, summary
from caisson.request import BuildRequest
from caisson.settings import Settings
from caisson.unbegun import report_unbegun
from caisson.untrusted import markdown
from tasks.export_trace import export_trace
from tasks.step import run_logger

_MOST_SECONDS = 10.0
_MOST_SECONDS_OF_A_CANCELLED = 3.0
"""Prefect's client tries for 62 s to reach a dead API; a cancelled run is killed after 6 s."""


def publish_report(build: Build, report: BuildReport) -> None:
    """Write the report to its file and, within a flow run, to Prefect. A failure of either is logged, never raised.

    Called plainly and not as a task: it also runs while a cancel is under way, when no new task may start.
    """
    _publish(report, build.settings, build.ledger, build.log.redact)


@contextmanager
def reports_unbegun(request: BuildRequest, settings: Settings | None, flow_run_id: str) -> Iterator[None]:
    """While this is open no build has begun: what fails in it gets a report of its own, published in the same way.

    Without ``settings``, since they can't be read, there is no directory for its file.
    """
    started, clock = datetime.now(UTC), time.monotonic()
    try:
        yield
    except BaseException as error:
        report = report_unbegun(
            request,
            error,
            host=settings.host_name if settings else os.uname().nodename,
            flow_run_id=flow_run_id,
            started=started,
            seconds=time.monotonic() - clock,
        )
        redactor = Redactor([settings.registry_password] if settings else [])
        _publish(report, settings, None, redactor.redact)
        raise


def _publish(
    report: BuildReport, settings: Settings | None, ledger: Ledger | None, redact: Callable[[str], str]
) -> None:
    logger = run_logger()
    logger.info(summary(report))
    if settings is not None:
        _keep(report, settings, ledger)
    context = FlowRunContext.get()
    if context is not None and context.flow_run is not None:
        try:
            most = _MOST_SECONDS_OF_A_CANCELLED if report.outcome == "cancelled" else _MOST_SECONDS
            _create(_artifacts(report, context.flow_run.id), most_seconds=most)
        except Exception as error:
            logger.warning(redact(f"The report could not be shown in Prefect ({type(error).__name__}: {error})."))
    if settings is not None:
        export_trace(report, settings)


def _keep(report: BuildReport, settings: Settings, ledger: Ledger | None) -> None:
    logger = run_logger()
    file = report_file(settings, report.flow_run_id or report.build_id)
    try:
        write_private(file, report.model_dump_json(indent=2))
    except OSError as error:
        logger.warning(f"The report could not be written to {file} ({error.strerror}).")
    try:
        (ledger or Ledger(settings.state_dir / "ledger.sqlite")).counters.add(build_counts(report))
    except LedgerUnusable as error:
        logger.warning(f"The build is not in the metrics: {error}")


def _artifacts(report: BuildReport, flow_run_id: UUID) -> tuple[ArtifactCreate, ...]:
    # In this order: Prefect's pages show the newest first.
    return (
        ArtifactCreate(
            key=REPORT_DATA_KEY,
            type="json",
            description="The same report, for machines.",
            data=report.model_dump(mode="json"),
            flow_run_id=flow_run_id,
        ),
        ArtifactCreate(
            key=REPORT_KEY,
            type="markdown",
            # Prefect's pages show a description as markdown too.
            description=markdown(summary(report)),
            data=render_markdown(report),
            flow_run_id=flow_run_id,
        ),
    )


def _create(artifacts: Sequence[ArtifactCreate], *, most_seconds: float) -> None:
    """Create them in Prefect; raises what went wrong, or ``TimeoutError`` for an API that does not answer in time."""
    failures: list[Exception] = []

    def work() -> None:
        try:
            client = get_client(sync_client=True)
            for artifact in artifacts:
                client.create_artifact(artifact)
        except Exception as error:
            failures.append(error)

    # A thread, since a call in this one can't be given up; with this context, for the run's client and settings.
    thread = threading.Thread(target=copy_context().run, args=(work,), name="publish-report", daemon=True)
    thread.start()
    thread.join(most_seconds)
    if thread.is_alive():
        raise TimeoutError(f"the API did not answer within {most_seconds:g} s")
    if failures:
        raise failures[0]
