"""What removals free where layers are shared."""

from __future__ import annotations

import pytest

from caisson.layers import LayerHolders, bytes_on_disk, marginal_bytes
from caisson.snapshot import ChainID, StoredLayer


def layers(**sizes: int) -> list[StoredLayer]:
    return [StoredLayer(ChainID(name), size) for name, size in sizes.items()]


def test_twenty_images_on_one_base_free_their_own_layers_and_the_last_one_the_base() -> None:
    images = [layers(base=100, **{f"own{number}": 1}) for number in range(20)]
    assert marginal_bytes(images, range(20)) == [1] * 19 + [101]


def test_images_with_the_same_layers_free_nothing_alone_and_all_of_it_together() -> None:
    images = [layers(a=5, b=7), layers(a=5, b=7)]
    holders = LayerHolders(images)
    assert (holders.marginal(0), holders.marginal(1)) == (0, 0)
    assert marginal_bytes(images, [1, 0]) == [0, 12]


def test_a_removal_names_who_is_left_alone_with_a_layer() -> None:
    holders = LayerHolders([layers(a=1, b=2), layers(a=1, b=2, c=3), layers(a=1)])
    assert holders.remove(0).now_alone == (1,)
    assert holders.marginal(1) == 5
    assert holders.remove(1) == (5, (2,))
    assert holders.remove(2) == (1, ())


def test_a_second_removal_of_the_same_is_refused() -> None:
    holders = LayerHolders([layers(a=1)])
    holders.remove(0)
    with pytest.raises(ValueError, match="removed before"):
        holders.remove(0)


def test_a_layer_that_is_given_twice_or_with_two_sizes_is_counted_once_and_low() -> None:
    images = [[*layers(a=5), *layers(a=5)], layers(a=4)]
    assert marginal_bytes(images, [0, 1]) == [0, 4]
    assert bytes_on_disk(images) == 4


def test_bytes_by_group_tell_what_only_one_group_holds() -> None:
    holders = LayerHolders([layers(base=100, a=1), layers(base=100, b=2), layers(base=100, b=2, c=3)])
    assert holders.held_by([0, 1, 1]) == {-1: 100, 0: 1, 1: 5}
    holders.remove(0)
    assert holders.held_by([0, 1, 1]) == {1: 105}


def test_groups_of_holders_are_one_holder_each_in_a_new_account() -> None:
    holders = LayerHolders([layers(a=1, b=2), layers(a=1, c=4), layers(a=1)])
    pairs = holders.grouped([[0, 1], [2]])
    assert (pairs.marginal(0), pairs.marginal(1)) == (6, 0)
    assert pairs.remove(0) == (6, (1,))
    assert holders.grouped([[0], [1]]).marginal(0) == 2
