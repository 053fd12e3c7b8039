"""``caisson build``: its options, a build over the API or in this process, and a summary with an exit code.

Imported at every start of the program, so whatever takes time to import is imported where it is needed.
"""

# ruff: noqa: ARG001 - the options are declared here, and read from the context as one mapping.

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from caisson.errors import RequestInvalid, ServiceUnreachable
from caisson.queueing import Priority
from deployments.cli_help import invocation, report_failure

if TYPE_CHECKING:
    from caisson.request import BuildRequest
    from caisson.settings import Settings
    from deployments.cli_report import Ended
    from deployments.prefect_api import PrefectApi

EXAMPLES = """
caisson build https://github.com/team/app.git --image team/app
caisson build https://github.com/team/app.git --ref v1.2.3 --image registry.example.com:5000/team/app --push
caisson build git@github.com:team/app.git --git-credentials deploy-key --image team/app --tag stable
caisson build https://github.com/team/app.git --image team/app --secret npm-token --build-arg NODE=22
caisson build https://github.com/team/app.git --image team/app --memory 4g --cpus 2 --timeout 45m
caisson build https://github.com/team/app.git --image team/app --json | jq -r .image_id
"""

_WHAT, _SOURCE, _TAGS = "What is built", "Where it comes from", "How it is named"
_LIMITS, _RUN = "Limits", "How it runs"


def build(
    ctx: typer.Context,
    url: Annotated[
        str, typer.Argument(metavar="URL", help="Git repository: an https, http, ssh or git URL, or user@host:path.")
    ],
    image: Annotated[
        str,
        typer.Option(
            "--image",
            "-i",
            metavar="REPOSITORY",
            help="Repository to tag, registry and port included.",
            rich_help_panel=_TAGS,
        ),
    ],
    tag: Annotated[
        list[str] | None,
        typer.Option("--tag", "-t", metavar="TAG", help="Another tag; repeatable.", rich_help_panel=_TAGS),
    ] = None,
    only_tags: Annotated[
        bool,
        typer.Option("--only-tags", help="Set the tags of --tag, and none from commit and ref.", rich_help_panel=_TAGS),
    ] = False,
    push: Annotated[
        bool, typer.Option("--push", help="Push every tag to the image's registry.", rich_help_panel=_TAGS)
    ] = False,
    label: Annotated[
        list[str] | None,
        typer.Option("--label", metavar="K=V", help="A label of the image; repeatable.", rich_help_panel=_TAGS),
    ] = None,
    ref: Annotated[
        str,
        typer.Option(
            "--ref",
            "-r",
            metavar="REF",
            help="Branch, tag, full or short SHA, or refs/pull/N/head.  [default: the default branch]",
            rich_help_panel=_SOURCE,
        ),
    ] = "",
    commit: Annotated[
        str,
        typer.Option(
            "--commit",
            metavar="SHA",
            help="Full SHA to build, whatever the ref means by then; the ref still gives the tags.",
            rich_help_panel=_SOURCE,
        ),
    ] = "",
    git_credentials: Annotated[
        str,
        typer.Option(
            "--git-credentials",
            metavar="NAME",
            help="Name of the secret with a token or an SSH key.",
            rich_help_panel=_SOURCE,
        ),
    ] = "",
    submodules: Annotated[
        bool, typer.Option("--submodules", help="Clone submodules too, recursively.", rich_help_panel=_SOURCE)
    ] = False,
    lfs: Annotated[bool, typer.Option("--lfs", help="Fetch Git LFS files.", rich_help_panel=_SOURCE)] = False,
    context: Annotated[
        str,
        typer.Option(
            "--context", "-c", metavar="DIR", help="Subdirectory of the repository to build in.", rich_help_panel=_WHAT
        ),
    ] = "",
    dockerfile: Annotated[
        str,
        typer.Option(
            "--dockerfile",
            "-f",
            metavar="PATH",
            help="Path below the context.  [default: Dockerfile]",
            rich_help_panel=_WHAT,
        ),
    ] = "",
    target: Annotated[
        str, typer.Option("--target", metavar="STAGE", help="Stage to build.", rich_help_panel=_WHAT)
    ] = "",
    build_arg: Annotated[
        list[str] | None,
        typer.Option(
            "--build-arg",
            metavar="K[=V]",
            help="A build argument; K alone takes its value from the environment. Not for secrets: it stays in the "
            "image's history.",
            rich_help_panel=_WHAT,
        ),
    ] = None,
    secret: Annotated[
        list[str] | None,
        typer.Option(
            "--secret",
            metavar="NAME",
            help="Name of a secret for RUN --mount=type=secret,id=NAME; its value comes from a Prefect Secret block or "
            "from CAISSON_SECRET_NAME where the build runs.",
            rich_help_panel=_WHAT,
        ),
    ] = None,
    no_cache: Annotated[
        bool,
        typer.Option(
            "--no-cache", help="Build every step anew, though an image of this commit exists.", rich_help_panel=_WHAT
        ),
    ] = False,
    builder: Annotated[
        str,
        typer.Option(
            "--builder",
            metavar="auto|buildkit|classic",
            help="auto: BuildKit where the engine can hold its steps to the limits, else classic.",
            rich_help_panel=_WHAT,
        ),
    ] = "auto",
    cpus: Annotated[
        float | None, typer.Option("--cpus", metavar="N", help="Cores, such as 1.5.", rich_help_panel=_LIMITS)
    ] = None,
    memory: Annotated[
        str,
        typer.Option(
            "--memory",
            "-m",
            metavar="SIZE",
            help="Such as 2g; swap and the workspace included.",
            rich_help_panel=_LIMITS,
        ),
    ] = "",
    pids: Annotated[
        int | None,
        typer.Option("--pids", metavar="N", help="Processes and threads at once.", rich_help_panel=_LIMITS),
    ] = None,
    workspace: Annotated[
        str,
        typer.Option("--workspace", metavar="SIZE", help="Room for the clone, such as 1g.", rich_help_panel=_LIMITS),
    ] = "",
    timeout: Annotated[
        str,
        typer.Option(
            "--timeout",
            metavar="TIME",
            help="For the whole build: 90s, 30m, 2h; a bare number is minutes.",
            rich_help_panel=_LIMITS,
        ),
    ] = "",
    remote: Annotated[
        bool | None,
        typer.Option(
            "--remote/--local",
            help="Over the API, or in this process.  [default: over the API where a Caisson runs or CAISSON_API_URL "
            "is set]",
            rich_help_panel=_RUN,
        ),
    ] = None,
    detach: Annotated[
        bool,
        typer.Option("--detach", "-d", help="Start the build over the API and don't wait.", rich_help_panel=_RUN),
    ] = False,
    host: Annotated[
        str,
        typer.Option(
            "--host",
            metavar="NAME",
            help="Build on that host of the API; any: on one that has room.  [default: this host]",
            rich_help_panel=_RUN,
        ),
    ] = "",
    priority: Annotated[
        str,
        typer.Option(
            "--priority",
            metavar="high|normal|low",
            help="high goes before what was asked for up to four hours earlier, low an hour later.",
            rich_help_panel=_RUN,
        ),
    ] = "normal",
    as_json: Annotated[
        bool,
        typer.Option(
            "--json",
            help='One JSON document on stdout: the report, or {"failure": …}; all else on stderr.',
            rich_help_panel=_RUN,
        ),
    ] = False,
) -> None:
    """Build an image from a git repository.

    It is built in a throw-away container whose only mount is the Docker socket, tagged, and pushed if asked. Ctrl-C
    cancels the build and waits until its container is gone. The exit code tells the kind of a failure.
    """
    invocation(ctx).json = as_json
    if detach and remote is False:
        raise typer.BadParameter("--detach needs the API: a build in this process ends with it.", ctx)
    if host and remote is False:
        raise typer.BadParameter("--host needs the API: a build in this process is on this host.", ctx)
    urgency = _priority(priority)
    if urgency is not Priority.NORMAL and remote is False:
        raise typer.BadParameter("--priority needs the API: a build in this process begins at once.", ctx)
    from caisson.settings import load_settings
    from caisson.spec import make_spec, parse_request
    from deployments.cli_request import request_data

    request = parse_request(request_data(ctx.params))
    settings = load_settings()
    # While a machine reads stdout, nothing that any library prints may reach it.
    with contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext():
        api = _find_api(
            settings,
            wanted=bool(remote or detach or host or urgency is not Priority.NORMAL),
            allowed=remote is not False,
        )
        if not settings.api_url:
            # This host builds it, and its settings are known: no need to wait for a run that would be refused.
            make_spec(request, settings)
        if api is None:
            ended = _build_here(request, settings)
        else:
            ended = _build_there(request, settings, api, host=host, priority=urgency, detach=detach)
    _show_end(ended, as_json=as_json)


