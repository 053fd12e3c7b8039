"""The program ``caisson``: its commands. Each imports what it needs when it runs, so that help comes at once."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from deployments import cli_alerts, cli_build, cli_guard, cli_hosts, cli_prune, cli_tokens, cli_webhooks
from deployments.cli_help import Command, Group, invocation

_EXAMPLES = """
caisson doctor                                    what is wrong with this host, and how to mend it
caisson build https://github.com/team/app.git --image team/app
caisson up                                        the service: UI, API and worker
caisson logs --follow                             the log of the latest build
"""

app = typer.Typer(
    cls=Group,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    add_completion=True,
    epilog=_EXAMPLES,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
Policy = Annotated[
    Path | None,
    typer.Option("--policy", metavar="FILE", help="A policy in TOML or JSON, instead of CAISSON_RETENTION."),
]


@app.callback()
def caisson(
    ctx: typer.Context,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of a failure.")] = False,
) -> None:
    """Builds container images from git repositories, each in a throw-away builder with the Docker socket and no more.

    Settings are variables CAISSON_…, in the environment, .env or caisson.toml: `caisson doctor --settings` lists them.
    Failures are one sentence with the way out, and each kind has its own exit code.
    """
    invocation(ctx).debug = debug


app.command("build", cls=Command, epilog=cli_build.EXAMPLES)(cli_build.build)


@app.command(cls=Command, epilog="caisson builds\ncaisson builds --limit 100 --json | jq -r '.[].image'")
def builds(
    ctx: typer.Context,
    limit: Annotated[
        int, typer.Option("--limit", "-n", metavar="N", min=1, max=200, help="How many, the newest first.")
    ] = 20,
    as_json: Json = False,
) -> None:
    """List recent builds, the newest first.

    They are those of the API, and those that this host made without it.
    """
    invocation(ctx).json = as_json
    from caisson.settings import load_settings
    from deployments.cli_runs import list_builds, print_builds

    print_builds(list_builds(load_settings(), limit=limit), as_json=as_json)


@app.command(cls=Command, epilog="caisson logs\ncaisson logs 3f2a\ncaisson logs 3f2a --follow")
def logs(
    run: Annotated[
        str, typer.Argument(metavar="RUN", help="A run's ID or its beginning; without it, the latest.")
    ] = "",
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Wait for more until the build has ended.")] = False,
) -> None:
    """Print the log of a build."""
    from caisson.settings import load_settings
    from deployments.cli_runs import print_log

    print_log(load_settings(), run.strip().lower(), follow_it=follow)


@app.command(cls=Command, epilog="caisson up\nCAISSON_CONCURRENCY=5 caisson up")
def up() -> None:
    """Run the service: Prefect's server, a worker, Caisson's API.

    It runs until Ctrl-C, and running builds then get CAISSON_DRAIN_SECONDS to finish. Where one runs already, it says
    where.
    """
    from caisson.settings import load_settings
    from deployments.launcher import up as run
    from deployments.logs import launchers_voice

    settings = load_settings()
    raise typer.Exit(run(settings, say=launchers_voice(settings)))


@app.command(cls=Command)
def down() -> None:
    """Stop the service of this host, and wait until it is gone."""
    from caisson.settings import load_settings
    from deployments.launcher import down as stop

    raise typer.Exit(stop(load_settings()))


@app.command(cls=Command, epilog="caisson doctor\ncaisson doctor --settings\ncaisson doctor --json | jq '.items[]'")
def doctor(
    ctx: typer.Context,
    settings: Annotated[
        bool, typer.Option("--settings", help="Print every setting: variable, value, default, source, meaning.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Say what is wrong with this host and how to mend it. The exit code is 1 when there is a problem."""
    invocation(ctx).json = as_json
    from deployments.cli_doctor import run_doctor, run_settings

    if settings:
        run_settings(as_json=as_json)
    else:
        raise typer.Exit(run_doctor(as_json=as_json))


