"""``caisson join``, ``leave``, ``drain``, ``undrain`` and ``hosts``: more than one host."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from deployments.cli_help import Command, invocation

JOIN_EXAMPLES = """
caisson join --api https://caisson.example.com:4200 --token token.txt
CAISSON_JOIN_TOKEN=builder:… caisson join --api https://caisson.example.com:4200
"""
Host = Annotated[str, typer.Argument(metavar="HOST", help="A host's name; without it, this one.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the program."""
    app.command("server", cls=Command)(server)
    app.command("join", cls=Command, epilog=JOIN_EXAMPLES)(join)
    app.command("leave", cls=Command)(leave)
    app.command("drain", cls=Command, epilog="caisson drain --wait\ncaisson drain build-2")(drain)
    app.command("undrain", cls=Command)(undrain)
    app.command("hosts", cls=Command, epilog="caisson hosts\ncaisson hosts --json | jq -r '.hosts[].name'")(hosts)


def server() -> None:
    """Run Prefect's server alone, for hosts that join it.

    `caisson up` is this and a worker. On an address that others reach, CAISSON_API_AUTH must be set.
    """
    from caisson.settings import load_settings
    from deployments.server import run_server

    run_server(load_settings())


def join(
    api: Annotated[str, typer.Option("--api", metavar="URL", help="Prefect's address on the host that has it.")],
    token_file: Annotated[
        str,
        typer.Option(
            "--token",
            "--token-file",
            metavar="FILE",
            help="A file that holds the API's user:password; - is standard input.",
        ),
    ] = "",
) -> None:
    """Have this host build with others.

    It is connected to their Prefect, and has its queues and deployments there.

    The token is CAISSON_API_AUTH of the host with the server. It is read from --token, else from
    CAISSON_JOIN_TOKEN, never from an argument, which every user of this host could see. `caisson up` then runs a worker
    and no server.
    """
    from caisson.settings import load_settings
    from deployments.joining import join as run
    from deployments.joining import read_token

    run(load_settings(), api, read_token(token_file), say=typer.echo)


def leave() -> None:
    """Have this host build with no others any more.

    Its queues and deployments are removed from the Prefect that it joined, and builds that wait for this very host
    with them.
    """
    from caisson.settings import load_settings
    from deployments.joining import leave as run

    run(load_settings(), say=typer.echo)


def drain(
    host: Host = "",
    wait: Annotated[bool, typer.Option("--wait", help="Return when its builds have ended.")] = False,
) -> None:
    """Have a host take no more builds.

    Those that go on there finish, and it is still looked after: disk, prunes. It drains until `caisson undrain`, also
    over a restart.
    """
    from caisson.settings import load_settings
    from deployments.host_states import wait_until_idle
    from deployments.joining import set_drain
    from deployments.prefect_api import PrefectApi

    settings = load_settings()
    name = host or settings.host_name
    with PrefectApi.of(settings) as api:
        before = set_drain(api, name, drain=True)
        typer.echo(f"Host {name} drains: {before.running} running, {before.queued} waiting for this very host.")
        if wait:
            wait_until_idle(api, name, say=typer.echo)
            typer.echo(f"Host {name} builds nothing.")


def undrain(host: Host = "") -> None:
    """Have a host take builds again."""
    from caisson.settings import load_settings
    from deployments.joining import set_drain
    from deployments.prefect_api import PrefectApi

    settings = load_settings()
    name = host or settings.host_name
    with PrefectApi.of(settings) as api:
        set_drain(api, name, drain=False)
    typer.echo(f"Host {name} takes builds again.")


def hosts(
    ctx: typer.Context, as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False
) -> None:
    """List the hosts: state, builds, disk, version."""
    invocation(ctx).json = as_json
    from datetime import UTC, datetime

    from caisson.settings import load_settings
    from caisson.sizes import format_size
    from deployments.cli_table import table_lines
    from deployments.host_states import ago, host_states, queued_builds, running_builds
    from deployments.names import SHARED_QUEUE
    from deployments.prefect_api import PrefectApi

    with PrefectApi.of(load_settings()) as api:
        queued = queued_builds(api)
        found, shared = host_states(api, running=running_builds(api), queued=queued), queued[SHARED_QUEUE]
    if as_json:
        typer.echo(json.dumps({"hosts": [host.document for host in found], "shared_queued": shared}, indent=2))
        return
    now = datetime.now(UTC)
    rows = [
        (
            host.name,
            host.state if host.engine_answers else f"{host.state}, no engine",
            f"{host.running} of {host.slots}",
            str(host.queued),
            f"{host.level}, {format_size(host.free_bytes)} free" if host.free_bytes else "unknown",
            host.version or "unknown",
            ago(host.last_seen, now),
        )
        for host in found
    ]
    header = ("HOST", "STATE", "RUNNING", "QUEUED", "DISK", "VERSION", "LAST SEEN")
    for line in table_lines(header, rows):
        typer.echo(line)
    typer.echo(f"{shared} {'build waits' if shared == 1 else 'builds wait'} for any host.")
