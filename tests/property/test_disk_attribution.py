"""Bytes by repository, against brute force."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from caisson.disk_attribution import attribute, chain, repositories_of
from caisson.engine import ImageID
from caisson.engine_disk import EngineDisk, ImageDisk

SIZES = {f"l{number}": 1 << number for number in range(12)}
images = st.lists(
    st.tuples(
        st.lists(st.sampled_from(["a:1", "a:2", "b:1", "c:1"]), max_size=3, unique=True),
        st.lists(st.sampled_from(sorted(SIZES)), max_size=6, unique=True),
    ),
    max_size=12,
)


def on_disk(found: list[tuple[list[str], list[str]]]) -> int:
    return sum(SIZES[layer] for layer in {layer for _, layers in found for layer in layers})


@given(images)
def test_a_repository_holds_what_its_removal_would_give_back(found: list[tuple[list[str], list[str]]]) -> None:
    """Exclusive bytes: what goes when every image that only this repository names goes, and it names no other."""
    disk = EngineDisk(
        layers_size=on_disk(found),
        images=tuple(ImageDisk(ImageID(str(index)), tuple(tags), 0) for index, (tags, _) in enumerate(found)),
        containers=(),
        volumes=(),
        cache=(),
    )
    layers = {ImageID(str(i)): [(layer, SIZES[layer]) for layer in held] for i, (_, held) in enumerate(found)}
    made = attribute(disk, layers=layers, logs={}, used=None, at=datetime.now(UTC), seconds=0)
    assert sum(item.exclusive for item in made.repositories) + made.shared_layers == on_disk(found)
    for item in made.repositories:
        others = [(tags, held) for tags, held in found if repositories_of(tags) != (item.name,)]
        assert item.exclusive == on_disk(found) - on_disk(others)
        own = [(tags, held) for tags, held in found if item.name in repositories_of(tags)]
        assert item.exclusive + item.shared == on_disk(own)
        assert item.images == len(own)


@given(
    st.lists(st.integers(0, 99), max_size=8),
    st.lists(st.integers(0, 10**9), max_size=12),
    st.dictionaries(st.text(max_size=3), st.integers(0, 9)),
)
def test_dealt_out_sizes_add_up_whatever_the_history_says(
    diff_ids: list[int], sizes: list[int], known: dict[str, int]
) -> None:
    made = chain([str(number) for number in diff_ids], sizes, known)
    assert len(made) == len(diff_ids)
    if diff_ids:
        assert sum(size for _, size in made) == sum(sizes)
    assert len({name for name, _ in made}) == len(made)
