"""How a build has ended, as one record in the log of its host's worker, which has the IDs of run and build."""

from __future__ import annotations

import logging
from uuid import UUID

from caisson.build import report_file
from caisson.report import BuildReport
from caisson.settings import Settings

logger = logging.getLogger("caisson.worker")


def log_end(settings: Settings, flow_run_id: UUID) -> None:
    """Tell how the build of a run has ended, by its report on this host; nothing where the run has made none."""
    try:
        report = BuildReport.model_validate_json(report_file(settings, str(flow_run_id)).read_bytes())
    except (OSError, ValueError):
        # Nothing that a file holds may end the worker.
        return
    known = {"flow_run_id": str(flow_run_id), "build_id": report.build_id}
    logger.info("Run %s: %s", flow_run_id, _ending(report), extra=known)


def _ending(report: BuildReport) -> str:
    kind = (report.failure or {}).get("kind", "")
    because = f" ({kind})" if kind and kind != report.outcome else ""
    return f"the build of {report.image} is {report.outcome}{because} after {report.seconds:.1f} s"
