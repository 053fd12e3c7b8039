"""``caisson tokens``: who may use Caisson's own API, and for what."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deployments.cli_help import Command, invocation

if TYPE_CHECKING:
    from caisson.tokens import TokenRecord
    from deployments.token_store import TokenStore

CREATE_EXAMPLES = """
caisson tokens create ci --scope build --image 'team/*' --repository 'github.com/team/*'
caisson tokens create dashboard --scope read --expires 365d
caisson tokens create ops --scope admin --expires never > token.txt
"""

app = typer.Typer(
    rich_markup_mode=None,
    no_args_is_help=True,
    help="Make, list and revoke tokens of Caisson's own API.",
)


@app.command("create", cls=Command, epilog=CREATE_EXAMPLES)
def create(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="What it is for, such as the name of who will have it.")],
    scope: Annotated[
        list[str],
        typer.Option(
            "--scope",
            metavar="SCOPE",
            help="build: start, read and cancel builds; read: builds, images, disk, metrics; admin: everything. "
            "May be repeated.",
        ),
    ],
    image: Annotated[
        list[str] | None,
        typer.Option("--image", metavar="PATTERN", help="Only builds of such images, as team/*; may be repeated."),
    ] = None,
    repository: Annotated[
        list[str] | None,
        typer.Option(
            "--repository", metavar="PATTERN", help="Only builds of such git repositories, as github.com/team/*."
        ),
    ] = None,
    secret: Annotated[
        list[str] | None,
        typer.Option(
            "--secret",
            metavar="PATTERN",
            help="Names of secrets that its builds may use, as team-*; may be repeated. Without it, a token "
            "that is limited to images or repositories may use none.",
        ),
    ] = None,
    expires: Annotated[str, typer.Option("--expires", metavar="AGE", help="Such as 90d or 12h, or never.")] = "90d",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
) -> None:
    """Make a token. It is printed this once and kept nowhere: only a hash of it is.

    In patterns * is any part of a name between slashes, ** any parts.
    """
    invocation(ctx).json = as_json
    from caisson.errors import RequestInvalid
    from caisson.tokens import check_name, make_grant, parse_lifetime

    try:
        check_name(name)
        grant = make_grant(scope, image or (), repository or (), secret or ())
        lifetime = parse_lifetime(expires)
    except ValueError as error:
        raise RequestInvalid(f"The token can't be made: {error}.") from None
    token, record = _store().create(name, grant, lifetime=lifetime)
    if as_json:
        typer.echo(json.dumps({**_document(record), "token": token}, indent=2))
        return
    typer.echo(token)
    until = f"until {record.expires:%Y-%m-%d %H:%M} UTC" if record.expires else "for ever"
    typer.echo(f"The token {name!r} ({_grant(record)}) is valid {until}. It is not shown again.", err=True)


@app.command("list", cls=Command)
def list_(
    ctx: typer.Context, as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False
) -> None:
    """List the tokens: rights, end and last use of each."""
    invocation(ctx).json = as_json
    records = _store().all()
    if as_json:
        typer.echo(json.dumps([_document(record) for record in records], indent=2))
        return
    if not records:
        typer.echo("There are no tokens: nobody can use Caisson's own API. `caisson tokens create --help` shows how.")
        return
    from caisson.durations import format_ago
    from deployments.cli_table import table_lines

    now = datetime.now(UTC)
    rows = [
        (
            record.id,
            record.name,
            _grant(record),
            "expired" if record.expired(now) else f"{record.expires:%Y-%m-%d}" if record.expires else "never",
            format_ago(record.last_used, now) if record.last_used else "never",
        )
        for record in records
    ]
    for line in table_lines(("ID", "NAME", "MAY", "EXPIRES", "LAST USED"), rows):
        typer.echo(line)


@app.command("revoke", cls=Command)
def revoke(name: Annotated[str, typer.Argument(metavar="NAME", help="The token's name or ID.")]) -> None:
    """Revoke a token, at once."""
    from caisson.errors import RequestInvalid

    if "_" in name and name.startswith("caisson_"):
        # It is in the shell's history now, and other users may have seen it.
        typer.echo("That is a token, not its name: revoke it by its ID, and keep tokens out of arguments.", err=True)
        name = name.split("_")[1]
    record = _store().revoke(name)
    if record is None:
        raise RequestInvalid(f"name: there is no token {name[:60]!r}; `caisson tokens list` shows them.")
    typer.echo(f"The token {record.name!r} is revoked.")


def _store() -> TokenStore:
    from caisson.settings import load_settings
    from deployments.token_store import TokenStore

    return TokenStore.of(load_settings())


def _grant(record: TokenRecord) -> str:
    grant = record.grant
    limits = [f"images {', '.join(grant.images)}"] if grant.images else []
    limits += [f"repositories {', '.join(grant.repositories)}"] if grant.repositories else []
    limits += [f"secrets {', '.join(grant.secrets)}"] if grant.secrets else []
    return "; ".join((", ".join(sorted(grant.scopes)), *limits))


def _document(record: TokenRecord) -> dict[str, Any]:
    return {
        "id": record.id,
        "name": record.name,
        "scopes": sorted(record.grant.scopes),
        "images": record.grant.images,
        "repositories": record.grant.repositories,
        "secrets": record.grant.secrets,
        "created": record.created.isoformat(timespec="seconds"),
        "expires": record.expires.isoformat(timespec="seconds") if record.expires else None,
        "last_used": record.last_used.isoformat(timespec="seconds") if record.last_used else None,
    }
