"""How a build ended, as the command line tells it: one value, its summary, its document, its exit code. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from caisson.engine import short_id
from caisson.report import BuildReport, LimitsReport
from caisson.report_markdown import summary
from caisson.sizes import format_size
from caisson.untrusted import clean


@dataclass(frozen=True)
class Ended:
    """What is left of a build when the command ends.

    ``report`` is there where the build had begun and its report can be had; ``failure`` is a ``CaissonError`` as
    ``to_dict`` gives it. ``run`` is the flow run's ID and ``url`` its page, empty for a build in this process.
    """

    report: BuildReport | None = None
    failure: Mapping[str, Any] | None = None
    run: str = ""
    url: str = ""

    @property
    def exit_code(self) -> int:
        return int(self.failure["exit_code"]) if self.failure else 0

    def to_json(self) -> str:
        """The one document of ``--json``."""
        if self.report is not None:
            return self.report.model_dump_json(indent=2)
        return json.dumps({"flow_run_id": self.run, "url": self.url, "failure": self.failure}, indent=2)


def summary_lines(ended: Ended) -> Iterator[str]:
    """The end of a build for people, line by line, without anything that a terminal would obey."""
    report = ended.report
    if report is None:
        yield f"Run {ended.run}"
        yield from _rows([("page", ended.url), ("log", f"caisson logs {ended.run} --follow")])
        return
    yield summary(report)
    tags = [
        f"{tag.reference}{f'  (was {short_id(tag.previous)})' if tag.previous else ''}"
        + (f"  {tag.digest}" if tag.digest else "")
        for tag in report.tags
    ]
    rows = [
        ("image", report.image_id),
        ("commit", f"{report.sha}{f'  ({report.ref})' if report.ref else ''}"),
        *(("tags" if index == 0 else "", tag) for index, tag in enumerate(tags)),
        ("size", _size(report)),
        ("limits", _limits(report.limits)),
        ("cache", _cache(report)),
        *(("note", note) for note in report.notes),
        ("log", report.log_file),
        ("page", ended.url),
    ]
    yield from _rows(rows)


def _rows(rows: list[tuple[str, str]]) -> Iterator[str]:
    for label, value in rows:
        if value:
            yield f"  {label:<7} {clean(value)}"


def _size(report: BuildReport) -> str:
    if not report.size:
        return ""
    least = "" if report.new_bytes_exact else "at least "
    return f"{format_size(report.size)}, {least}{format_size(report.new_bytes)} of it new to this host"


def _limits(limits: LimitsReport | None) -> str:
    if limits is None:
        return ""
    values = [
        f"{format_size(limits.memory)} memory" if limits.memory else "",
        f"{limits.cpus:g} cpus" if limits.cpus else "",
        f"{limits.pids} processes" if limits.pids else "",
    ]
    held = ", ".join(filter(None, values))
    return f"{limits.status}{f' ({held})' if held else ''}: {limits.reason}"


def _cache(report: BuildReport) -> str:
    if not report.dockerfile_steps:
        return ""
    return f"{report.cache_hits} of {len(report.dockerfile_steps)} steps from the cache"
