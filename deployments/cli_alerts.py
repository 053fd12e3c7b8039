"""``caisson alerts``: be told when Docker's disk fills up, and when it has recovered."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from deployments.cli_help import Command, invocation

if TYPE_CHECKING:
    from caisson.settings import Settings

SET_EXAMPLES = """
caisson alerts set webhook < url.txt
CAISSON_SECRET_ALERT=https://hooks.slack.com/services/… caisson alerts set slack
caisson alerts set email --from caisson@example.com --to ops@example.com < sendgrid-key.txt
caisson alerts set discord-webhook/ops
caisson alerts test webhook
"""
SECRET_VARIABLE = "CAISSON_SECRET_ALERT"  # noqa: S105

app = typer.Typer(
    rich_markup_mode=None,
    no_args_is_help=True,
    help="Be told of a full disk, and of what prunes and audits find.",
)
Name = Annotated[
    str,
    typer.Option(
        "--name", metavar="NAME", help="To have several of one kind.  [default: the kind, or the block's name]"
    ),
]


@app.command("set", cls=Command, epilog=SET_EXAMPLES)
def set_(
    kind: Annotated[
        str,
        typer.Argument(
            metavar="KIND",
            help="Where alerts go: webhook, slack, email (by SendGrid), or a block of Prefect's as TYPE-SLUG/NAME.",
        ),
    ],
    name: Name = "",
    sender: Annotated[str, typer.Option("--from", metavar="ADDRESS", help="Sender of the e-mail.")] = "",
    to: Annotated[list[str] | None, typer.Option("--to", metavar="ADDRESS", help="Recipient; may be repeated.")] = None,
    forecast: Annotated[bool, typer.Option(help="Tell forecasts too, when they change.")] = True,
) -> None:
    """Set up an alert, or renew it.

    The webhook's URL, or the API key for e-mail, is read from CAISSON_SECRET_ALERT or else from standard input: an
    argument would be seen by every user of this host. A block that was made in Prefect has what it needs:
    discord-webhook/ops is the one named ops of that type.
    """
    from deployments.names import ALERT_KINDS

    secret = _read_secret(kind) if kind in ALERT_KINDS else ""
    settings = _use_prefect()
    from deployments.alerts import set_alert

    made = set_alert(settings, kind, secret, name=name, to=to or (), sender=sender, on_forecast=forecast)
    typer.echo(f"The alert {made} is set up. `caisson alerts test {made}` tries it.")


@app.command("list", cls=Command)
def list_(
    ctx: typer.Context, as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False
) -> None:
    """List the alerts."""
    invocation(ctx).json = as_json
    _use_prefect()
    import json
    from dataclasses import asdict

    from deployments.alerts import list_alerts

    found = list_alerts()
    if as_json:
        typer.echo(json.dumps([asdict(alert) for alert in found], indent=2))
    elif not found:
        typer.echo("No alert is set up: nobody is told when the disk fills up. `caisson alerts set --help` shows how.")
    for alert in found if not as_json else ():
        typer.echo(f"{alert.name:<20} {alert.kind:<8} {'enabled' if alert.enabled else 'disabled in Prefect'}")


@app.command("test", cls=Command)
def test(name: Annotated[str, typer.Argument(metavar="NAME", help="The alert's name.")]) -> None:
    """Have one alert tell a test."""
    settings = _use_prefect()
    from deployments.alerts import test_alert

    test_alert(name, settings.host_name)
    typer.echo("A test was sent; it should arrive within seconds.")


@app.command("remove", cls=Command)
def remove(name: Annotated[str, typer.Argument(metavar="NAME", help="The alert's name.")]) -> None:
    """Remove an alert, and the secret with it."""
    _use_prefect()
    from deployments.alerts import remove_alert

    if not remove_alert(name):
        from caisson.errors import RequestInvalid

        raise RequestInvalid(f"name: there is no alert {name[:60]!r}; `caisson alerts list` shows them.")
    typer.echo(f"The alert {name} is removed.")


def _read_secret(kind: str) -> str:
    if secret := os.environ.get(SECRET_VARIABLE, "").strip():
        return secret
    what = "SendGrid API key" if kind == "email" else "URL"
    if sys.stdin.isatty():
        return str(typer.prompt(f"{what} (it is not shown)", hide_input=True, err=True)).strip()
    return sys.stdin.readline().strip()


def _use_prefect() -> Settings:
    """Have Prefect's client, which is not imported yet, talk to the Caisson that runs; returns the settings."""
    from caisson.errors import ServiceUnreachable
    from caisson.settings import load_settings
    from deployments.cli_service import use_secrets_of
    from deployments.state import find_running

    settings = load_settings()
    if not settings.api_url and find_running(settings) is None:
        raise ServiceUnreachable(
            "No Caisson runs on this host.", hint="Start it with `caisson up`, or set CAISSON_API_URL."
        )
    use_secrets_of(settings)
    return settings
