"""The flow ``prune_images``: what dead builds left, then what the retention policy lets go. It reads as its steps.

By hand it is a dry run unless that is switched off; its schedule has it switched off, visibly.
"""

from __future__ import annotations

import uuid

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.context import FlowRunContext
from prefect.states import Completed, Failed

from caisson.errors import CaissonError
from caisson.policy_choice import choose_policy
from caisson.prune import dry_run as report_dry_run
from caisson.prune_events import failed_event
from caisson.prune_host import open_prune_host
from caisson.prune_markdown import plan_summary
from caisson.prune_report_events import report_events
from caisson.prune_report_markdown import report_summary
from caisson.prune_view import HostView
from caisson.retention.policy import RetentionPolicy
from caisson.settings import Settings, load_settings
from tasks.apply_prune import apply_prune
from tasks.plan_prune import plan_prune
from tasks.prune_run import PruneRun
from tasks.publish_prune import publish_plan, publish_report
from tasks.reap import reap_leftovers
from tasks.start_prune import PRESSURE_TAG
from tasks.step import run_logger
from tasks.tell_prune import tell_prune

_SCHEDULE = "the schedule"


@flow(
    name="prune-images",
    description="Removes images that the retention policy lets go, and under pressure those that are least missed.",
    flow_run_name="prune",
    persist_result=False,
)
def prune_images(
    dry_run: bool = True,
    under_pressure: bool = False,
    own_policy: bool = False,
    policy: RetentionPolicy = RetentionPolicy(),  # noqa: B008 - frozen
) -> State[None]:
    """Plan what goes, and remove it unless this is a dry run.

    Args:
        dry_run: Only show what would go, and why
        under_pressure: As if the disk were full: go on until the low threshold is reached
        own_policy: Prune by the policy below, and not by that of this host's settings (CAISSON_RETENTION)
        policy: What is kept and for how long; only with the switch above
    """
    settings, trigger = load_settings(), _trigger()
    if dry_run and trigger == _SCHEDULE:
        run_logger().warning(
            "This scheduled run is a dry run: give its schedule the parameter dry_run = false. "
            "Prefect drops a schedule's parameters when it is edited without them."
        )
    try:
        chosen = choose_policy(settings.retention, policy, own_policy=own_policy)
        return _prune(settings, chosen, trigger, is_dry=dry_run, under_pressure=under_pressure)
    except CaissonError as error:
        return _failed(settings, trigger, str(error), is_dry=dry_run)
    except OSError as error:
        return _failed(settings, trigger, f"The prune could not begin: {error}.", is_dry=dry_run)


def _prune(
    settings: Settings, policy: RetentionPolicy, trigger: str, *, is_dry: bool, under_pressure: bool
) -> State[None]:
    if not is_dry:
        reap_leftovers(settings)
    with open_prune_host(settings) as host:
        run = PruneRun(settings, HostView(host, policy), run=_flow_run_id(), trigger=trigger)
        plan_prune(run, under_pressure)
        publish_plan(run)
        if run.plan.problems:
            return _failed(settings, trigger, " ".join(run.plan.problems), is_dry=is_dry)
        if is_dry:
            run.report = report_dry_run(run.plan, trigger=trigger)
        elif busy := apply_prune(run):
            return Completed(message=busy)
        publish_report(run)
    report = run.report
    assert report is not None
    if is_dry:
        return Completed(message=f"A dry run: nothing was removed. {plan_summary(run.plan)}")
    tell_prune(settings, report_events(settings.host_name, report))
    return Failed(message=report.problem) if report.problem else Completed(message=report_summary(report))


def _failed(settings: Settings, trigger: str, problem: str, *, is_dry: bool) -> State[None]:
    if not is_dry:
        tell_prune(settings, [failed_event(settings.host_name, trigger, problem)])
    return Failed(message=problem)


def _trigger() -> str:
    """What started this run, as the ledger and the report have it."""
    context = FlowRunContext.get()
    flow_run = context.flow_run if context is not None else None
    if flow_run is not None and PRESSURE_TAG in flow_run.tags:
        return "the disk's pressure"
    return _SCHEDULE if flow_run is not None and flow_run.auto_scheduled else "a person"


def _flow_run_id() -> str:
    context = FlowRunContext.get()
    return str(context.flow_run.id if context is not None and context.flow_run is not None else uuid.uuid4())
