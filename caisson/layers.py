"""Bytes over shared layers: what removing a holder of layers really frees. Pure.

A layer's bytes are given back when the last of its holders goes, so the sizes of images don't add up: twenty images on
one base of 100 MB are 2020 MB by their sizes and 120 MB on the disk. *Marginal* bytes are what only one holder, or the
removals before it and this one together, hold.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from caisson.snapshot import ChainID, StoredLayer


class Freed(NamedTuple):
    """What a removal frees, and the holders that are now the last ones of some of their layers."""

    size: int
    now_alone: tuple[int, ...]


class LayerHolders:
    """Which holders (numbered from 0, in the order given) hold which layers, while one after the other is removed.

    All of it takes time in proportion to the number of layers held, however many removals there are: of each layer it
    keeps how many hold it and the sum of their numbers, which is the last one's number when one is left.

    >>> base, own = StoredLayer(ChainID("base"), 100), StoredLayer(ChainID("own"), 1)
    >>> holders = LayerHolders([[base], [base, own]])
    >>> holders.marginal(0), holders.marginal(1)
    (0, 1)
    >>> holders.remove(1), holders.marginal(0)
    (Freed(size=1, now_alone=(0,)), 100)
    """

    def __init__(self, holders: Iterable[Sequence[StoredLayer]]) -> None:
        number_of: dict[ChainID, int] = {}
        sizes: list[int] = []
        held_by: list[list[int]] = []
        for layers in holders:
            held = []
            for chain_id, size in layers:
                number = number_of.get(chain_id)
                if number is None:
                    number = number_of[chain_id] = len(sizes)
                    sizes.append(size)
                elif size < sizes[number]:
                    # Two sizes for one layer: the smaller one, so that no more is promised than is given.
                    sizes[number] = size
                held.append(number)
            held_by.append(held if len(set(held)) == len(held) else list(dict.fromkeys(held)))
        self._account(sizes, held_by)

    def _account(self, sizes: list[int], held_by: list[list[int]]) -> None:
        count, total = [0] * len(sizes), [0] * len(sizes)
        for holder, held in enumerate(held_by):
            for number in held:
                count[number] += 1
                total[number] += holder
        marginal = [0] * len(held_by)
        for number, holders in enumerate(count):
            if holders == 1:
                marginal[total[number]] += sizes[number]
        self._sizes, self._held, self._count, self._sum, self._marginal = sizes, held_by, count, total, marginal
        self._gone = bytearray(len(held_by))

    def grouped(self, groups: Sequence[Sequence[int]]) -> LayerHolders:
        """A new account in which each group of these holders is one; those in no group hold nothing there."""
        other = LayerHolders(())
        held = [
            self._held[group[0]] if len(group) == 1 else list({n: None for member in group for n in self._held[member]})
            for group in groups
        ]
        other._account(self._sizes, held)
        return other

    def marginal(self, holder: int) -> int:
        """Bytes that only this holder holds, of those that are left."""
        return self._marginal[holder]

    def remove(self, holder: int) -> Freed:
        """Take a holder away; raises ``ValueError`` when it was taken away before."""
        if self._gone[holder]:
            raise ValueError(f"holder {holder} was removed before")
        self._gone[holder] = 1
        now_alone = []
        for number in self._held[holder]:
            self._count[number] -= 1
            self._sum[number] -= holder
            if self._count[number] == 1:
                last = self._sum[number]
                self._marginal[last] += self._sizes[number]
                now_alone.append(last)
        return Freed(self._marginal[holder], tuple(dict.fromkeys(now_alone)))

    def held_by(self, group_of: Sequence[int]) -> dict[int, int]:
        """Bytes that only one group's holders hold, by group; ``group_of`` gives each holder's group by its number.

        What several groups hold is counted under -1. Holders that were removed count for nothing.
        """
        unknown, several = -2, -1
        owner = [unknown] * len(self._sizes)
        for holder, held in enumerate(self._held):
            if self._gone[holder]:
                continue
            group = group_of[holder]
            for number in held:
                if owner[number] == unknown:
                    owner[number] = group
                elif owner[number] != group:
                    owner[number] = several
        totals: dict[int, int] = {}
        for number, group in enumerate(owner):
            if group != unknown:
                totals[group] = totals.get(group, 0) + self._sizes[number]
        return totals


def marginal_bytes(images: Sequence[Sequence[StoredLayer]], removals: Sequence[int]) -> list[int]:
    """What each of the removals, in their order, frees: only it and those before it. ``images`` are all there are.

    >>> base, own = StoredLayer(ChainID("base"), 100), StoredLayer(ChainID("own"), 1)
    >>> marginal_bytes([[base], [base, own]], [0, 1])
    [0, 101]
    """
    holders = LayerHolders(images)
    return [holders.remove(removal).size for removal in removals]


def bytes_on_disk(images: Iterable[Sequence[StoredLayer]]) -> int:
    """The bytes of all layers, each once."""
    sizes: dict[ChainID, int] = {}
    for layers in images:
        for chain_id, size in layers:
            sizes[chain_id] = min(size, sizes.get(chain_id, size))
    return sum(sizes.values())
