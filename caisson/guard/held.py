"""What all connections of a guard keep in memory together, of what clients and the engine have sent. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from caisson.guard.verdict import Denied

HELD_LIMIT = 8 << 20
"""Bytes: a few messages of the largest size, of which a build sends one at a time."""


@dataclass
class Held:
    """Counts bytes; what was taken has to be given back. ``most`` is for all together."""

    most: int = HELD_LIMIT
    bytes: int = 0

    def take(self, size: int) -> None:
        """Keep so many more; raises ``Denied``, and then nothing was taken."""
        if self.bytes + size > self.most:
            raise Denied("held", f"What waits on this socket to be whole has more than {self.most} bytes.")
        self.bytes += size

    def give(self, size: int) -> None:
        """Keep so many less."""
        self.bytes -= size
