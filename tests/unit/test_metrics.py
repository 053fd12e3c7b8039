"""Builds and prunes as metrics: what a build counts, and what a Prometheus reads of it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from caisson.errors import all_failures
from caisson.ledger import Ledger, Prune
from caisson.ledger.counters import Count
from caisson.metric_counts import BUCKETS, FAILURES, build_counts
from caisson.metrics import COUNTERS, HISTOGRAMS, metric_families, metrics_file, read_metrics, render, write_metrics
from caisson.report import BuildReport, DockerfileStepReport, GuardCount, GuardReport, StepReport
from caisson.settings import Settings

NOW = datetime(2030, 1, 1, tzinfo=UTC)


def _report(**changes: object) -> BuildReport:
    values: dict[str, object] = {
        "outcome": "built",
        "build_id": "0123456789ab",
        "host": "b1",
        "builder": "buildkit",
        "repository_url": "https://example.com/a.git",
        "image": "team/app",
        "started": NOW,
        "seconds": 12.5,
        "steps": [
            StepReport(name="clone", state="completed", seconds=1),
            StepReport(name="push_image", state="skipped", seconds=0),
        ],
        "dockerfile_steps": [
            DockerfileStepReport(name="RUN a", seconds=1, cached=True),
            DockerfileStepReport(name="RUN b", seconds=1, cached=False),
            DockerfileStepReport(name="RUN c", seconds=1, cached=True),
        ],
        "guard": GuardReport(counts=[GuardCount(verdict="deny", rule="build", count=3)]),
    }
    return BuildReport.model_validate(values | changes)


def _prune(outcome: str, *, freed: int = 0, minute: int = 0, trigger: str = "schedule", ended: bool = True) -> Prune:
    at = NOW + timedelta(minutes=minute)
    return Prune(f"{minute}", at, at if ended else None, trigger, freed, 0, outcome, {})


def _samples(
    counts: list[Count], prunes: tuple[Prune, ...] = ()
) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    families = text_string_to_metric_families(render(metric_families(counts, prunes)))
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


def failures(samples: dict[tuple[str, tuple[tuple[str, str], ...]], float]) -> dict[str, float]:
    """How often builds failed, by kind, where they did; each kind there is has a series from the beginning."""
    found = {dict(labels)["kind"]: value for (name, labels), value in samples.items() if name == FAILURES}
    assert found.keys() >= {failure.kind for failure in all_failures()}
    return {kind: value for kind, value in found.items() if value}


def test_a_build_counts_its_end_its_steps_its_cache_and_what_the_guard_decided() -> None:
    samples = _samples(build_counts(_report()))
    assert samples["caisson_builds_total", (("builder", "buildkit"), ("outcome", "built"))] == 1
    assert samples["caisson_build_dockerfile_steps_total", (("cached", "true"),)] == 2
    assert samples["caisson_build_dockerfile_steps_total", (("cached", "false"),)] == 1
    assert samples["caisson_guard_decisions_total", (("rule", "build"), ("verdict", "deny"))] == 3
    assert samples["caisson_build_step_duration_seconds_count", (("step", "clone"),)] == 1
    assert ("caisson_build_step_duration_seconds_count", (("step", "push_image"),)) not in samples
    assert failures(samples) == {}


def test_a_failure_counts_its_kind_and_a_cancel_does_not() -> None:
    failure = {"kind": "out-of-memory", "message": "no"}
    samples = _samples(build_counts(_report(outcome="failed", failure=failure)))
    assert failures(samples) == {"out-of-memory": 1}
    cancelled = _samples(build_counts(_report(outcome="cancelled", failure=failure, builder="")))
    assert failures(cancelled) == {}
    assert cancelled["caisson_builds_total", (("builder", "none"), ("outcome", "cancelled"))] == 1


@pytest.mark.parametrize("seconds", [0.0, BUCKETS[0], 0.51, 12.5, BUCKETS[-1], BUCKETS[-1] + 1])
def test_a_duration_is_in_each_bucket_that_reaches_it(seconds: float) -> None:
    samples = _samples(build_counts(_report(seconds=seconds)))
    for bound in BUCKETS:
        key = ("caisson_build_duration_seconds_bucket", (("le", f"{bound:g}"), ("outcome", "built")))
        assert samples[key] == (seconds <= bound), bound
    assert samples["caisson_build_duration_seconds_bucket", (("le", "+Inf"), ("outcome", "built"))] == 1
    assert samples["caisson_build_duration_seconds_sum", (("outcome", "built"),)] == seconds


def test_counters_add_up_over_builds_in_the_ledger(tmp_path: Path) -> None:
    for seconds in (1, 20, 20):
        Ledger(tmp_path / "ledger.sqlite").counters.add(build_counts(_report(seconds=seconds)))
    with pytest.raises(ValueError, match="never falls"):
        Ledger(tmp_path / "ledger.sqlite").counters.add([Count("a", {}), Count("b", {}, -1)])
    ledger = Ledger(tmp_path / "ledger.sqlite")
    assert "a" not in {count.name for count in ledger.counters.list()}
    samples = _samples(ledger.counters.list())
    assert samples["caisson_build_duration_seconds_count", (("outcome", "built"),)] == 3
    assert samples["caisson_build_duration_seconds_sum", (("outcome", "built"),)] == 41
    assert samples["caisson_build_duration_seconds_bucket", (("le", "10"), ("outcome", "built"))] == 1
    assert samples["caisson_builds_total", (("builder", "buildkit"), ("outcome", "built"))] == 3


def test_prunes_are_those_that_have_ended_and_the_last_success_is_told() -> None:
    prunes = (
        _prune("done", freed=100, minute=1),
        _prune("short", freed=50, minute=2, trigger="pressure"),
        _prune("failed", freed=-4096, minute=3),
        _prune("", minute=4, ended=False),
    )
    samples = _samples([], prunes)
    assert samples["caisson_prunes_total", (("outcome", "done"), ("trigger", "schedule"))] == 1
    assert samples["caisson_prunes_total", (("outcome", "failed"), ("trigger", "schedule"))] == 1
    assert ("caisson_prunes_total", (("outcome", ""), ("trigger", "schedule"))) not in samples
    assert samples["caisson_prune_freed_bytes_total", ()] == 150
    assert samples["caisson_prune_last_success_timestamp_seconds", ()] == (NOW + timedelta(minutes=2)).timestamp()
    assert ("caisson_prune_last_success_timestamp_seconds", ()) not in _samples([], prunes[2:])


def test_a_counter_of_another_caisson_is_left_out() -> None:
    assert _samples([Count("caisson_gone_total", {"a": "b"})]) == _samples([])


def test_every_metric_has_help_and_a_type_and_labels_are_escaped() -> None:
    text = render(metric_families(build_counts(_report(outcome="failed", failure={"kind": 'a"b\\c\nd'})), ()))
    for name in COUNTERS:
        assert f"# TYPE {name} counter" in text
    for name in HISTOGRAMS:
        assert f"# TYPE {name} histogram" in text
    assert 'kind="a\\"b\\\\c\\nd"' in text


def test_the_file_is_written_whole_and_readable_for_others(tmp_path: Path) -> None:
    settings = Settings(_env_file=None, state_dir=tmp_path)  # type: ignore[call-arg]
    ledger = Ledger(tmp_path / "ledger.sqlite")
    ledger.counters.add(build_counts(_report()))
    write_metrics(settings, ledger)
    file = metrics_file(settings)
    assert file.read_text() == render(read_metrics(ledger))
    assert file.stat().st_mode & 0o777 == 0o644
