"""Tables of text for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence


def table_lines(header: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Columns as wide as their widest cell, the last one as it is.

    >>> list(table_lines(("A", "B"), [("long", "x")]))
    ['A     B', 'long  x']
    """
    table = [header, *rows]
    widths = [max(len(line[column]) for line in table) for column in range(len(header))]
    for line in table:
        yield "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