def _priority(text: str) -> Priority:
    try:
        return Priority(text)
    except ValueError:
        raise RequestInvalid(f"priority: {text[:40]!r} is not high, normal or low.") from None


def _find_api(settings: Settings, *, wanted: bool, allowed: bool) -> PrefectApi | None:
    """The API that builds, or None: this process does. Raises ``ServiceUnreachable`` where one is wanted."""
    if not allowed:
        return None
    from deployments.cli_service import find_api

    api = find_api(settings, say=lambda text: typer.echo(text, err=True))
    if api is None and wanted:
        raise ServiceUnreachable(
            "No Caisson runs on this host, and CAISSON_API_URL is not set.",
            hint="Start one with `caisson up`, or build in this process with --local.",
        )
    return api


def _build_here(request: BuildRequest, settings: Settings) -> Ended:
    from deployments.cli_service import use_secrets_of

    use_secrets_of(settings)
    from deployments.cli_local import build_here
    from deployments.cli_view import make_view

    with make_view(sys.stdout) as view:
        return build_here(request, settings, view)


def _build_there(
    request: BuildRequest, settings: Settings, api: PrefectApi, *, host: str, priority: Priority, detach: bool
) -> Ended:
    from deployments.cli_remote import run_url, start, watch
    from deployments.cli_report import Ended
    from deployments.cli_view import make_view

    with api:
        asked = start(api, request, host or settings.host_name, priority=priority)
        if detach:
            return Ended(run=asked.flow_run_id, url=run_url(api, asked.flow_run_id))
        with make_view(sys.stdout) as view:
            return watch(api, asked, settings, view)


def _show_end(ended: Ended, *, as_json: bool) -> None:
    from deployments.cli_report import summary_lines

    if as_json and (ended.report is not None or ended.failure is None):
        typer.echo(ended.to_json())
    if ended.failure is not None:
        report_failure(ended.failure, as_json=as_json and ended.report is None)
        if ended.report is not None and ended.report.log_file:
            typer.echo(f"  The whole log: {ended.report.log_file}", err=True)
    elif not as_json:
        for line in summary_lines(ended):
            typer.echo(line)
    raise typer.Exit(ended.exit_code)
