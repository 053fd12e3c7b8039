"""How full is too full: the bounds low, high and critical, for bytes and for inodes. Pure.

A bound is a share in use (``85%``, as ``df`` counts it) or an amount that is left (``20g free``, ``500000 free`` for
inodes). The three of one resource are of one form, so that their order can be told before any disk is read.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import IntEnum

from caisson.disk import DiskUsage
from caisson.sizes import format_size, parse_size

_PERCENT = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,3})?)\s*%(?:\s+used)?", re.IGNORECASE)
_FREE = re.compile(r"(.+?)\s+free", re.IGNORECASE)
_COUNT = re.compile(r"[0-9]{1,15}")


class Zone(IntEnum):
    """Where a reading is; the order is that of severity."""

    LOW = 0
    """Below low: here pressure ends."""
    BETWEEN = 1
    """From low to high: here everything stays as it is."""
    HIGH = 2
    CRITICAL = 3


@dataclass(frozen=True)
class Bound:
    """``percent`` of what can be used is in use, or ``free`` bytes or inodes are left; exactly one is not None."""

    percent: float | None = None
    free: int | None = None

    @classmethod
    def of_bytes(cls, text: str) -> Bound:
        """
        >>> Bound.of_bytes("85%"), Bound.of_bytes("1k free")
        (Bound(percent=85.0, free=None), Bound(percent=None, free=1024))

        Raises ``ValueError`` for anything else.
        """
        if (found := _FREE.fullmatch(text.strip())) is not None:
            return cls(free=parse_size(found[1]))
        return cls._of_percent(text, "85% or 20g free")

    @classmethod
    def of_inodes(cls, text: str) -> Bound:
        """
        >>> Bound.of_inodes("500000 free")
        Bound(percent=None, free=500000)

        Raises ``ValueError`` for anything else.
        """
        found = _FREE.fullmatch(text.strip())
        if found is not None and _COUNT.fullmatch(count := found[1].replace(",", "").replace("_", "")):
            return cls(free=int(count))
        return cls._of_percent(text, "85% or 500000 free")

    @classmethod
    def _of_percent(cls, text: str, forms: str) -> Bound:
        found = _PERCENT.fullmatch(text.strip())
        if found is None or not 0 < float(found[1]) <= 100:
            raise ValueError(f"{text[:40]!r} is no bound such as {forms}")
        return cls(percent=float(found[1]))

    def left_of(self, usable: int) -> int:
        """How much is left of ``usable`` at this bound.

        >>> Bound(percent=85).left_of(1000), Bound(free=20).left_of(1000)
        (150, 20)
        """
        if self.percent is not None:
            return int(usable * (100 - self.percent) / 100)
        assert self.free is not None
        return self.free

    def __str__(self) -> str:
        return f"{self.free} free" if self.percent is None else f"{self.percent:g}%"


@dataclass(frozen=True)
class Bounds:
    """The three bounds of one resource; raises ``ValueError`` unless they are of one form and in order."""

    low: Bound
    high: Bound
    critical: Bound

    def __post_init__(self) -> None:
        shares = [bound.percent for bound in self.in_order]
        if len({share is None for share in shares}) > 1:
            raise ValueError(f"{self._shown} mix percent and free; write all three in one form")
        order = [-(bound.free or 0) if bound.percent is None else bound.percent for bound in self.in_order]
        if not order[0] < order[1] < order[2]:
            raise ValueError(f"{self._shown} are not in order; low must be less full than high, high than critical")

    @property
    def in_order(self) -> tuple[Bound, Bound, Bound]:
        return self.low, self.high, self.critical

    @property
    def _shown(self) -> str:
        return f"low {self.low}, high {self.high}, critical {self.critical}"

    def zone(self, usable: int, free: int) -> Zone:
        """Where so much free of so much usable is; a bound that is just reached counts as reached."""
        if free <= self.critical.left_of(usable):
            return Zone.CRITICAL
        if free <= self.high.left_of(usable):
            return Zone.HIGH
        return Zone.BETWEEN if free <= self.low.left_of(usable) else Zone.LOW


@dataclass(frozen=True)
class DiskLimits:
    """The bounds of a host, for each of its file systems."""

    bytes: Bounds
    inodes: Bounds

    def byte_zone(self, usage: DiskUsage) -> Zone:
        return self.bytes.zone(usage.usable_bytes, usage.free_bytes)

    def inode_zone(self, usage: DiskUsage) -> Zone:
        """Of a file system without a fixed number of inodes always ``LOW``."""
        return self.inodes.zone(usage.total_inodes, usage.free_inodes) if usage.total_inodes else Zone.LOW

    def zone(self, usage: DiskUsage) -> Zone:
        """The worse of the two: a disk is full when either has run out."""
        return max(self.byte_zone(usage), self.inode_zone(usage))

    def wanted(self, usage: DiskUsage, zone: Zone) -> tuple[int, int]:
        """Bytes and inodes that are free where a milder zone begins; 0 inodes where they never run out."""
        index = max(zone, Zone.BETWEEN) - 1
        wanted_bytes = self.bytes.in_order[index].left_of(usage.usable_bytes) + 1
        wanted_inodes = self.inodes.in_order[index].left_of(usage.total_inodes) + 1 if usage.total_inodes else 0
        return wanted_bytes, wanted_inodes

    def missing(self, usage: DiskUsage, zone: Zone) -> tuple[int, int]:
        """Bytes and inodes to be freed to get into a milder zone than this one; 0 for what is there already."""
        wanted_bytes, wanted_inodes = self.wanted(usage, zone)
        return max(0, wanted_bytes - usage.free_bytes), max(0, wanted_inodes - usage.free_inodes)


def parse_limits(
    *, low: str, high: str, critical: str, inodes_low: str, inodes_high: str, inodes_critical: str
) -> DiskLimits:
    """The limits from the settings' words; raises ``ValueError``, which begins with the resource's name."""
    made: list[Bounds] = []
    for name, parse, words in (
        ("disk", Bound.of_bytes, (low, high, critical)),
        ("inodes", Bound.of_inodes, (inodes_low, inodes_high, inodes_critical)),
    ):
        try:
            made.append(Bounds(*(parse(word) for word in words)))
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
    return DiskLimits(made[0], made[1])


def describe_missing(missing_bytes: int, missing_inodes: int) -> str:
    """
    >>> describe_missing(3 << 30, 0), describe_missing(0, 1200)
    ('3 GiB', '1,200 inodes')
    """
    words = [format_size(missing_bytes)] if missing_bytes else []
    if missing_inodes:
        words.append(f"{missing_inodes:,} inodes")
    return " and ".join(words) or "nothing"
