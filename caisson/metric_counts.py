"""What a build adds to the counters of its host. Pure.

A histogram is kept as one counter for each of its buckets, not cumulated, and one for its sum: an observation is two
rows, and ``caisson.metrics`` cumulates them when somebody asks.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator

from caisson.ledger.counters import Count
from caisson.report import BuildReport

BUILDS = "caisson_builds_total"
FAILURES = "caisson_build_failures_total"
CACHE = "caisson_build_dockerfile_steps_total"
GUARD = "caisson_guard_decisions_total"
DURATION = "caisson_build_duration_seconds"
STEP_DURATION = "caisson_build_step_duration_seconds"

BUCKETS = (0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600)
"""Upper bounds in seconds, inclusive (Prometheus: ``le``)."""
INFINITE = "+Inf"


def build_counts(report: BuildReport) -> list[Count]:
    """The counters that one build raises, whatever its end."""
    counts = [
        Count(BUILDS, {"outcome": report.outcome, "builder": report.builder or "none"}),
        *_observe(DURATION, report.seconds, outcome=report.outcome),
    ]
    if report.failure is not None and report.outcome == "failed":
        counts.append(Count(FAILURES, {"kind": str(report.failure.get("kind", "error"))}))
    for step in report.steps:
        if step.state != "skipped":
            counts += _observe(STEP_DURATION, step.seconds, step=step.name)
    for is_cached, number in ((True, report.cache_hits), (False, report.cache_misses)):
        if number:
            counts.append(Count(CACHE, {"cached": str(is_cached).lower()}, number))
    if report.guard is not None:
        counts += [
            Count(GUARD, {"verdict": decided.verdict, "rule": decided.rule}, decided.count)
            for decided in report.guard.counts
        ]
    return counts


def _observe(name: str, seconds: float, **labels: str) -> Iterator[Count]:
    index = bisect_left(BUCKETS, seconds)
    bound = f"{BUCKETS[index]:g}" if index < len(BUCKETS) else INFINITE
    yield Count(f"{name}_bucket", {**labels, "le": bound})
    yield Count(f"{name}_sum", labels, max(seconds, 0))
