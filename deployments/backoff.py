"""How long to wait before something that ended is started again."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Backoff:
    """Doubling delays from ``first`` to ``most`` seconds; a run of ``healthy_seconds`` starts them over.

    >>> backoff = Backoff(first=0.5, most=2.0)
    >>> [backoff.after(ran_seconds=1) for _ in range(4)], backoff.failures
    ([0.5, 1.0, 2.0, 2.0], 4)
    >>> backoff.after(ran_seconds=60), backoff.failures
    (0.5, 1)
    """

    first: float = 0.5
    most: float = 30.0
    healthy_seconds: float = 30.0
    failures: int = 0

    def after(self, *, ran_seconds: float) -> float:
        """Seconds to wait now, after it ran for ``ran_seconds``."""
        if ran_seconds >= self.healthy_seconds:
            self.failures = 0
        self.failures += 1
        return min(self.first * (1 << min(self.failures - 1, 30)), self.most)
