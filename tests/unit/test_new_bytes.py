"""What a build brought to its host, by the engine's own files and without them."""

from __future__ import annotations

import doctest
import os
from pathlib import Path

import caisson.new_bytes
from caisson.engine import Layer
from caisson.layer_sizes import chain_ids
from caisson.new_bytes import new_bytes, read_layer_times

DIFF_IDS = ("sha256:" + "a" * 64, "sha256:" + "b" * 64, "sha256:" + "c" * 64)
BEGAN = 1_000.7
# A base of long ago, a step of the cache, and one that was run 0.1 s after the beginning: engines tell whole seconds.
HISTORY = [Layer(100, 5), Layer(20, 500), Layer(0, 1_000), Layer(3, 1_000)]


def _store(root: Path, *times: float, driver: str = "overlay2") -> None:
    for chain, at in zip(chain_ids(DIFF_IDS), times, strict=False):
        file = root / "image" / driver / "layerdb" / chain.replace(":", "/") / "cache-id"
        file.parent.mkdir(parents=True)
        file.write_text("id")
        os.utime(file, (at, at))


def test_the_examples_in_the_documentation_are_true() -> None:
    assert doctest.testmod(caisson.new_bytes).failed == 0


def test_a_pulled_base_is_new_and_what_was_here_is_not(tmp_path: Path) -> None:
    _store(tmp_path, 1_001, 1_002, 1_003)
    times = read_layer_times(tmp_path, "overlay2", DIFF_IDS)
    assert new_bytes(DIFF_IDS, HISTORY, times, began=BEGAN, bases_here=False) == (123, True)
    times = (10.0, 500.0, 1_000.8)
    assert new_bytes(DIFF_IDS, HISTORY, times, began=BEGAN, bases_here=False) == (3, True)


def test_a_store_that_cannot_be_read_is_told_as_such(tmp_path: Path) -> None:
    assert read_layer_times(tmp_path, "overlay2", DIFF_IDS) is None
    _store(tmp_path, 1_001, 1_002)
    assert read_layer_times(tmp_path, "overlay2", DIFF_IDS) is None
    assert read_layer_times(tmp_path, "overlayfs", DIFF_IDS[:2]) is None
    assert read_layer_times(tmp_path, "overlay2", DIFF_IDS[:2]) == (1_001, 1_002)


def test_without_it_a_layer_made_in_the_second_of_the_beginning_counts() -> None:
    assert new_bytes(DIFF_IDS, HISTORY, None, began=BEGAN, bases_here=True) == (3, True)
    assert new_bytes(DIFF_IDS, HISTORY, None, began=BEGAN, bases_here=False) == (3, False)
