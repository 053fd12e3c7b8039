"""Bytes of layers with their blobs, as far as the sizes of images tell them."""

from __future__ import annotations

from itertools import permutations

from caisson.blob_sizes import sizes_with_blobs
from caisson.snapshot import ChainID, StoredLayer


def layer(name: str, size: int) -> StoredLayer:
    return StoredLayer(ChainID(name), size)


BASE, APP, OTHER = layer("base", 100), layer("app", 10), layer("other", 30)


def test_the_blobs_of_a_base_are_told_by_the_base_and_the_rest_is_its_childs() -> None:
    images = [(130, (BASE,)), (145, (BASE, APP)), (130 + 60, (BASE, OTHER))]
    for order in permutations(images):
        assert sizes_with_blobs(order) == {"base": 130, "app": 15, "other": 60}


def test_without_the_base_the_blobs_are_spread_by_the_bytes() -> None:
    assert sizes_with_blobs([(220, (BASE, APP))]) == {"base": 200, "app": 20}


def test_an_image_that_holds_no_more_than_its_layers_has_no_blobs() -> None:
    assert sizes_with_blobs([(110, (BASE, APP)), (90, (OTHER, APP))]) == {"base": 100, "app": 10, "other": 80}
    assert sizes_with_blobs([(50, (BASE,))]) == {"base": 100}


def test_layers_without_bytes_and_images_without_layers_do_no_harm() -> None:
    empty = layer("empty", 0)
    assert sizes_with_blobs([(7, (empty,)), (9, ())]) == {"empty": 7}
