"""What every command shares: help in groups with examples, and failures as one sentence with an exit code.

Help is laid out here and not by rich, whose import alone takes longer than the whole answer may.
"""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import typer
from typer.core import TyperCommand, TyperGroup

from caisson.errors import CaissonError
from caisson.untrusted import clean

EXIT_DEFECT = 1


class _Formatter(Protocol):
    def section(self, name: str) -> Any: ...
    def write_dl(self, rows: list[tuple[str, str]]) -> None: ...
    def write(self, string: str) -> None: ...


def _write_options(command: TyperCommand | TyperGroup, ctx: Any, formatter: _Formatter) -> None:
    sections: dict[str, list[tuple[str, str]]] = {}
    for parameter in command.get_params(ctx):
        record = parameter.get_help_record(ctx)
        if record is not None:
            default = "Arguments" if parameter.param_type_name == "argument" else "Options"
            sections.setdefault(getattr(parameter, "rich_help_panel", None) or default, []).append(record)
    for title, rows in sections.items():
        with formatter.section(title):
            formatter.write_dl(rows)


def _write_examples(epilog: str | None, formatter: _Formatter) -> None:
    if epilog:
        lines = "\n".join(f"  {line}".rstrip() for line in epilog.strip().splitlines())
        formatter.write(f"\nExamples:\n{lines}\n")


class Command(TyperCommand):
    """A command whose options are listed by panel, and whose epilog holds examples, line by line."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        # As every other program writes them; Typer puts what is required in braces.
        return [piece.strip("{}") for piece in super().collect_usage_pieces(ctx)]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        _write_options(self, ctx, formatter)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002
        _write_examples(self.epilog, formatter)


@dataclass
class Invocation:
    """How this invocation reports failures; options set it before the command runs."""

    debug: bool = False
    json: bool = False


def invocation(ctx: typer.Context) -> Invocation:
    """The one object of this invocation."""
    found: Invocation = ctx.find_root().ensure_object(Invocation)
    return found


class Group(TyperGroup):
    """The program: failures of its commands become one sentence on stderr and the failure's own exit code."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        _write_options(self, ctx, formatter)
        self.format_commands(ctx, formatter)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002
        _write_examples(self.epilog, formatter)

    def invoke(self, ctx: Any) -> Any:
        ctx.obj = Invocation()
        try:
            return super().invoke(ctx)
        except CaissonError as error:
            _trace(ctx.obj, error)
            report_failure(error.to_dict(), as_json=ctx.obj.json)
            raise typer.Exit(error.exit_code) from None
        except BrokenPipeError:
            # Whoever read our output has seen enough; Python would complain once more while it shuts down.
            sys.stdout = None
            raise typer.Exit(0) from None
        except Exception as error:
            if type(error).__module__.startswith("typer."):
                raise
            _trace(ctx.obj, error)
            report_failure(_defect(error).to_dict(), as_json=ctx.obj.json)
            raise typer.Exit(EXIT_DEFECT) from None


def report_failure(failure: Mapping[str, Any], *, as_json: bool) -> None:
    """One sentence and the way out on stderr; with ``as_json`` a document on stdout as well."""
    if as_json:
        typer.echo(json.dumps({"failure": failure}, indent=2, ensure_ascii=False))
    # Both can quote a stranger: a Dockerfile's step, a server's answer.
    fields = failure["details"].get("fields") or []
    if len(fields) > 1:
        typer.secho("caisson: The build request is invalid:", err=True, fg="red")
        for field in fields:
            typer.echo(f"  {field['field']}: {clean(field['message'])}", err=True)
    else:
        typer.secho(f"caisson: {clean(failure['message'])}", err=True, fg="red")
    if failure["hint"]:
        typer.echo(f"  {clean(failure['hint'])}", err=True)


def _trace(state: Invocation, error: Exception) -> None:
    if state.debug:
        traceback.print_exception(error, file=sys.stderr)


def _defect(error: Exception) -> CaissonError:
    log = _keep_trace(error)
    return CaissonError(
        f"Something went wrong that should not have: {type(error).__name__}: {str(error)[:500]}",
        hint=f"The details are in {log}; please report them." if log else "Try `caisson --debug …` for the details.",
    )


def _keep_trace(error: Exception) -> Path | None:
    """Append the traceback to the CLI's log in the state directory; None where that can't be written."""
    from caisson.settings import load_settings

    try:
        log = load_settings().state_dir / "logs" / "cli.log"
        log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with log.open("a", encoding="utf-8") as file:
            log.chmod(0o600)
            file.write("".join(traceback.format_exception(error)))
    except (OSError, CaissonError):
        return None
    return log
