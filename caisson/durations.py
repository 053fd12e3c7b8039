"""Durations as people write and read them: ``90m``, ``12h``, ``30d``."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

_UNITS = {"w": 7 * 86400, "d": 86400, "h": 3600, "m": 60, "s": 1}
_DURATION = re.compile(r"(?P<number>\d{1,6}(?:\.\d{1,3})?)\s*(?P<unit>[wdhms])", re.IGNORECASE | re.ASCII)


def parse_duration(text: str) -> timedelta:
    """A duration from one number and its unit: weeks, days, hours, minutes or seconds.

    >>> parse_duration("30d").days, parse_duration("1.5h").seconds, parse_duration("0s").seconds
    (30, 5400, 0)

    Raises ``ValueError`` for anything else.
    """
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text[:40]!r} is not a duration such as 30d, 12h or 90m")
    return timedelta(seconds=float(match["number"]) * _UNITS[match["unit"].lower()])


def format_duration(span: timedelta) -> str:
    """A duration in the largest unit that holds it whole, as ``parse_duration`` reads it.

    >>> format_duration(timedelta(days=30)), format_duration(timedelta(minutes=90)), format_duration(timedelta())
    ('30d', '90m', '0s')
    """
    seconds = span.total_seconds()
    for unit in ("d", "h", "m"):
        if seconds and seconds % _UNITS[unit] == 0:
            return f"{int(seconds // _UNITS[unit])}{unit}"
    return f"{seconds:.3f}".rstrip("0").rstrip(".") + "s"


def format_age(span: timedelta) -> str:
    """An age for people, in its two largest units at most.

    >>> format_age(timedelta(days=12, hours=3)), format_age(timedelta(hours=3, minutes=5)), format_age(timedelta(0, 30))
    ('12 days', '3 h 5 min', '30 s')
    """
    seconds = max(0, int(span.total_seconds()))
    days, hours, minutes = seconds // 86400, seconds // 3600, seconds // 60
    if days >= 3:
        return f"{days} days"
    if hours:
        rest = minutes % 60
        return f"{hours} h {rest} min" if rest and hours < 24 else f"{hours} h"
    return f"{minutes} min" if minutes else f"{seconds} s"


def format_ago(date: datetime | None, now: datetime) -> str:
    """How long before ``now`` that was, for people; None is a date that is not known.

    >>> now = datetime(2026, 5, 30)
    >>> format_ago(datetime(2026, 5, 1), now), format_ago(now, now), format_ago(None, now)
    ('29 days ago', 'now', 'not known')
    """
    if date is None:
        return "not known"
    return "now" if date >= now else f"{format_age(now - date)} ago"
