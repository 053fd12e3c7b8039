"""``caisson doctor``: what is wrong with this host and how to mend it, and ``--settings``: what is set."""

from __future__ import annotations

import json
import shutil
import sys
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import asdict

import typer

from caisson.errors import SettingsInvalid
from caisson.settings import Settings, load_settings
from caisson.untrusted import clean
from deployments.cli_view import has_colour
from deployments.doctor import diagnose, has_problem
from deployments.doctor.facts import Item, Status
from deployments.doctor.gather import gather
from deployments.doctor.settings_table import SettingRow, read_sources, settings_rows

_MARKS: dict[Status, tuple[str, str]] = {"ok": ("✓", "green"), "warning": ("!", "yellow"), "problem": ("✗", "red")}
_LABEL = 16
_LEAST_WIDTH, _MOST_WIDTH, _PLAIN_WIDTH = 60, 120, 100


def run_doctor(*, as_json: bool) -> int:
    """Look at the host and print what was found; returns the exit code: 1 when there is a problem."""
    items = _items()
    problem = has_problem(items)
    if as_json:
        typer.echo(json.dumps({"ok": not problem, "items": [asdict(item) for item in items]}, indent=2))
    else:
        colour = has_colour(sys.stdout)
        for line in item_lines(items, width=_width(), colour=colour):
            typer.echo(line, color=colour)
    return int(problem)


def _items() -> list[Item]:
    try:
        settings = load_settings()
    except SettingsInvalid as error:
        # Nothing else can be looked at without knowing where it is.
        fix = error.hint or "`caisson doctor --settings` explains each, once they can be read."
        return [Item("settings", "problem", error.message, fix)]
    return diagnose(gather(settings))


def item_lines(items: Sequence[Item], *, width: int, colour: bool) -> Iterator[str]:
    """The items for people, wrapped to ``width``; the fix below each, and a count at the end."""
    for item in items:
        mark, name = _MARKS[item.status]
        shown = typer.style(mark, fg=name, bold=True) if colour else mark
        first, *rest = textwrap.wrap(clean(item.message), max(20, width - _LABEL - 3)) or [""]
        yield f"{shown} {item.name:<{_LABEL}} {first}"
        yield from (f"  {'':<{_LABEL}} {line}" for line in rest)
        if item.fix:
            fix = textwrap.wrap(clean(item.fix), max(20, width - _LABEL - 5), break_on_hyphens=False)
            yield from (f"  {'':<{_LABEL}} {'→' if index == 0 else ' '} {line}" for index, line in enumerate(fix))
    problems = sum(item.status == "problem" for item in items)
    warnings = sum(item.status == "warning" for item in items)
    if problems or warnings:
        yield f"{_count(problems, 'problem')}, {_count(warnings, 'warning')}."
    else:
        yield "All is well."


def _count(number: int, word: str) -> str:
    return f"{number or 'No'} {word}{'' if number == 1 else 's'}"


def _width() -> int:
    if not sys.stdout.isatty():
        return _PLAIN_WIDTH
    return min(_MOST_WIDTH, max(_LEAST_WIDTH, shutil.get_terminal_size().columns))


def run_settings(*, as_json: bool) -> None:
    """Print every setting; raises ``SettingsInvalid``."""
    settings: Settings = load_settings()
    rows = settings_rows(settings, read_sources())
    if as_json:
        typer.echo(json.dumps([asdict(row) for row in rows], indent=2, ensure_ascii=False))
    else:
        _print_table(rows)


def _print_table(rows: Sequence[SettingRow]) -> None:
    from rich.console import Console
    from rich.table import Table

    # Into a pipe or a file goes the whole table: a terminal's 80 columns would break each line in five.
    console = Console(width=None if sys.stdout.isatty() else 180, highlight=False, markup=False, emoji=False)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("Variable", "Value", "Default", "Source"):
        table.add_column(name, overflow="fold")
    table.add_column("What it is", overflow="fold", ratio=1)
    for row in rows:
        default = "" if row.value == row.default else row.default
        style = None if row.source == "default" else "bold"
        table.add_row(row.variable, row.value, default, row.source, row.description, style=style)
    console.print(table)
