"""What the processes of runs print: a file for each that dies before it can log; for a collector, JSON in one file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

from deployments.logs import open_log
from deployments.state import StateDir

KEEP_OUTPUTS = 20


@dataclass(frozen=True)
class RunOutputs:
    """By ``log_format``: with text a file of each run, which goes when the run has said itself how it ended; with JSON
    one file of all, whose lines say which run they are of."""

    state: StateDir
    log_format: Literal["text", "json"]

    def path(self, flow_run_id: str) -> Path:
        if self.log_format == "json":
            return self.state.logs / "runs.log"
        return self.state.runs / f"{flow_run_id}.log"

    def open(self, flow_run_id: str) -> IO[bytes]:
        """To append to, for a run that begins."""
        return open_log(self.path(flow_run_id))

    def concluded(self, flow_run_id: str) -> None:
        """The run said all that there is to say: what only it has printed is not needed."""
        if self.log_format == "text":
            self.path(flow_run_id).unlink(missing_ok=True)

    def prune(self) -> None:
        """Remove what single runs printed, but for the newest few."""
        outputs = sorted(self.state.runs.glob("*.log"), key=lambda path: path.stat().st_mtime, reverse=True)
        for path in outputs[KEEP_OUTPUTS:]:
            path.unlink(missing_ok=True)
