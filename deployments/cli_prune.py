"""``caisson prune``: its options, and which of them go together.

Imported at every start of the program, so whatever takes time to import is imported where it is needed.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from deployments.cli_help import invocation

EXAMPLES = """
caisson prune                                     what would go, in order, and why; nothing is removed
caisson prune --plan plan.json                    the same, and the plan as a file
caisson prune --apply plan.json                   remove what is in that plan and may still go
caisson prune --apply --yes                       plan and remove in one go, without asking
caisson prune --pressure                          as if the disk were full
caisson prune --policy strict.toml --json | jq '.items[] | .reason'
"""

_WHAT, _HOW = "What is planned", "How it runs"


def prune(
    ctx: typer.Context,
    saved: Annotated[
        Path | None,
        typer.Argument(metavar="PLAN", help="A plan that --plan wrote.  [default: a new one]"),
    ] = None,
    apply: Annotated[
        bool,
        typer.Option("--apply", help="Remove what may still go by then, after asking.", rich_help_panel=_HOW),
    ] = False,
    yes: Annotated[
        bool,
        typer.Option("--yes", "-y", help="With --apply: don't ask. Needed without a terminal.", rich_help_panel=_HOW),
    ] = False,
    plan_to: Annotated[
        Path | None,
        typer.Option("--plan", metavar="FILE", help="Write the plan there, too, as JSON.", rich_help_panel=_WHAT),
    ] = None,
    pressure: Annotated[
        bool,
        typer.Option(
            "--pressure",
            help="Plan until CAISSON_DISK_LOW is reached, though the disk is not full.",
            rich_help_panel=_WHAT,
        ),
    ] = False,
    policy: Annotated[
        Path | None,
        typer.Option(
            "--policy",
            metavar="FILE",
            help="A policy in TOML or JSON, instead of CAISSON_RETENTION.",
            rich_help_panel=_WHAT,
        ),
    ] = None,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json",
            help="One JSON document on stdout: the plan, or with PLAN or --apply the report.",
            rich_help_panel=_HOW,
        ),
    ] = False,
) -> None:
    """Show what would be pruned of this host, or prune it.

    By itself it removes nothing. With --apply each removal is checked again just before it, nothing is forced, and
    Ctrl-C ends it after the removal under way. No service is needed. What goes, what stays and why: docs/pruning.md.
    """
    invocation(ctx).json = as_json
    if saved is not None and plan_to is not None:
        raise typer.BadParameter(f"--plan writes a new plan, and {saved} is one; give one of them.", ctx)
    if saved is not None and pressure:
        raise typer.BadParameter(f"--pressure is for a new plan, and {saved} is one; give one of them.", ctx)
    if yes and not apply:
        raise typer.BadParameter("--yes is for --apply: nothing else removes anything.", ctx)
    if apply and not yes and not sys.stdin.isatty():
        raise typer.BadParameter("--apply asks before it removes anything, which needs a terminal; add --yes.", ctx)
    from caisson.settings import load_settings
    from deployments.cli_prune_run import PruneOptions, run_prune

    options = PruneOptions(
        saved=saved, apply=apply, ask=not yes, plan_to=plan_to, pressure=pressure, policy=policy, as_json=as_json
    )
    raise typer.Exit(run_prune(load_settings(), options))
