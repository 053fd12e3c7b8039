"""Sizes in bytes, as people write and read them."""

from __future__ import annotations

import re

_UNITS = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_SIZE = re.compile(r"(?P<number>\d{1,15}(?:\.\d{1,6})?)\s*(?P<unit>[kmgt]?)(?:i?b)?", re.IGNORECASE)


def parse_size(text: str) -> int:
    """Bytes from ``512``, ``2g``, ``1.5 GiB``; powers of 1024, as Docker's own ``--memory``.

    >>> parse_size("2g"), parse_size("1.5 GiB"), parse_size("512")
    (2147483648, 1610612736, 512)

    Raises ``ValueError`` for anything else.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text[:40]!r} is not a size such as 512m or 2g")
    return int(float(match["number"]) * _UNITS[match["unit"].lower()])


def format_size(size: int) -> str:
    """Bytes for people, to three figures.

    >>> format_size(0), format_size(1536), format_size(3 << 30)
    ('0 B', '1.5 KiB', '3 GiB')
    """
    value, unit = float(size), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if abs(value) < 1024:
            break
        value, unit = value / 1024, larger
    return f"{value:.3g} {unit}" if abs(value) < 1000 else f"{value:.0f} {unit}"
