"""How a build has ended, as one record in the log of its host's worker, which has the IDs of run and build."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any
from uuid import UUID

from caisson.build import report_file
from caisson.settings import Settings

logger = logging.getLogger("caisson.worker")


def log_end(settings: Settings, flow_run_id: UUID) -> None:
    """Tell how the build of a run has ended, by its report on this host; nothing where the run has made none."""
    try:
        report = json.loads(report_file(settings, str(flow_run_id)).read_bytes())
        words = ending(report)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        # Nothing that a file holds may end the worker.
        return
    known = {"flow_run_id": str(flow_run_id), "build_id": str(report.get("build_id") or "")}
    logger.info("Run %s: %s", flow_run_id, words, extra=known)


def ending(report: Mapping[str, Any]) -> str:
    """The end of a build in a few words.

    >>> ending({"image": "team/app", "outcome": "failed", "seconds": 3.25, "failure": {"kind": "out-of-memory"}})
    'the build of team/app is failed (out-of-memory) after 3.2 s'
    """
    kind = (report.get("failure") or {}).get("kind", "")
    because = f" ({kind})" if kind and kind != report["outcome"] else ""
    return f"the build of {report['image']} is {report['outcome']}{because} after {float(report['seconds']):.1f} s"
