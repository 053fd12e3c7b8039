"""How fast callers may ask: a token bucket for each. Pure but for the clock, which is passed in."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass


@dataclass
class _Bucket:
    left: float
    at: float


class RateLimit:
    """Each caller may send ``rate`` requests a second on average, and ``burst`` at once.

    >>> now = 0.0
    >>> limit = RateLimit(rate=2, burst=2, clock=lambda: now)
    >>> [limit.wait_seconds("me") for _ in range(3)]
    [0.0, 0.0, 0.5]
    >>> now = 0.5
    >>> limit.wait_seconds("me"), limit.wait_seconds("you")
    (0.0, 0.0)
    """

    def __init__(self, *, rate: float, burst: float, clock: Callable[[], float], most_callers: int = 10_000) -> None:
        self._rate = rate
        self._burst = burst
        self._clock = clock
        self._most_callers = most_callers
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def wait_seconds(self, caller: str) -> float:
        """0 where the request may go on, and is counted; else how long to wait before the next try."""
        bucket = self._filled(caller)
        if bucket.left >= 1:
            bucket.left -= 1
            return 0.0
        return (1 - bucket.left) / self._rate

    def is_spent(self, caller: str) -> bool:
        """Whether the caller has to wait; counts nothing."""
        return self._filled(caller).left < 1

    def _filled(self, caller: str) -> _Bucket:
        now = self._clock()
        bucket = self._buckets.setdefault(caller, _Bucket(self._burst, now))
        bucket.left = min(self._burst, bucket.left + (now - bucket.at) * self._rate)
        bucket.at = now
        # The one that was not heard of for longest goes: by then its bucket is full again.
        self._buckets.move_to_end(caller)
        if len(self._buckets) > self._most_callers:
            self._buckets.popitem(last=False)
        return bucket
