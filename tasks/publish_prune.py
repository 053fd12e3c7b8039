"""Steps: a prune's plan and its report for people, as pages in Prefect, and for machines, as files on this host.

A failure of either is told, and is none of the prune's.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from prefect import task
from prefect.cache_policies import NO_CACHE

from caisson.prune_files import write_plan, write_report
from caisson.prune_markdown import plan_summary, render_plan
from caisson.prune_picture import RuleBar, plan_bars, prune_picture, report_bars
from caisson.prune_report_markdown import render_report, report_summary
from caisson.untrusted import code, markdown
from tasks.artifact_keys import host_key
from tasks.prune_run import PruneRun
from tasks.show_page import show_page
from tasks.step import run_logger


def artifact_key(what: str, host: str) -> str:
    """The key of a host's pages; Prefect takes small letters, digits and dashes only.

    >>> artifact_key("plan", "build_1.Example")
    'prune-plan-build-1-example'
    """
    return host_key(f"prune-{what}", host)


@task(name="publish_plan", task_run_name="publish_plan", cache_policy=NO_CACHE, persist_result=False)
def publish_plan(run: PruneRun) -> None:
    """What would go, what stays, and why; with a picture of what frees what."""
    plan = run.plan
    file = _write(lambda: write_plan(run.settings.state_dir, run.run, plan))
    _publish(run, "plan", plan_summary(plan), _page(render_plan(plan), plan_bars(plan), file))


@task(name="publish_report", task_run_name="publish_report", cache_policy=NO_CACHE, persist_result=False)
def publish_report(run: PruneRun) -> None:
    """What came of it; of a dry run the file only, since its page would be the plan's once more."""
    report = run.report
    assert report is not None
    file = _write(lambda: write_report(run.settings.state_dir, run.run, report))
    if not report.dry_run:
        _publish(run, "report", report_summary(report), _page(render_report(report), report_bars(report), file))


def _write(write: Callable[[], Path]) -> Path | None:
    try:
        return write()
    except OSError as error:
        run_logger().warning(f"It could not be kept as a file ({error.strerror or error}).")
        return None


def _page(text: str, bars: list[RuleBar], file: Path | None) -> str:
    picture = prune_picture(bars)
    head, _, rest = text.partition("\n\n")
    parts = [head, *([f"![Bytes by rule]({picture})"] if picture else []), rest.rstrip()]
    if file is not None:
        parts.append(f"For machines: {code(str(file))} on this host.")
    return "\n\n".join(part for part in parts if part) + "\n"


def _publish(run: PruneRun, what: str, summary: str, page: str) -> None:
    show_page(what, key=artifact_key(what, run.settings.host_name), description=markdown(summary), page=page)
