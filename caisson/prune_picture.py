"""What frees what, as a picture: bars by rule, in an SVG in a data URI, as Prefect's pages show one. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal
from xml.sax.saxutils import escape

from caisson.prune_report import PruneReport
from caisson.retention.prune_plan import PrunePlan
from caisson.sizes import format_size
from caisson.svg import data_uri
from caisson.untrusted import clean, shorten

Kind = Literal["goes", "gone", "left", "stays"]
"""``goes``: by the plan; ``gone``: removed; ``left``: planned and not removed; ``stays``: kept, by what keeps it."""

_KINDS: tuple[Kind, ...] = ("goes", "gone", "left", "stays")
_COLOURS: dict[Kind, str] = {"goes": "#34b37e", "gone": "#34b37e", "left": "#e3a008", "stays": "#60a5fa"}
_WORDS: dict[Kind, str] = {
    "goes": "would go",
    "gone": "removed",
    "left": "planned, not removed",
    "stays": "stays, held only by images of this rule",
}
_GROUND, _TEXT, _LOUD = "#1f2937", "#aab4c3", "#f3f4f6"
_WIDTH, _MARGIN, _LABELS, _SIZES, _TOP, _ROW, _BOTTOM = 720, 16, 200, 90, 14, 22, 36
_LABEL_CHARACTERS = 26
_MOST_ROWS = 12
_OTHERS = "other rules"
_SEVERAL = {"several": "several rules"}


@dataclass(frozen=True)
class RuleBar:
    """One row: so many bytes by one rule."""

    rule: str
    size: int
    kind: Kind


def plan_bars(plan: PrunePlan) -> list[RuleBar]:
    """What would go and what stays, by rule, each with the largest first; nothing of 0 bytes."""
    goes = Counter[str]()
    for item in plan.items:
        goes[item.rule] += item.marginal_bytes
    return [*_bars(goes, "goes"), *_bars(plan.kept_bytes, "stays")]


def report_bars(report: PruneReport) -> list[RuleBar]:
    """What went, what was planned and did not, and what stays; bytes are the plan's, by the plan's rules."""
    gone, left = Counter[str](), Counter[str]()
    for result in report.results:
        if result.outcome == "removed":
            gone[result.item.rule] += result.item.marginal_bytes
        elif result.outcome != "gone":
            left[result.item.rule] += result.item.marginal_bytes
    return [*_bars(gone, "gone"), *_bars(left, "left"), *_bars(report.kept_bytes, "stays")]


def _bars(sizes: Mapping[str, int], kind: Kind) -> Iterator[RuleBar]:
    found = sorted(((rule, size) for rule, size in sizes.items() if size > 0), key=lambda pair: (-pair[1], pair[0]))
    for rule, size in found[:_MOST_ROWS]:
        yield RuleBar(_SEVERAL.get(rule, rule), size, kind)
    if rest := sum(size for _, size in found[_MOST_ROWS:]):
        yield RuleBar(_OTHERS, rest, kind)


def prune_picture(bars: Sequence[RuleBar]) -> str:
    """The bars as a ``data:`` URI; empty where there are none."""
    return data_uri(prune_svg(bars)) if bars else ""


def prune_svg(bars: Sequence[RuleBar]) -> str:
    """The bars below each other on one scale, as an SVG document."""
    height = _TOP + len(bars) * _ROW + _BOTTOM
    scale = (_WIDTH - _LABELS - _SIZES) / max(1, *(bar.size for bar in bars))
    return "".join(
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" '
            f'viewBox="0 0 {_WIDTH} {height}" font-family="ui-sans-serif,system-ui,sans-serif" font-size="12" '
            f'fill="{_TEXT}"><rect x="0" y="0" width="{_WIDTH}" height="{height}" rx="6" fill="{_GROUND}"/>',
            *(part for index, bar in enumerate(bars) for part in _row(bar, scale, _TOP + index * _ROW)),
            *_legend({bar.kind for bar in bars}, height - 13),
            "</svg>",
        )
    )


def _row(bar: RuleBar, scale: float, y: int) -> Iterator[str]:
    width, baseline = max(bar.size * scale, 2), y + _ROW / 2 + 4
    label = escape(shorten(clean(bar.rule), _LABEL_CHARACTERS))
    yield f'<text x="{_MARGIN}" y="{baseline:.1f}" fill="{_LOUD}">{label}</text>'
    yield (
        f'<rect class="{bar.kind}" x="{_LABELS}" y="{y + 5}" width="{width:.1f}" height="12" rx="2" '
        f'fill="{_COLOURS[bar.kind]}"/>'
    )
    yield f'<text x="{_LABELS + width + 6:.1f}" y="{baseline:.1f}" font-size="11">{format_size(bar.size)}</text>'


def _legend(kinds: Iterable[Kind], y: int) -> Iterator[str]:
    x = _LABELS
    for kind in (kind for kind in _KINDS if kind in kinds):
        yield f'<rect x="{x}" y="{y - 9}" width="10" height="10" rx="2" fill="{_COLOURS[kind]}"/>'
        yield f'<text x="{x + 15}" y="{y}" font-size="11">{_WORDS[kind]}</text>'
        x += 30 + 6 * len(_WORDS[kind])
