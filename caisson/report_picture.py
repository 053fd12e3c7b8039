"""A build's time as a picture: an SVG in a data URI, the only way that Prefect's pages show one inside markdown.

An image in a data URI sees no style sheet of the page; so it brings its own ground, as dark as the pages' blocks of
code are in both of their themes. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal
from xml.sax.saxutils import escape

from caisson.report import BuildReport
from caisson.svg import data_uri
from caisson.untrusted import clean, shorten

Kind = Literal["completed", "cached", "failed", "skipped"]

_GROUND, _TEXT, _LOUD = "#1f2937", "#aab4c3", "#f3f4f6"
_COLOURS: dict[Kind, str] = {"completed": "#34b37e", "cached": "#60a5fa", "failed": "#f2555a", "skipped": "#8b949e"}
_WORDS: dict[Kind, str] = {"completed": "done", "cached": "from the cache", "failed": "failed", "skipped": "skipped"}

# About as wide as the pages' column of text: an image is shrunk to it, and its letters with it.
_WIDTH = 720
_MARGIN = 16
_LABELS = 262
_TIMES = 80
_TOP = 40
_BOTTOM = 40
_ROW = 22
_LABEL_CHARACTERS = 34
_MAX_DOCKERFILE_ROWS = 40
_BUILD_STEP = "build"


@dataclass(frozen=True)
class Bar:
    """One row: ``start`` and ``seconds`` on the build's own clock; ``nested`` for a step of the Dockerfile."""

    label: str
    start: float
    seconds: float
    kind: Kind
    nested: bool = False


def bars(report: BuildReport) -> list[Bar]:
    """The rows: the chain's steps, and the Dockerfile's below the one that builds, each where it began.

    Where the report does not say when, a step of the chain follows the one before it, and one of the Dockerfile begins
    with the building.
    """
    rows: list[Bar] = []
    clock = 0.0
    for step in report.steps:
        start = clock if step.start is None else max(0.0, step.start)
        rows.append(Bar(step.name, start, step.seconds, step.state))
        if step.name == _BUILD_STEP:
            rows.extend(_dockerfile_bars(report, start))
        clock = start + step.seconds
    return rows


def _dockerfile_bars(report: BuildReport, build_start: float) -> Iterator[Bar]:
    steps = report.dockerfile_steps
    slowest = sorted(range(len(steps)), key=lambda index: (not steps[index].error, -steps[index].seconds))
    shown = set(slowest[:_MAX_DOCKERFILE_ROWS])
    for index, step in enumerate(steps):
        kind: Kind = "failed" if step.error else "cached" if step.cached else "completed"
        if index in shown:
            start = build_start if step.start is None else max(build_start, step.start)
            yield Bar(step.name, start, step.seconds, kind, nested=True)


def format_seconds(seconds: float) -> str:
    """A duration for people.

    >>> format_seconds(0.0042), format_seconds(1.234), format_seconds(12.34), format_seconds(125), format_seconds(7260)
    ('4 ms', '1.23 s', '12.3 s', '2 min 5 s', '2 h 1 min')
    """
    if seconds < 0.0995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 9.995:
        return f"{seconds:.2f} s"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def picture(report: BuildReport) -> str:
    """The picture as a ``data:`` URI; empty when no step has run."""
    rows = bars(report)
    if not rows:
        return ""
    return data_uri(svg(rows, total=report.seconds))


def svg(rows: Sequence[Bar], *, total: float) -> str:
    """The rows as an SVG document; ``total`` seconds are the least that the axis spans."""
    span = max([total, 0.001, *(row.start + row.seconds for row in rows)])
    scale = (_WIDTH - _LABELS - _TIMES) / span
    height = _TOP + len(rows) * _ROW + _BOTTOM
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" viewBox="0 0 {_WIDTH} {height}" '
        f'font-family="ui-sans-serif,system-ui,sans-serif" font-size="12" fill="{_TEXT}">'
        f'<rect x="0" y="0" width="{_WIDTH}" height="{height}" rx="6" fill="{_GROUND}"/>'
    ]
    parts.extend(_grid(span, scale, height - _BOTTOM))
    for index, row in enumerate(rows):
        parts.extend(_row(row, scale, _TOP + index * _ROW))
    parts.extend(_legend(rows, height - 14))
    parts.append("</svg>")
    return "".join(parts)


def _grid(span: float, scale: float, bottom: int) -> Iterator[str]:
    step = _tick(span)
    for count in range(int(span / step) + 1):
        x = _LABELS + count * step * scale
        yield f'<rect x="{x:.1f}" y="{_TOP - 8}" width="1" height="{bottom - _TOP + 12}" fill-opacity=".18"/>'
        yield f'<text x="{x:.1f}" y="{_TOP - 16}" text-anchor="middle" font-size="11">{_axis(count * step)}</text>'


def _tick(span: float) -> float:
    """The round number of seconds that makes at most six ticks of ``span``."""
    for step in (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600):
        if span / step <= 6:
            return step
    return 3600.0 * (int(span / 3600 / 6) + 1)


def _axis(seconds: float) -> str:
    return f"{seconds:g} s" if seconds < 60 else f"{seconds / 60:g} min" if seconds < 3600 else f"{seconds / 3600:g} h"


def _row(row: Bar, scale: float, y: int) -> Iterator[str]:
    label = escape(shorten(clean(row.label), _LABEL_CHARACTERS - 3 * row.nested))
    start, width = _LABELS + row.start * scale, max(row.seconds * scale, 2)
    baseline = y + _ROW / 2 + 4
    if row.nested:
        font, bar, opacity = f'font-family="ui-monospace,monospace" font-size="10.5" fill="{_TEXT}"', 8, 0.8
    else:
        font, bar, opacity = f'font-weight="600" fill="{_LOUD}"', 12, 1
    yield f'<text x="{_MARGIN + 12 * row.nested}" y="{baseline:.1f}" {font}>{label}</text>'
    yield (
        f'<rect x="{start:.1f}" y="{y + (_ROW - bar) / 2:.1f}" width="{width:.1f}" height="{bar}" rx="2" '
        f'fill="{_COLOURS[row.kind]}" fill-opacity="{opacity}"/>'
    )
    yield f'<text x="{start + width + 6:.1f}" y="{baseline:.1f}" font-size="11">{_took(row)}</text>'


def _took(row: Bar) -> str:
    return "cached" if row.kind == "cached" else format_seconds(row.seconds)


def _legend(rows: Sequence[Bar], y: int) -> Iterator[str]:
    kinds = {row.kind for row in rows}
    x = _LABELS
    for kind, colour in _COLOURS.items():
        if kind in kinds:
            yield f'<rect x="{x}" y="{y - 9}" width="10" height="10" rx="2" fill="{colour}"/>'
            yield f'<text x="{x + 15}" y="{y}" font-size="11">{_WORDS[kind]}</text>'
            x += 110
