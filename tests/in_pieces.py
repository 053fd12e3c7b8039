"""The same bytes in pieces of any size, for readers that must not mind."""

from __future__ import annotations

from collections.abc import Iterator

from caisson.guard.http1 import HeadReader, Malformed


def pieces(data: bytes, step: int) -> Iterator[bytes]:
    return (data[at : at + step] for at in range(0, len(data), step))


def read_head(data: bytes, step: int, limit: int) -> tuple[bytes, bytes] | str | None:
    """Head and rest, or why there is none."""
    reader, rest = HeadReader(limit), pieces(data, step)
    try:
        for piece in rest:
            if (found := reader.feed(piece)) is not None:
                return found[0], found[1] + b"".join(rest)
    except Malformed as error:
        return str(error)
    return None
