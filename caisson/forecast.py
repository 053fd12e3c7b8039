"""When a disk will be full, as far as its past can tell. Pure.

The slope is Theil and Sen's: the median of the slopes between all pairs of samples, which up to 29 % of outliers don't
move. Its interval holds two others: Sen's (1968), from the variance of Kendall's tau, widened for samples that depend
on each other (Hamed and Rao 1998, with the lag-1 autocorrelation only), and that of a random walk with drift, from the
long-run variance of the increments (Newey and West 1987). For the use of a disk is a sum of what came and went, and
taken for independent readings a mere random walk would show a "trend" most of the time.

Only what came after the last prune, or other jump, counts: before it another line went up.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Literal

from caisson.sizes import format_size

Resource = Literal["bytes", "inodes"]

MOST_POINTS = 96
"""Points that the fit sees: more cost time (pairs) and tell nothing new."""
FEWEST_POINTS = 8
LEAST_SPAN = timedelta(minutes=30)
FARTHEST = 20.0
"""A forecast reaches at most so many times as far ahead as its samples reach back."""
DROP = 0.05
"""A fall by more than this share of the disk between two samples is a prune, whoever did it."""
RISE = 0.10
"""A rise by more than this share between two samples is an import, not growth."""
_QUANTILE = 1.96
_MOST_CORRELATION = 0.98
_LAGS = 6
_DAY = 86400.0


@dataclass(frozen=True)
class Point:
    """How much was in use at a time, in bytes or inodes."""

    at: datetime
    used: float


@dataclass(frozen=True)
class Forecast:
    """What the samples say. ``rate`` and its interval are per day; times are None where nothing can be said.

    ``trend``: ``growing`` or ``shrinking`` only where the whole interval says so, else ``none``.
    """

    resource: Resource
    trend: Literal["growing", "shrinking", "none"]
    points: int
    span: timedelta
    reason: str = ""
    """Why no time can be told, empty where it is."""
    rate: float = 0.0
    least_rate: float = 0.0
    most_rate: float = 0.0
    full_in: timedelta | None = None
    earliest: timedelta | None = None
    latest: timedelta | None = None


def forecast(
    points: Iterable[Point],
    *,
    free: int,
    total: int,
    resource: Resource = "bytes",
    resets: Iterable[datetime] = (),
) -> Forecast:
    """The time until ``free`` is used up, from ``points`` in order of time; ``resets`` are prunes that are known."""
    kept = since_last_jump(list(points), total=total, resets=resets)
    span = kept[-1].at - kept[0].at if kept else timedelta()
    thinned = _thin(kept)
    if len(thinned) < FEWEST_POINTS or span < LEAST_SPAN:
        reason = f"too few samples since the last jump ({len(kept)} in {format_span(span)})"
        return Forecast(resource, "none", len(kept), span, reason=reason)
    least, rate, most = (slope * _DAY for slope in _theil_sen(thinned))
    trend: Literal["growing", "shrinking", "none"] = "growing" if least > 0 else "shrinking" if most < 0 else "none"
    values = Forecast(resource, trend, len(kept), span, "", rate, least, most)
    if trend == "none":
        return _with(values, reason="what came and went is more than what grew")
    if trend == "shrinking":
        return _with(values, reason="its use goes down")
    full_in = _days(free / rate)
    if full_in is None or full_in > FARTHEST * span:
        return _with(
            values, reason=f"more than {format_span(FARTHEST * span)} ahead, as far as {len(kept)} samples see"
        )
    return _with(values, full_in=full_in, earliest=_days(free / most), latest=_days(free / least))


def since_last_jump(points: Sequence[Point], *, total: int, resets: Iterable[datetime] = ()) -> Sequence[Point]:
    """The points after the last prune that is known, and after the last jump."""
    last_reset = max(resets, default=None)
    begin = 0
    for index, point in enumerate(points):
        if last_reset is not None and point.at <= last_reset:
            begin = index + 1
        elif index and (
            points[index - 1].used - point.used > DROP * total or point.used - points[index - 1].used > RISE * total
        ):
            begin = index
    return points[begin:]


def nearest_full(forecasts: Iterable[Forecast]) -> Forecast | None:
    """The one that is full first; None where none will be, as far as can be told."""
    known = [item for item in forecasts if item.full_in is not None]
    return min(known, key=lambda item: item.full_in or timedelta.max, default=None)


def describe(item: Forecast) -> str:
    """For people: ``growing 3.1 GiB a day, full in about 9 days (6–14)``."""
    if item.trend == "none":
        return f"no trend: {item.reason}"
    rate = format_size(int(abs(item.rate))) if item.resource == "bytes" else f"{abs(item.rate):,.0f} inodes"
    if item.full_in is None or item.earliest is None:
        return f"{item.trend} {rate} a day; {item.reason}"
    middle, low, high = (format_span(span) for span in (item.full_in, item.earliest, item.latest or timedelta.max))
    words = f"{item.trend} {rate} a day, full in about {middle}"
    if low == middle == high:
        return words
    if item.latest is None:
        return f"{words} (at the earliest {low})"
    unit = middle.rpartition(" ")[2]
    if low.endswith(f" {unit}") and high.endswith(f" {unit}"):
        low, high = low.removesuffix(f" {unit}"), high.removesuffix(f" {unit}")
    return f"{words} ({low}–{high})"


def format_span(span: timedelta) -> str:
    """
    >>> format_span(timedelta(days=9, hours=3)), format_span(timedelta(hours=5)), format_span(timedelta(minutes=1))
    ('9 days', '5 hours', '1 minute')
    """
    seconds = span.total_seconds()
    for unit, length in (("day", _DAY), ("hour", 3600.0)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}s"
    minutes = round(seconds / 60)
    return f"{minutes} minute{'' if minutes == 1 else 's'}"


def _with(item: Forecast, **changes: Any) -> Forecast:
    return replace(item, **changes)


def _days(days: float) -> timedelta | None:
    """So many days; None where that is beyond all that a date can hold."""
    return timedelta(days=days) if days < 36_500 else None


def _thin(points: Sequence[Point]) -> list[tuple[float, float]]:
    """At most ``MOST_POINTS`` points, seconds and use: the medians of stretches of equal length in time."""
    if not points:
        return []
    begin = points[0].at
    plain = [((point.at - begin).total_seconds(), point.used) for point in points]
    if len(plain) <= MOST_POINTS:
        return plain
    width = (plain[-1][0] or 1.0) / MOST_POINTS
    stretches: dict[int, list[tuple[float, float]]] = {}
    for at, used in plain:
        stretches.setdefault(min(int(at / width), MOST_POINTS - 1), []).append((at, used))
    return [
        (statistics.median(at for at, _ in stretch), statistics.median(used for _, used in stretch))
        for stretch in stretches.values()
    ]


def _theil_sen(points: Sequence[tuple[float, float]]) -> tuple[float, float, float]:
    """The slope in the middle, between the ends of its 95 % interval."""
    count = len(points)
    slopes = sorted(
        (points[j][1] - points[i][1]) / (points[j][0] - points[i][0])
        for i in range(count)
        for j in range(i + 1, count)
        if points[j][0] > points[i][0]
    )
    if not slopes:
        return 0.0, 0.0, 0.0
    slope = statistics.median(slopes)
    correlation = _correlation([used - slope * at for at, used in points])
    spread = math.sqrt(count * (count - 1) * (2 * count + 5) / 18 * (1 + correlation) / (1 - correlation))
    half = _QUANTILE * spread / 2
    last = len(slopes) - 1
    lower, upper = math.floor(last / 2 - half), math.ceil(last / 2 + half)
    # Where the samples carry less than the interval asks for, it has no end on that side.
    least = slopes[lower] if lower >= 0 else -math.inf
    most = slopes[upper] if upper <= last else math.inf
    walk = _walk(points)
    return min(least, slope - walk), slope, max(most, slope + walk)


def _walk(points: Sequence[tuple[float, float]]) -> float:
    """Half the 95 % interval of the slope, were the points a random walk with drift."""
    increments = [after[1] - before[1] for before, after in itertools.pairwise(points)]
    count = len(increments)
    mean = statistics.fmean(increments)
    centred = [value - mean for value in increments]
    variance = sum(value * value for value in centred)
    for lag in range(1, _LAGS + 1):
        product = sum(a * b for a, b in zip(centred, centred[lag:], strict=False))
        variance += 2 * (1 - lag / (_LAGS + 1)) * product
    # The sum of the increments has ``count`` times the variance of one; ``variance`` is already a sum.
    return _QUANTILE * math.sqrt(max(variance, 0.0) * count / max(count - 1, 1)) / (points[-1][0] - points[0][0])


def _correlation(residuals: Sequence[float]) -> float:
    """Of each residual with the next, from 0 up: samples that alternate don't make the fit any surer."""
    mean = statistics.fmean(residuals)
    centred = [value - mean for value in residuals]
    # Samples are whole bytes and inodes: below one of them it is the rounding that depends on itself, not the disk.
    if max(map(abs, centred)) < 1:
        return 0.0
    power = sum(value * value for value in centred)
    found = sum(a * b for a, b in itertools.pairwise(centred)) / power
    return min(max(found, 0.0), _MOST_CORRELATION)