@app.command(cls=Command, epilog="caisson disk\ncaisson disk --attribution\ncaisson disk --json | jq .level")
def disk(
    ctx: typer.Context,
    attribution: Annotated[
        bool, typer.Option("--attribution", help="Ask the engine what holds the disk; it can take minutes.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show how full Docker's disk is, and until when.

    With --attribution also what holds it: repositories by their layers, build cache, containers, volumes, logs.
    """
    invocation(ctx).json = as_json
    from caisson.settings import load_settings
    from deployments.cli_disk import show_disk

    show_disk(load_settings(), attribution=attribution, as_json=as_json)


@app.command(
    cls=Command,
    epilog="caisson audit\ncaisson audit --fail-on medium\n"
    """caisson audit --json | jq -r '.findings[] | select(.status == "fail") | .key'""",
)
def audit(
    ctx: typer.Context,
    fail_on: Annotated[
        Literal["low", "medium", "high"],
        typer.Option("--fail-on", help="The exit code is 1 for failures of this severity or above."),
    ] = "high",
    as_json: Json = False,
) -> None:
    """Check this host's containers, engine and clean-up.

    It tells what is new and what was mended since the last audit. CAISSON_AUDIT_ACCEPT names what is accepted.
    """
    invocation(ctx).json = as_json
    from caisson.settings import load_settings
    from deployments.cli_audit import run_audit

    raise typer.Exit(run_audit(load_settings(), fail_on=fail_on, as_json=as_json))


app.command("prune", cls=Command, epilog=cli_prune.EXAMPLES)(cli_prune.prune)


@app.command(
    cls=Command,
    epilog="caisson images\ncaisson images --repository 'team/*'\n"
    """caisson images --json | jq -r '.[] | select(.decision == "remove") | .id'""",
)
def images(
    ctx: typer.Context,
    repository: Annotated[
        str,
        typer.Option("--repository", "-r", metavar="PATTERN", help="Only those, such as team/* or registry:5000/**."),
    ] = "",
    policy: Policy = None,
    as_json: Json = False,
) -> None:
    """List the images, with last use and whether they stay.

    Those that hold most by themselves come first. Whether one stays is what `caisson prune` would say at this moment.
    """
    invocation(ctx).json = as_json
    if repository:
        from caisson.retention.patterns import check_repository_pattern

        try:
            check_repository_pattern(repository)
        except ValueError as error:
            raise typer.BadParameter(f"--repository: {error}.", ctx) from None
    from caisson.settings import load_settings
    from deployments.cli_images import show_images
    from deployments.cli_plan import policy_of

    settings = load_settings()
    show_images(settings, policy_of(settings, policy), repository=repository, as_json=as_json)


@app.command(cls=Command, epilog="caisson why team/app:1.2\ncaisson why 3f2a9c\ncaisson why debian --json | jq .goes")
def why(
    ctx: typer.Context,
    image: Annotated[str, typer.Argument(metavar="IMAGE", help="REPOSITORY[:TAG], a tag, or an ID's beginning.")],
    policy: Policy = None,
    as_json: Json = False,
) -> None:
    """Say why an image stays or goes, and when its time is over."""
    invocation(ctx).json = as_json
    from caisson.settings import load_settings
    from deployments.cli_images import show_why
    from deployments.cli_plan import policy_of

    settings = load_settings()
    show_why(settings, policy_of(settings, policy), image, as_json=as_json)


cli_hosts.register(app)
app.add_typer(cli_alerts.app, name="alerts")
app.add_typer(cli_tokens.app, name="tokens")
app.add_typer(cli_webhooks.app, name="webhooks")
app.command("guard", cls=Command, epilog=cli_guard.EXAMPLES)(cli_guard.guard)


@app.command("builder-image", cls=Command)
def builder_image() -> None:
    """Make the builders' image, or renew one that is old."""
    from deployments.cli_setup import make_builder_image

    make_builder_image(say=typer.echo)


@app.command(cls=Command)
def version(ctx: typer.Context, as_json: Json = False) -> None:
    """Print the versions of Caisson and of what it stands on."""
    invocation(ctx).json = as_json
    from deployments.cli_version import print_versions

    print_versions(as_json=as_json)


def main() -> None:
    """The console script."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            # A terminal that can't show a character is no reason to end a build.
            stream.reconfigure(errors="replace")
    if sys.argv[1:] == ["version"]:
        # It has nothing to parse, and typer loads pydantic for that: 0.2 s more.
        from deployments.cli_version import print_versions

        print_versions(as_json=False)
    else:
        app(prog_name="caisson")
