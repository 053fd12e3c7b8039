"""Step: look at the host, and plan what goes."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE

from caisson.prune import make_plan
from caisson.prune_markdown import plan_summary
from tasks.prune_run import PruneRun
from tasks.step import run_logger


@task(name="plan_prune", task_run_name="plan_prune", cache_policy=NO_CACHE, persist_result=False)
def plan_prune(run: PruneRun, under_pressure: bool) -> None:
    """Raises what a read raises that failed; nothing is removed then."""
    run.plan = make_plan(run.view, run.settings.disk_limits, force_pressure=under_pressure)
    logger = run_logger()
    logger.info(plan_summary(run.plan))
    for problem in run.plan.problems:
        logger.warning(problem)
