"""Children before parents: the engine refuses to remove a parent while a child is there. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from caisson.engine import ImageID
from caisson.retention.facts import Facts
from caisson.snapshot import ImageState


def children_first(images: Iterable[ImageState], facts: Facts) -> Iterator[ImageState]:
    """The images in the order given, but for parents that come too early: they follow right after their last child.

    Images in a ring of parents, which no engine makes, are left out: none of them could go first.
    """
    order = list(images)
    inside = {image.id for image in order}
    waiting_for = {image.id: sum(child in inside for child in facts.children.get(image.id, ())) for image in order}
    passed: set[ImageID] = set()
    for image in order:
        if waiting_for[image.id]:
            passed.add(image.id)
            continue
        current: ImageState | None = image
        while current is not None:
            yield current
            parent = current.parent
            current = None
            if parent in waiting_for:
                waiting_for[parent] -= 1
                if not waiting_for[parent] and parent in passed:
                    current = facts.by_id[parent]
