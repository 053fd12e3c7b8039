"""``caisson webhooks``: what the file of webhooks says, and what an event would build by it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from deployments.cli_help import Command, invocation

if TYPE_CHECKING:
    from caisson.settings import Settings
    from caisson.webhooks.event import Event
    from caisson.webhooks.rules import Hook, Rules

app = typer.Typer(rich_markup_mode=None, no_args_is_help=True, help="Check what git hosts' webhooks build.")
_ZEROS = "0" * 40


@app.command(cls=Command, epilog="caisson webhooks check webhooks.toml\ncaisson webhooks check")
def check(
    file: Annotated[
        Path | None, typer.Argument(metavar="FILE", help="The file; without it, CAISSON_WEBHOOKS_FILE.")
    ] = None,
) -> None:
    """Say what the file of webhooks builds, or what is wrong in it.

    The builds are checked against this host's settings, too; a secret is only looked for, in this environment.
    """
    from caisson.settings import load_settings
    from deployments.cli_table import table_lines

    settings = load_settings()
    rules = _rules(settings, file)
    _check_builds(rules, settings)
    rows = [
        (f"/webhooks/{hook.name}", str(hook.provider), hook.expected_name, _when(hook, index), _what(hook, index))
        for hook in rules.hook
        for index in range(len(hook.rule))
    ]
    for line in table_lines(("WEBHOOK", "PROVIDER", "REPOSITORY", "WHEN", "BUILDS"), rows):
        typer.echo(line)
    for note in _notes(rules, settings):
        typer.echo(note, err=True)


@app.command(
    "test",
    cls=Command,
    epilog="caisson webhooks test app --event push --ref main\n"
    "caisson webhooks test app --event push --ref main --path docs/index.md\n"
    "caisson webhooks test app --event pull_request --ref main --fork --json",
)
def what_it_builds(
    ctx: typer.Context,
    hook: Annotated[str, typer.Argument(metavar="HOOK", help="The webhook's name.")],
    event: Annotated[Literal["push", "tag", "pull_request"], typer.Option("--event", help="What happens.")] = "push",
    ref: Annotated[
        str,
        typer.Option("--ref", metavar="REF", help="The branch or tag; of a pull request the branch that it is for."),
    ] = "main",
    path: Annotated[
        list[str] | None,
        typer.Option("--path", metavar="PATH", help="A changed file; may be repeated. [default: not known]"),
    ] = None,
    message: Annotated[str, typer.Option("--message", metavar="TEXT", help="The commit's message.")] = "",
    fork: Annotated[bool, typer.Option("--fork", help="The pull request is from a fork.")] = False,
    file: Annotated[
        Path | None, typer.Option("--file", metavar="FILE", help="Instead of CAISSON_WEBHOOKS_FILE.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Say what an event would build, and why not. Nothing is begun."""
    invocation(ctx).json = as_json
    from caisson.errors import RequestInvalid
    from caisson.settings import load_settings
    from caisson.webhooks.decision import decide

    rules = _rules(load_settings(), file)
    found = rules.find(hook)
    if found is None:
        names = ", ".join(each.name for each in rules.hook) or "none"
        raise RequestInvalid(f"HOOK: there is no webhook {hook[:60]!r}; there are: {names}.")
    decision = decide(found, [_event(found, event, ref, tuple(path) if path else None, message, fork=fork)])
    if as_json:
        document = {"builds": [build.request for build in decision.builds], "reasons": list(decision.reasons)}
        typer.echo(json.dumps(document, indent=2, ensure_ascii=False))
        return
    for build in decision.builds:
        request = json.dumps(
            {key: value for key, value in build.request.items() if key != "commit"}, ensure_ascii=False
        )
        typer.echo(f"rule {build.rule} builds {request}")
    for reason in decision.reasons:
        typer.echo(reason)


def _rules(settings: Settings, file: Path | None) -> Rules:
    from caisson.errors import SettingsInvalid
    from deployments.webhook_rules import read_rules_file

    if file is None and not settings.webhooks_file:
        raise SettingsInvalid("CAISSON_WEBHOOKS_FILE is not set.", hint="Set it, or name the file.")
    return read_rules_file(file or Path(settings.webhooks_file))


def _check_builds(rules: Rules, settings: Settings) -> None:
    from caisson.errors import RequestInvalid, SettingsInvalid
    from caisson.spec import make_spec

    for hook in rules.hook:
        for index, rule in enumerate(hook.rule):
            try:
                make_spec(hook.request(rule), settings)
            except RequestInvalid as error:
                problems = "; ".join(f"{each['field']}: {each['message']}" for each in error.details["fields"])
                raise SettingsInvalid(
                    f"Hook {hook.name!r}, rule {index + 1}: this host would refuse its builds: {problems}.",
                    hint="Change the rule's build, the hook's repository, or the host's settings.",
                ) from None


def _when(hook: Hook, index: int) -> str:
    rule = hook.rule[index]
    filters = (
        ("of" if rule.on == "tag" else "to", rule.tags or rule.branches),
        ("touching", rule.paths),
        ("beyond", rule.paths_ignore),
    )
    words = [f"{word} {', '.join(patterns)}" for word, patterns in filters if patterns]
    return " ".join([rule.on.replace("_", " "), *words, *(["with forks"] if rule.forks else [])])


def _what(hook: Hook, index: int) -> str:
    request = hook.request(hook.rule[index])
    return f"{request.image}{', pushed' if request.push else ''}"


def _notes(rules: Rules, settings: Settings) -> list[str]:
    from caisson.bindings import secret_variable
    from deployments.webhook_rules import secret_names

    notes = [
        f"{secret_variable(name)} is not set in this environment: "
        f"the secret {name!r} has to be a Secret block in Prefect."
        for name in dict.fromkeys(secret_names(rules))
        if not os.environ.get(secret_variable(name))
    ]
    if rules.link is None and any(hook.status for hook in rules.hook):
        notes.append(
            "link is not set, so statuses lead to "
            f"{settings.server_host}:{settings.server_port}, which others may not reach."
        )
    return notes


def _event(hook: Hook, event: str, ref: str, paths: tuple[str, ...] | None, message: str, *, fork: bool) -> Event:
    from caisson.errors import RequestInvalid
    from caisson.git import check_ref
    from caisson.webhooks.event import Event, EventKind, Provider

    try:
        check_ref(ref)
    except ValueError as error:
        raise RequestInvalid(f"--ref: {error}.") from None
    kind = EventKind(event)
    name, number = hook.expected_name, 1
    if kind is EventKind.TAG:
        return Event(kind, name, f"refs/tags/{ref}", _ZEROS, tag=ref, message=message)
    if kind is EventKind.PUSH:
        return Event(kind, name, f"refs/heads/{ref}", _ZEROS, branch=ref, message=message, paths=paths)
    merge = "merge-requests" if hook.provider is Provider.GITLAB else "pull"
    full = f"refs/{merge}/{number}/head"
    return Event(kind, name, full, _ZEROS, branch=ref, number=number, message=message, from_fork=fork)
