"""Times as the ledger's tables have them: whole microseconds since 1970, UTC."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def to_stamp(moment: datetime) -> int:
    """Exact, unlike a floating-point number.

    >>> to_stamp(datetime(1970, 1, 1, 0, 0, 1, 5, tzinfo=UTC))
    1000005
    """
    return (moment - _EPOCH) // timedelta(microseconds=1)


def from_stamp(stamp: int) -> datetime:
    """The opposite of ``to_stamp``.

    >>> from_stamp(1000005).isoformat()
    '1970-01-01T00:00:01.000005+00:00'
    """
    return _EPOCH + timedelta(microseconds=stamp)
