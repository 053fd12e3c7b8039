"""How much of an image a build brought to its host: layers that it made, and those of base images that it pulled.

Only the engine's own files tell when a layer came (overlay2 and its kin: ``image/DRIVER/layerdb/sha256/CHAIN``, moby
layer/filestore.go). Those of one image are read after the build: to ask before it for all layers of the host takes the
engine a millisecond an image. Where they can't be read, an image's history tells what the build made, but a pulled
layer is as old there as its base image.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from caisson.engine import Layer
from caisson.layer_sizes import chain_ids, sizes_by_history


def read_layer_times(data_root: Path, driver: str, layers: Sequence[str]) -> tuple[float, ...] | None:
    """When each of an image's layers came to this host, in seconds since 1970; None where that can't be read.

    ``layers`` are diff IDs, the lowest first.
    """
    directory = data_root / "image" / driver / "layerdb"
    try:
        return tuple((directory / chain.replace(":", "/") / "cache-id").stat().st_mtime for chain in chain_ids(layers))
    except OSError:
        return None


def new_bytes(
    layers: Sequence[str], history: Sequence[Layer], times: Sequence[float] | None, *, began: float, bases_here: bool
) -> tuple[int, bool]:
    """Bytes of the layers that are new since ``began``, and whether that is all (else there may be more).

    ``history`` is the image's, ``times`` what ``read_layer_times`` gave. ``bases_here`` says whether all base images
    were on the host before.

    >>> new_bytes(["a", "b"], [Layer(90, 5), Layer(7, 100)], [101.5, 102.5], began=100.5, bases_here=False)
    (97, True)
    >>> new_bytes(["a", "b"], [Layer(90, 5), Layer(7, 100)], None, began=100.5, bases_here=False)
    (7, False)
    """
    if times is not None:
        sizes = sizes_by_history(layers, [], [step.size for step in history])
        return sum(size for size, time in zip(sizes, times, strict=True) if time >= began), True
    # Its times are whole seconds.
    return sum(step.size for step in history if step.created >= math.floor(began)), bases_here
