"""The disks as Prometheus metrics: a text file for node_exporter's textfile collector. Rendering is pure.

Names follow Prometheus's own rules: base units, a unit as suffix, and for a file system's bytes the words of
node_exporter (``node_filesystem_avail_bytes``).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from caisson.disk_report import DiskReport, FileSystemReport
from caisson.pressure import LEVELS
from caisson.private_file import write_public
from caisson.settings import Settings

FILE_NAME = "caisson_disk.prom"
METRICS = {
    "caisson_disk_size_bytes": "Bytes that unprivileged users can fill",
    "caisson_disk_avail_bytes": "Bytes that unprivileged users have left",
    "caisson_disk_files": "Inodes in all, 0 without a fixed number",
    "caisson_disk_files_free": "Inodes left",
    "caisson_disk_pressure": "1 for the present level of pressure, 0 for the others",
    "caisson_disk_missing_bytes": "Bytes to be freed until pressure would be over",
    "caisson_disk_missing_files": "Inodes to be freed until pressure would be over",
    "caisson_disk_growth_bytes_per_day": "Growth by the forecast; absent where it can't be told",
    "caisson_disk_full_seconds": "Time until the disk is full by the forecast; absent where it can't be told",
    "caisson_disk_last_look_timestamp_seconds": "When the disks were last looked at",
}


def metrics_directory(settings: Settings) -> Path:
    """Where node_exporter's textfile collector finds this host's metrics."""
    return Path(settings.metrics_dir) if settings.metrics_dir else settings.state_dir / "metrics"


def metrics_file(settings: Settings) -> Path:
    return metrics_directory(settings) / FILE_NAME


def render_metrics(report: DiskReport) -> str:
    """The text format, version 0.0.4; metrics without a value are left out."""
    rows: dict[str, list[str]] = {name: [] for name in METRICS}
    for item in report.file_systems:
        for name, labels, value in _values(item):
            rows[name].append(f"{name}{{{_labels(path=item.path, **labels)}}} {value!r}")
    rows["caisson_disk_last_look_timestamp_seconds"].append(
        f"caisson_disk_last_look_timestamp_seconds {report.at.timestamp():.3f}"
    )
    lines = []
    for name, found in rows.items():
        if found:
            lines += [f"# HELP {name} {METRICS[name]}", f"# TYPE {name} gauge", *found]
    return "\n".join(lines) + "\n"


def write_metrics(settings: Settings, report: DiskReport) -> None:
    """Replace the file in one go, for everybody to read: node_exporter is another user. Raises ``OSError``."""
    # node_exporter reads every *.prom; half a file never has that name.
    write_public(metrics_file(settings), render_metrics(report))


def _values(item: FileSystemReport) -> Iterator[tuple[str, dict[str, str], float]]:
    yield "caisson_disk_size_bytes", {}, item.bytes.total
    yield "caisson_disk_avail_bytes", {}, item.bytes.free
    yield "caisson_disk_missing_bytes", {}, item.bytes.missing
    if item.inodes is not None:
        yield "caisson_disk_files", {}, item.inodes.total
        yield "caisson_disk_files_free", {}, item.inodes.free
        yield "caisson_disk_missing_files", {}, item.inodes.missing
    for level in LEVELS:
        yield "caisson_disk_pressure", {"level": level}, int(level == item.level)
    if item.bytes.growth_per_day is not None:
        yield "caisson_disk_growth_bytes_per_day", {}, item.bytes.growth_per_day
    for resource, report in (("bytes", item.bytes), ("inodes", item.inodes)):
        if report is not None and report.full_in_seconds is not None:
            yield "caisson_disk_full_seconds", {"resource": resource}, report.full_in_seconds


def _labels(**labels: str) -> str:
    return ",".join(f'{name}="{_escape(value)}"' for name, value in labels.items())


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
