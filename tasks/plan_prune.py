"""Step: look at the host, and plan what goes."""

from __future__ import annotations

from datetime import timedelta

from prefect import task
from prefect.cache_policies import NO_CACHE

from caisson.prune import make_plan
from caisson.prune_markdown import plan_summary
from tasks.prune_run import PruneRun
from tasks.step import run_logger

_TELL_OF_A_NEW_LEDGER = timedelta(days=90)


@task(name="plan_prune", task_run_name="plan_prune", cache_policy=NO_CACHE, persist_result=False)
def plan_prune(run: PruneRun, under_pressure: bool) -> None:
    """Raises what a read raises that failed; nothing is removed then."""
    run.plan = make_plan(run.view, run.settings.disk_limits, force_pressure=under_pressure)
    logger = run_logger()
    logger.info(plan_summary(run.plan))
    for problem in run.plan.problems:
        logger.warning(problem)
    rebuilt = run.view.host.ledger.rebuilt_at()
    if rebuilt is not None and run.plan.planned - rebuilt < _TELL_OF_A_NEW_LEDGER:
        logger.warning(
            f"The ledger was damaged and begun anew on {rebuilt:%Y-%m-%d %H:%M} UTC: images that were built before are "
            "not known as Caisson's own, and none is taken for old."
        )
