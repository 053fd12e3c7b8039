"""The disks as a page: tables and the picture, for Prefect's artifacts. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from caisson.disk_attribution import Attribution
from caisson.disk_limits import describe_missing
from caisson.disk_report import DiskReport, FileSystemReport
from caisson.markdown_table import markdown_table
from caisson.pressure import LEVELS
from caisson.sizes import format_size
from caisson.untrusted import clean, markdown

_MARKS = {"normal": "ok", "high": "**high**", "critical": "**CRITICAL**"}
_MOST_ROWS = 15


def disk_summary(report: DiskReport) -> str:
    """One line: the worst file system's."""
    item = max(report.file_systems, key=lambda item: (LEVELS.index(item.level), item.bytes.used_share), default=None)
    return item.summary if item is not None else "no file system"


def disk_markdown(report: DiskReport, picture: str) -> str:
    """The page; ``picture`` is a data URI, empty where there is none yet."""
    lines = [f"# Docker's disk on {markdown(report.host)}", "", f"As of {report.at:%Y-%m-%d %H:%M:%S} UTC.", ""]
    if picture:
        lines += [f"![Share of the disk in use]({picture})", ""]
    head = ("File system", "Holds", "State", "In use", "Free", "Inodes", "Forecast")
    lines.append(markdown_table(head, [_row(item) for item in report.file_systems]))
    if report.attribution is not None:
        lines += ["", *_attribution(report.attribution)]
    return "\n".join(lines) + "\n"


def _row(item: FileSystemReport) -> list[str]:
    since = f" since {item.since:%a %H:%M} UTC" if item.since is not None and item.level != "normal" else ""
    missing = item.bytes.missing, item.inodes.missing if item.inodes is not None else 0
    wanted = f"; {describe_missing(*missing)} to be freed" if any(missing) and item.level != "normal" else ""
    inodes = f"{item.inodes.used_share:.0%} of {item.inodes.total:,}" if item.inodes is not None else "no limit"
    told = item.bytes.forecast
    if item.inodes is not None and item.inodes.full_in_seconds is not None:
        told += f"; inodes {item.inodes.forecast}"
    return [
        _code(item.path),
        ", ".join(item.holds),
        f"{_MARKS[item.level]}{since}{wanted}",
        f"{item.bytes.used_share:.0%} of {format_size(item.bytes.total)}",
        format_size(item.bytes.free),
        inodes,
        told,
    ]


def _attribution(found: Attribution) -> Iterator[str]:
    yield f"## What holds it (as of {found.at:%Y-%m-%d %H:%M} UTC)"
    yield ""
    yield from (f"- {markdown(clean(words))}" for words in found.unknown)
    yield ""
    yield from _table(
        ("Repository", "Images", "Only it holds", "Shared with others"),
        [
            (_code(item.name), f"{item.images}", format_size(item.exclusive), format_size(item.shared))
            for item in found.repositories
        ],
    )
    yield from _table(
        ("Build cache", "Records", "Bytes", "In use"),
        [
            (_code(item.type), f"{item.records}", format_size(item.size), format_size(item.in_use))
            for item in found.build_cache
        ],
    )
    yield from _table(
        ("Container", "State", "Writable layer", "Logs"),
        [
            (
                _code(item.name),
                markdown(item.state),
                format_size(item.writable),
                "not seen from here" if item.logs is None else format_size(item.logs),
            )
            for item in found.containers
        ],
    )
    yield from _table(
        ("Volume", "Containers", "Bytes"),
        [
            (_code(item.name), f"{item.users}", "unknown" if item.size is None else format_size(item.size))
            for item in found.volumes
        ],
    )
    others = "unknown" if found.not_docker is None else format_size(found.not_docker)
    yield (
        f"All images {format_size(found.images)}, of it {format_size(found.shared_layers)} in layers that several "
        f"repositories hold. In use on that disk without Docker's accounting for it: {others}."
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    if not rows:
        return
    more = [f"and {len(rows) - _MOST_ROWS} more", *[""] * (len(head) - 1)] if len(rows) > _MOST_ROWS else []
    yield markdown_table(head, [*rows[:_MOST_ROWS], *([more] if more else [])])
    yield ""


def _code(text: str) -> str:
    return markdown(clean(text)[:80])
