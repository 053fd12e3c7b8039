"""The queue's metrics: who waits, who runs, how long, and that Prefect can't be asked."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from prometheus_client.parser import text_string_to_metric_families

from caisson.metrics import render
from deployments.api.queue_metrics import queue_families, read_queue_metrics
from deployments.prefect_api import PrefectApi

NOW = datetime(2030, 1, 1, tzinfo=UTC)


def _run(queue: str | None, state: str, *, minutes: float = 0) -> dict[str, object]:
    expected = (NOW - timedelta(minutes=minutes)).isoformat()
    return {"work_queue_name": queue, "state_type": state, "expected_start_time": expected}


def _values(text: str) -> dict[tuple[str, str], float]:
    return {
        (sample.name.removeprefix("caisson_"), sample.labels.get("queue", "")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_builds_are_counted_by_queue_and_the_longest_wait_is_told() -> None:
    runs = [
        _run("shared", "SCHEDULED", minutes=3),
        _run("shared", "SCHEDULED", minutes=10),
        _run("shared", "RUNNING", minutes=60),
        _run("b1", "PENDING"),
        _run("b1", "CANCELLING"),
        _run(None, "SCHEDULED", minutes=-5),
    ]
    assert _values(render(queue_families(runs, ["b1", "shared", "b2"], NOW))) == {
        ("prefect_up", ""): 1,
        **{("queue_waiting", queue): value for queue, value in {"shared": 2, "b1": 0, "b2": 0, "": 1}.items()},
        **{("queue_running", queue): value for queue, value in {"shared": 1, "b1": 2, "b2": 0, "": 0}.items()},
        # One that is to begin later does not wait yet.
        **{("queue_oldest_seconds", queue): value for queue, value in {"shared": 600, "b1": 0, "b2": 0, "": 0}.items()},
    }


def test_without_prefect_only_that_is_told() -> None:
    with PrefectApi("http://127.0.0.1:1/api") as api:
        assert _values(render(read_queue_metrics(api, ["b1"], NOW))) == {("prefect_up", ""): 0}
