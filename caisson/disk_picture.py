"""How full the disks were in the last days, as a picture: an SVG in a data URI, as Prefect's pages show one. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from xml.sax.saxutils import escape

from caisson.svg import data_uri
from caisson.untrusted import clean, shorten

_GROUND, _TEXT, _LOUD, _LINE = "#1f2937", "#aab4c3", "#f3f4f6", "#60a5fa"
_BOUND_COLOURS = ("#34b37e", "#e3a008", "#f2555a")
_BOUND_NAMES = ("low", "high", "critical")
_PRUNE = "#c084fc"
_WIDTH, _LEFT, _RIGHT, _TITLE, _PLOT, _AXIS = 720, 44, 72, 30, 120, 26
_MOST_POINTS = 360


@dataclass(frozen=True)
class Series:
    """One line: shares in use from 0 to 1, the bounds low, high and critical as shares, and when there were prunes."""

    title: str
    points: Sequence[tuple[datetime, float]]
    bounds: tuple[float, float, float]
    prunes: Sequence[datetime] = ()


def disk_picture(series: Sequence[Series], *, now: datetime, span: timedelta) -> str:
    """The last ``span`` of each series as a ``data:`` URI; empty where none has two points in it."""
    begin = now - span
    shown = [item for item in series if sum(begin <= at <= now for at, _ in item.points) > 1]
    if not shown:
        return ""
    return data_uri(disk_svg(shown, begin=begin, now=now))


def disk_svg(series: Sequence[Series], *, begin: datetime, now: datetime) -> str:
    """The series below each other, on one axis of time."""
    each = _TITLE + _PLOT + _AXIS
    height = each * len(series) + 6
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" viewBox="0 0 {_WIDTH} {height}" '
        f'font-family="ui-sans-serif,system-ui,sans-serif" font-size="11" fill="{_TEXT}">'
        f'<rect x="0" y="0" width="{_WIDTH}" height="{height}" rx="6" fill="{_GROUND}"/>'
    ]
    for index, item in enumerate(series):
        parts.extend(_plot(item, begin, now, top=index * each + _TITLE))
    parts.append("</svg>")
    return "".join(parts)


def _plot(item: Series, begin: datetime, now: datetime, *, top: int) -> Iterator[str]:
    width, seconds = _WIDTH - _LEFT - _RIGHT, (now - begin).total_seconds()

    def x(at: datetime) -> float:
        return _LEFT + width * (at - begin).total_seconds() / seconds

    def y(share: float) -> float:
        return top + _PLOT * (1 - min(max(share, 0.0), 1.0))

    yield (
        f'<text x="{_LEFT}" y="{top - 11}" font-size="12" font-weight="600" fill="{_LOUD}">'
        f"{escape(shorten(clean(item.title), 90))}</text>"
    )
    for share in (0.0, 0.5, 1.0):
        yield f'<rect x="{_LEFT}" y="{y(share):.1f}" width="{width}" height="1" fill-opacity=".18"/>'
        yield f'<text x="{_LEFT - 6}" y="{y(share) + 4:.1f}" text-anchor="end">{share:.0%}</text>'
    for at, words in _ticks(begin, now):
        yield f'<rect x="{x(at):.1f}" y="{top}" width="1" height="{_PLOT}" fill-opacity=".12"/>'
        yield f'<text x="{x(at):.1f}" y="{top + _PLOT + 15}" text-anchor="middle">{words}</text>'
    for share, name, colour in zip(item.bounds, _BOUND_NAMES, _BOUND_COLOURS, strict=True):
        yield (
            f'<line x1="{_LEFT}" x2="{_LEFT + width}" y1="{y(share):.1f}" y2="{y(share):.1f}" stroke="{colour}" '
            f'stroke-dasharray="4 3" stroke-opacity=".8"/>'
        )
        yield f'<text x="{_LEFT + width + 6}" y="{y(share) + 4:.1f}" fill="{colour}">{name} {share:.0%}</text>'
    for at in item.prunes:
        if begin <= at <= now:
            yield (
                f'<line class="prune" x1="{x(at):.1f}" x2="{x(at):.1f}" y1="{top}" y2="{top + _PLOT}" '
                f'stroke="{_PRUNE}" stroke-width="1.5"/>'
                f'<text x="{x(at) + 3:.1f}" y="{top + 10}" fill="{_PRUNE}">prune</text>'
            )
    kept = _thin([(at, share) for at, share in item.points if begin <= at <= now])
    line = " ".join(f"{x(at):.1f},{y(share):.1f}" for at, share in kept)
    yield f'<polyline points="{line}" fill="none" stroke="{_LINE}" stroke-width="1.8" stroke-linejoin="round"/>'


def _thin(points: Sequence[tuple[datetime, float]]) -> list[tuple[datetime, float]]:
    """So many points that each is worth a pixel: of each stretch its highest, since peaks are what matters."""
    if len(points) <= _MOST_POINTS:
        return list(points)
    stretch = len(points) / _MOST_POINTS
    bounds = [round(index * stretch) for index in range(_MOST_POINTS + 1)]
    kept = [max(points[i:j], key=lambda point: point[1]) for i, j in zip(bounds, bounds[1:], strict=False) if i < j]  # noqa: RUF007
    return kept if kept[-1] == points[-1] else [*kept, points[-1]]


def _ticks(begin: datetime, now: datetime) -> Iterator[tuple[datetime, str]]:
    """Midnights, or for less than two days every six hours; UTC."""
    hours = 24 if now - begin >= timedelta(days=2) else 6
    at = begin.replace(hour=0, minute=0, second=0, microsecond=0)
    while at <= now:
        if at >= begin:
            yield at, f"{at:%a %d}" if at.hour == 0 else f"{at:%H:%M}"
        at += timedelta(hours=hours)
