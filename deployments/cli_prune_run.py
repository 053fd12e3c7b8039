"""What ``caisson prune`` does: plan, show, ask, apply. On this host, in this process; needs no service."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import typer

from caisson.errors import BuildCancelled, PruneStopped, RequestInvalid, SettingsInvalid
from caisson.prune import adopt_plan, apply_plan, dry_run, make_plan
from caisson.prune_host import open_prune_host
from caisson.prune_markdown import plan_summary
from caisson.prune_report import ItemResult, Outcome, PruneReport, report_to_json
from caisson.prune_view import HostView
from caisson.retention.plan_json import plan_from_json, plan_to_json
from caisson.retention.prune_plan import Attempt, PrunePlan, RemoveImage
from caisson.settings import Settings
from deployments.cli_help import report_failure
from deployments.cli_plan import disk_read, policy_of, words_of
from deployments.cli_prune_text import plan_lines, report_lines, result_line, saved_lines
from deployments.cli_signals import signals_stop
from deployments.cli_view import PlainView
from deployments.prune_telling import tell_prune

TRIGGER = "the command line"
_NOT_CONFIRMED = 1


@dataclass(frozen=True)
class PruneOptions:
    """The options; see ``caisson prune --help``."""

    saved: Path | None = None
    apply: bool = False
    ask: bool = True
    plan_to: Path | None = None
    pressure: bool = False
    policy: Path | None = None
    as_json: bool = False


def run_prune(settings: Settings, options: PruneOptions) -> int:
    """Do it and give the exit code; raises ``CaissonError``."""
    policy = policy_of(settings, options.policy)
    saved = None if options.saved is None else _read_plan(options.saved)
    with open_prune_host(settings) as host:
        if saved is not None and options.saved is not None:
            with _plan_of(options.saved), disk_read():
                saved = adopt_plan(saved, host, settings.disk_limits)
        view = HostView(host, policy)
        with disk_read():
            plan = saved or make_plan(view, settings.disk_limits, force_pressure=options.pressure)
        if options.plan_to is not None:
            _write_plan(options.plan_to, plan)
        if options.apply:
            return _apply(view, plan, options, settings)
        if saved is None:
            document, lines, count = plan_to_json(plan), plan_lines(plan), len(plan.items)
        else:
            left = _what_is_left(view, plan)
            document, lines, count = report_to_json(left), saved_lines(left), left.counts["not-reached"]
    if options.as_json:
        typer.echo(document, nl=False)
        return 0
    for line in lines:
        typer.echo(line)
    if count:
        typer.echo(
            f"Nothing was removed: `caisson prune --apply{f' {options.saved}' if options.saved else ''}` does it."
        )
    return 0


def _read_plan(path: Path) -> PrunePlan:
    with _plan_of(path):
        return plan_from_json(path.read_bytes())


@contextmanager
def _plan_of(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:
        raise RequestInvalid(
            f"The plan {path} can't be used: {words_of(error)}.",
            hint=f"`caisson prune --plan {path}` writes a new one.",
        ) from None


def _write_plan(path: Path, plan: PrunePlan) -> None:
    try:
        # Not replaced in one go: it may be a device, a pipe or a link.
        path.write_text(plan_to_json(plan), encoding="utf-8")
    except OSError as error:
        raise SettingsInvalid(f"--plan: {path} can't be written ({words_of(error)}).") from None


def _what_is_left(view: HostView, plan: PrunePlan) -> PruneReport:
    """A dry run of a plan that was made before: what of it may still go."""
    with disk_read():
        view.read_disk()
        view.look(view.host.leases.held())
    report, results = dry_run(plan, trigger=TRIGGER), list[ItemResult]()
    for planned in report.results:
        item = planned.item
        verdict = view.verdict(item)
        if not verdict.allowed:
            outcome: Outcome = "gone" if verdict.decision == "gone" else "kept"
            results.append(ItemResult(item, outcome, verdict.rule, verdict.reason))
            continue
        if isinstance(item, RemoveImage):
            # What was built on it goes before it, here as in the apply.
            view.removed(item.image.id)
        results.append(planned)
    taken = view.snapshot.taken
    return replace(report, results=tuple(results), started=taken, ended=taken, usage_after=view.snapshot.usage)


def _apply(view: HostView, plan: PrunePlan, options: PruneOptions, settings: Settings) -> int:
    if plan.problems:
        raise PruneStopped(plan_summary(plan), hint="; ".join(plan.problems))
    out = PlainView(sys.stderr if options.as_json else sys.stdout)
    if options.ask and not _is_confirmed(view, plan, options, out):
        typer.echo("Nothing was removed.", err=True)
        return _NOT_CONFIRMED
    done, total = 0, len(plan.items)

    def show(result: ItemResult) -> None:
        nonlocal done
        done += 1
        out.say(result_line(result, done, total))

    def replan(attempt: Attempt) -> PrunePlan:
        nonlocal total
        more = make_plan(view, settings.disk_limits, force_pressure=True, attempt=attempt)
        total += len(more.items)
        out.say(f"The low threshold is not reached, so it is planned anew. {plan_summary(more)}")
        return more

    with signals_stop("Stopping: the removal under way ends first.") as stop, disk_read():
        report = apply_plan(
            view,
            plan,
            trigger=TRIGGER,
            on_result=show,
            should_stop=stop.is_set,
            # Of a plan that was saved, nothing goes that is not in it.
            replan=None if options.saved else replan,
        )
    if options.as_json:
        typer.echo(report_to_json(report), nl=False)
    else:
        for line in report_lines(report):
            typer.echo(line)
    # Who stops it need not be told that it was stopped.
    if not stop.is_set() and (problem := tell_prune(settings, report)):
        typer.echo(problem, err=True)
    if report.ending != "stopped":
        return 0
    if stop.is_set():
        return BuildCancelled.exit_code
    stopped = PruneStopped(
        f"The prune ended early: {report.problem.rstrip('.')}.", hint="What is left goes with the next."
    )
    report_failure(stopped.to_dict(), as_json=False)
    return PruneStopped.exit_code


def _is_confirmed(view: HostView, plan: PrunePlan, options: PruneOptions, out: PlainView) -> bool:
    """Ask, where there is anything to ask about."""
    left = _what_is_left(view, plan) if options.saved else None
    for line in saved_lines(left) if left else plan_lines(plan):
        out.say(line)
    if not (left.counts["not-reached"] if left else plan.items):
        return True
    more = ", and more if that frees too little" if plan.target and not options.saved else ""
    return typer.confirm(f"Remove them{more}?", err=True)
