"""The queue as Prometheus metrics: builds that wait and that run, by work queue. Only counting, by Prefect's word."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from prometheus_client.core import GaugeMetricFamily, Metric

from caisson.errors import ServiceUnreachable
from deployments.prefect_api import PrefectApi
from deployments.queued import build_runs

WAITING = "caisson_queue_waiting"
RUNNING = "caisson_queue_running"
OLDEST = "caisson_queue_oldest_seconds"
PREFECT_UP = "caisson_prefect_up"
GAUGES: Mapping[str, str] = {
    WAITING: "Builds that wait in a work queue",
    RUNNING: "Builds of a work queue that run, or are being started or cancelled",
    OLDEST: "How long the build that waits longest has waited in a work queue",
    PREFECT_UP: "Whether Prefect's API answered; the other metrics of the queue are absent where it did not",
}
_WAITING_STATES = ("SCHEDULED",)
_RUNNING_STATES = ("PENDING", "RUNNING", "CANCELLING")


def read_queue_metrics(api: PrefectApi, queues: Iterable[str], now: datetime) -> list[Metric]:
    """The queue now; ``queues`` are told even where they are empty, so that no series comes and goes."""
    try:
        runs = build_runs(api, (*_WAITING_STATES, *_RUNNING_STATES))
    except ServiceUnreachable:
        return [_gauge(PREFECT_UP, {(): 0}, ())]
    return queue_families(runs, queues, now)


def queue_families(runs: Sequence[Mapping[str, Any]], queues: Iterable[str], now: datetime) -> list[Metric]:
    """The metrics of these flow runs, as Prefect's API gives them."""
    waiting = dict.fromkeys(queues, 0.0)
    running, oldest = waiting.copy(), waiting.copy()
    for run in runs:
        queue = str(run.get("work_queue_name") or "")
        for values in (waiting, running, oldest):
            values.setdefault(queue, 0.0)
        if run["state_type"] in _WAITING_STATES:
            waiting[queue] += 1
            since = datetime.fromisoformat(run["expected_start_time"])
            oldest[queue] = max(oldest[queue], (now - since) / timedelta(seconds=1))
        else:
            running[queue] += 1
    return [
        _gauge(PREFECT_UP, {(): 1}, ()),
        *(
            _gauge(name, {(queue,): value for queue, value in sorted(values.items())}, ("queue",))
            for name, values in ((WAITING, waiting), (RUNNING, running), (OLDEST, oldest))
        ),
    ]


def _gauge(name: str, values: Mapping[tuple[str, ...], float], labels: tuple[str, ...]) -> Metric:
    family = GaugeMetricFamily(name, GAUGES[name], labels=labels)
    for key, value in values.items():
        family.add_metric(list(key), value)
    return family
