"""The bytes of layers on the containerd store, which keeps each twice: unpacked, and as the blob that it came as. Pure.

No engine tells the blobs one by one: an image's ``Size`` is all of both (moby 26.1 daemon/containerd/image_list.go
``singlePlatformImage``), its history the unpacked ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from caisson.snapshot import ChainID, StoredLayer


def sizes_with_blobs(images: Iterable[tuple[int, Sequence[StoredLayer]]]) -> dict[ChainID, int]:
    """What each layer holds with its blob, from the ``Size`` and the unpacked layers of all images.

    What an image has more than its layers are the blobs. Those of lower layers are known from images of fewer layers;
    the rest is spread over the others by their bytes.

    >>> a, b = StoredLayer(ChainID("a"), 100), StoredLayer(ChainID("b"), 10)
    >>> sizes_with_blobs([(145, [a, b]), (130, [a])])
    {'a': 130, 'b': 15}
    """
    found: dict[ChainID, int] = {}
    order = sorted(images, key=lambda image: (len(image[1]), [layer.chain_id for layer in image[1]], image[0]))
    for total, layers in order:
        new = [layer for layer in layers if layer.chain_id not in found]
        blobs = max(0, total - sum(found.get(layer.chain_id, layer.size) for layer in layers))
        unpacked = sum(layer.size for layer in new)
        for layer in new:
            share = blobs * layer.size // unpacked if unpacked else blobs // len(new)
            found[layer.chain_id] = layer.size + share
    return found
