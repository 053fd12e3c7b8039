"""Step: remove what may still go."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE

from caisson.errors import PruneBusy
from caisson.prune import apply_plan, make_plan
from caisson.prune_files import write_plan
from caisson.prune_markdown import plan_summary
from caisson.prune_report import ItemResult
from caisson.prune_report_markdown import item_name, report_summary
from caisson.retention.prune_plan import Attempt, PrunePlan
from caisson.sizes import format_size
from tasks.prune_run import PruneRun
from tasks.step import run_logger

_WORDS = {"removed": "removed", "kept": "kept after all", "gone": "was gone already", "failed": "could not be removed"}


@task(name="apply_prune", task_run_name="apply_prune", cache_policy=NO_CACHE, persist_result=False)
def apply_prune(run: PruneRun) -> str:
    """Apply the plan; the report is the run's. Returns why it did not begin, which is no failure; else nothing."""
    logger = run_logger()

    def tell(result: ItemResult) -> None:
        if result.outcome in _WORDS:
            size = f" ({format_size(result.item.marginal_bytes)})" if result.outcome == "removed" else ""
            logger.info(f"{item_name(result.item)}{size}: {_WORDS[result.outcome]}, {result.rule}: {result.reason}")

    def replan(attempt: Attempt) -> PrunePlan:
        plan = make_plan(run.view, run.settings.disk_limits, force_pressure=True, attempt=attempt)
        logger.info(f"The low threshold is not reached, so it is planned anew. {plan_summary(plan)}")
        try:
            write_plan(run.settings.state_dir, run.run, plan, attempt.number)
        except OSError as error:
            logger.warning(f"That plan could not be kept as a file ({error.strerror or error}).")
        return plan

    try:
        run.report = apply_plan(run.view, run.plan, trigger=run.trigger, on_result=tell, replan=replan)
    except PruneBusy as error:
        logger.info(str(error))
        return error.message
    logger.info(report_summary(run.report))
    return ""
