"""A host's builds and prunes as Prometheus metrics. Rendering is pure; the counters come from the ledger.

Names follow Prometheus's own rules (https://prometheus.io/docs/practices/naming/). The disks' are in
``caisson.disk_metrics``.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from prometheus_client import generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from caisson.disk_metrics import metrics_directory
from caisson.errors import all_failures
from caisson.ledger import Ledger, Prune
from caisson.ledger.counters import Count
from caisson.metric_counts import (
    BUCKETS,
    BUILDS,
    CACHE,
    DURATION,
    FAILURES,
    GUARD,
    INFINITE,
    STEP_DURATION,
)
from caisson.private_file import write_public
from caisson.prune_watch import succeeded
from caisson.settings import Settings

FILE_NAME = "caisson_builds.prom"
PRUNES = "caisson_prunes_total"
PRUNE_FREED = "caisson_prune_freed_bytes_total"
PRUNE_SUCCESS = "caisson_prune_last_success_timestamp_seconds"

COUNTERS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    BUILDS: ("Builds that have ended", ("outcome", "builder")),
    FAILURES: ("Builds that failed, by kind of failure", ("kind",)),
    CACHE: ("Steps of Dockerfiles, by whether the cache had them", ("cached",)),
    GUARD: ("Decisions of the guards of builders' sockets", ("verdict", "rule")),
    PRUNES: ("Prunes that have ended, dry runs left out", ("trigger", "outcome")),
    PRUNE_FREED: ("Bytes that prunes freed, as the file system measured it", ()),
}
HISTOGRAMS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    DURATION: ("How long builds took, from their start", ("outcome",)),
    STEP_DURATION: ("How long the steps of builds took", ("step",)),
}
GAUGES: Mapping[str, str] = {PRUNE_SUCCESS: "When a prune last succeeded; absent where none has"}
# `increase` does not see a series come into being: of one that begins with its first failure alerts would miss that.
ALWAYS: Mapping[str, tuple[tuple[str, ...], ...]] = {
    FAILURES: tuple((kind,) for kind in sorted(failure.kind for failure in all_failures()))
}
"""Values of labels that are told from the beginning, as 0."""


@dataclass(frozen=True)
class _Collected(Collector):
    families: Sequence[Metric]

    def collect(self) -> Iterator[Metric]:
        yield from self.families


def metrics_file(settings: Settings) -> Path:
    return metrics_directory(settings) / FILE_NAME


def render(families: Sequence[Metric]) -> str:
    """The text format, version 0.0.4."""
    return generate_latest(_Collected(families)).decode()


def write_metrics(settings: Settings, ledger: Ledger) -> None:
    """Replace the file in one go, for everybody to read. Raises ``OSError``, ``LedgerUnusable``."""
    write_public(metrics_file(settings), render(read_metrics(ledger)))


def read_metrics(ledger: Ledger) -> list[Metric]:
    """The metrics of a host now; raises ``LedgerUnusable``."""
    return metric_families(ledger.counters.list(), ledger.prunes.list())


def metric_families(counts: Iterable[Count], prunes: Sequence[Prune]) -> list[Metric]:
    """The metrics that these counters and prunes are; a counter that is not ours is left out."""
    values: defaultdict[str, list[Count]] = defaultdict(list)
    for count in (*counts, *_prune_counts(prunes)):
        values[count.name].append(count)
    families: list[Metric] = []
    for name, (meaning, labels) in COUNTERS.items():
        counter = CounterMetricFamily(name.removesuffix("_total"), meaning, labels=labels)
        found = dict.fromkeys(ALWAYS.get(name, ()), 0.0)
        found |= {tuple(count.labels.get(label, "") for label in labels): count.value for count in values[name]}
        for key, value in found.items():
            counter.add_metric(key, value)
        families.append(counter)
    for name, (meaning, labels) in HISTOGRAMS.items():
        families.append(_histogram(name, meaning, labels, values[f"{name}_bucket"], values[f"{name}_sum"]))
    successes = [prune.ended.timestamp() for prune in prunes if prune.ended is not None and succeeded(prune)]
    gauge = GaugeMetricFamily(PRUNE_SUCCESS, GAUGES[PRUNE_SUCCESS])
    if successes:
        gauge.add_metric([], max(successes))
    families.append(gauge)
    return families


def _prune_counts(prunes: Sequence[Prune]) -> Iterator[Count]:
    ended = [prune for prune in prunes if prune.ended is not None]
    for (trigger, outcome), number in sorted(Counter((prune.trigger, prune.outcome) for prune in ended).items()):
        yield Count(PRUNES, {"trigger": trigger, "outcome": outcome}, number)
    yield Count(PRUNE_FREED, {}, sum(max(0, prune.freed_bytes) for prune in ended))


def _histogram(
    name: str, meaning: str, labels: tuple[str, ...], buckets: Sequence[Count], sums: Sequence[Count]
) -> Metric:
    family = HistogramMetricFamily(name, meaning, labels=labels)
    found: defaultdict[tuple[str, ...], dict[str, float]] = defaultdict(dict)
    for count in buckets:
        found[tuple(count.labels.get(label, "") for label in labels)][count.labels.get("le", "")] = count.value
    total = {tuple(count.labels.get(label, "") for label in labels): count.value for count in sums}
    for key, own in found.items():
        cumulated, rows = 0.0, []
        for bound in (*(f"{bound:g}" for bound in BUCKETS), INFINITE):
            cumulated += own.get(bound, 0)
            rows.append((bound, cumulated))
        family.add_metric(list(key), rows, sum_value=total.get(key, 0))
    return family
