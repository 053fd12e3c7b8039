"""Plans and reports of prunes as files in the state directory: for machines, and for ``caisson prune --apply``."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from caisson.private_file import write_private
from caisson.prune_report import PruneReport, report_to_json
from caisson.retention.plan_json import plan_to_json
from caisson.retention.prune_plan import PrunePlan

MOST_RUNS = 100
MOST_BYTES = 64 << 20
"""A plan of 10,000 images takes some 5 MB, on what may be the disk that is full."""

_PLAN, _REPORT = ".plan.json", ".report.json"


def prunes_directory(state_dir: Path) -> Path:
    return state_dir / "prunes"


def plan_file(state_dir: Path, run: str, number: int = 1) -> Path:
    """Where a plan of a run is kept; ``run`` is the flow run's ID, ``number`` the plan's in the run, from 1."""
    return prunes_directory(state_dir) / f"{run}{f'.{number}' if number > 1 else ''}{_PLAN}"


def report_file(state_dir: Path, run: str) -> Path:
    """Where the report of a run is kept."""
    return prunes_directory(state_dir) / f"{run}{_REPORT}"


def write_plan(state_dir: Path, run: str, plan: PrunePlan, number: int = 1) -> Path:
    """Keep a plan, and drop old ones; raises ``OSError``."""
    path = plan_file(state_dir, run, number)
    write_private(path, plan_to_json(plan))
    _drop_old(path.parent)
    return path


def write_report(state_dir: Path, run: str, report: PruneReport) -> Path:
    """Keep a report, and drop old ones; raises ``OSError``."""
    path = report_file(state_dir, run)
    write_private(path, report_to_json(report))
    _drop_old(path.parent)
    return path


def _drop_old(directory: Path) -> None:
    files = [path for path in directory.iterdir() if path.name.endswith((_PLAN, _REPORT))]
    seen = [(path.name.partition(".")[0], path.stat().st_mtime_ns, path.stat().st_size) for path in files]
    kept = runs_to_keep(seen)
    for path in files:
        if path.name.partition(".")[0] not in kept:
            path.unlink(missing_ok=True)


def runs_to_keep(files: Iterable[tuple[str, int, int]]) -> set[str]:
    """The newest runs that fit into the bounds, and the newest in any case. Pure.

    ``files`` are those of all runs: run, when it was written, bytes.

    >>> sorted(runs_to_keep([("a", 1, 40 << 20), ("b", 2, 40 << 20), ("b", 3, 1 << 20)]))
    ['b']
    """
    times: dict[str, int] = {}
    sizes: dict[str, int] = {}
    for run, written, size in files:
        times[run] = max(written, times.get(run, 0))
        sizes[run] = size + sizes.get(run, 0)
    kept: set[str] = set()
    total = 0
    for run in sorted(times, key=lambda name: (-times[name], name))[:MOST_RUNS]:
        total += sizes[run]
        if kept and total > MOST_BYTES:
            break
        kept.add(run)
    return kept
