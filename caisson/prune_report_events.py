"""The events of a prune that was applied. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from caisson.prune_events import EventName, PruneEvent, prune_event
from caisson.prune_report import PruneReport
from caisson.prune_report_markdown import report_summary
from caisson.sizes import format_size

_RULES_TOLD = 5


def report_events(host: str, report: PruneReport) -> Iterator[PruneEvent]:
    """The events of a prune that was applied: finished or failed, and whether the low threshold was missed."""
    path = report.usage_after.path
    payload = {
        "host": host,
        "path": path,
        "prune": report.id,
        "trigger": report.trigger,
        "ending": report.ending,
        "removed": report.counts.get("removed", 0),
        "planned": len(report.results),
        "rounds": len(report.more_rounds) + 1,
        "freed_bytes": report.freed_bytes,
        "freed_inodes": report.freed_inodes,
        "seconds": round((report.ended - report.started).total_seconds(), 3),
        "problem": report.problem,
    }
    name: EventName = "caisson.prune.failed" if report.problem else "caisson.prune.finished"
    words = "has failed" if report.problem else "is done"
    yield prune_event(name, f"A prune of {host} {words}. {report_summary(report)}", path, payload)
    if report.ending == "short":
        held = dict(sorted(report.kept_bytes.items(), key=lambda pair: (-pair[1], pair[0])))
        told = ", ".join(f"{rule} {format_size(size)}" for rule, size in list(held.items())[:_RULES_TOLD])
        message = (
            f"A prune of {host} could not reach the low threshold of {path}: {report.shortfall} are missing. "
            f"Images that stay hold, by rule: {told or 'nothing'}."
        )
        yield prune_event("caisson.prune.short", message, path, {**payload, "kept_bytes": held})
