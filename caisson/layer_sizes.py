"""The bytes of each of an image's layers, from what the engine tells of it. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

from caisson.snapshot import ChainID

EMPTY_LAYER = "sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef"
"""Diff ID of a layer with nothing in it (moby layer/layer.go ``DigestSHA256EmptyTar``)."""


def sizes_by_subtraction(layers: Sequence[str], known: Sequence[int], total: int) -> tuple[int, ...] | None:
    """Sizes where at most the last layer is not known; None where that is not enough, or does not add up.

    ``known`` are those of the lowest layers, ``total`` is the image's ``Size``. On overlay2 that is the sum of its
    layers (1,076 of 1,076 images); the containerd store counts compressed blobs too, so there this is of no use.

    >>> sizes_by_subtraction(["a", "b"], [10], 15), sizes_by_subtraction(["a", "b", "c"], [10], 15)
    ((10, 5), None)
    """
    rest = total - sum(known)
    if len(known) == len(layers) and rest == 0:
        return tuple(known)
    return (*known, rest) if len(known) == len(layers) - 1 and rest >= 0 else None


def sizes_by_history(layers: Sequence[str], known: Sequence[int], history: Sequence[int]) -> tuple[int, ...]:
    """Sizes from an image's history, oldest step first, in which steps without a layer have 0 bytes.

    A layer can have 0 bytes too (a removed file, a directory: in one image of twelve), and a history that has more
    steps than there are layers does not tell which. Then what is known of the lower layers goes first, and the rest is
    given to the lowest that remain: the sum is right in any case.

    >>> sizes_by_history(["a", "b", "c"], [], [7, 0, 2, 5]), sizes_by_history(["a", "b", "c"], [], [7, 0, 5])
    ((7, 2, 5), (7, 0, 5))
    >>> sizes_by_history(["a", "b", "c"], [7, 0], [7, 0, 0, 5])
    (7, 0, 5)
    """
    steps = [size for size in history if size]
    if len(steps) == len(layers):
        return tuple(steps)
    if len(history) == len(layers):
        return tuple(history)
    lower = [size for size in known if size]
    sizes = list(known) if steps[: len(lower)] == lower else []
    rest = steps[len(lower) :] if sizes else steps
    sizes += [0 if layer == EMPTY_LAYER or not rest else rest.pop(0) for layer in layers[len(sizes) :]]
    if rest and sizes:
        sizes[-1] += sum(rest)
    return tuple(sizes)


def known_sizes(chain: Sequence[ChainID], sizes: Mapping[ChainID, int]) -> list[int]:
    """Sizes of the lowest layers, up to the first that is not known."""
    lower: list[int] = []
    for chain_id in chain:
        if chain_id not in sizes:
            break
        lower.append(sizes[chain_id])
    return lower


def chain_ids(layers: Sequence[str]) -> tuple[ChainID, ...]:
    """Chain IDs from diff IDs, the lowest first (OCI image-spec, config.md "Layer ChainID").

    >>> chain_ids(["sha256:a", "sha256:b"])[1][:23]
    'sha256:970a948bffa8de94'
    """
    chain: list[ChainID] = []
    for layer in layers:
        text = f"{chain[-1]} {layer}" if chain else ""
        chain.append(ChainID(f"sha256:{hashlib.sha256(text.encode()).hexdigest()}" if text else layer))
    return tuple(chain)
