"""Which image somebody means: by a reference, the beginning of an ID, a repository, or a tag alone. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from caisson.reference import Reference, parse_reference
from caisson.retention.facts import Facts
from caisson.snapshot import ImageState

_ID = re.compile(r"(?:sha256:)?([0-9a-f]{4,64})")


def find_images(facts: Facts, text: str) -> list[ImageState]:
    """The images that ``text`` can mean, by the first reading that finds any; empty where none does.

    The readings, in order: a reference (``team/app:1``, ``team/app`` for its ``latest``, ``team/app@sha256:…``), at
    least four digits that an ID begins with, a repository, a tag.
    """
    for reading in (_by_reference, _by_id, _by_repository, _by_tag):
        if found := list(filter(reading(facts, text), facts.images)):
            return found
    return []


_Matches = Callable[[ImageState], bool]


def _by_reference(facts: Facts, text: str) -> _Matches:
    wanted = _parsed(text)
    if wanted is None:
        return _nothing
    name = wanted.or_latest()
    return lambda image: name in _references(facts, image)


def _by_id(_: Facts, text: str) -> _Matches:
    match = _ID.fullmatch(text)
    return (lambda image: image.id.removeprefix("sha256:").startswith(match[1])) if match else _nothing


def _by_repository(facts: Facts, text: str) -> _Matches:
    wanted = _parsed(text)
    if wanted is None or wanted.tag or wanted.digest:
        return _nothing
    return lambda image: any(name.repository == wanted.repository for name in _references(facts, image))


def _by_tag(facts: Facts, text: str) -> _Matches:
    return lambda image: any(name.tag is not None and name.tag.value == text for name in facts.names[image.id])


def _nothing(_: ImageState) -> bool:
    return False


def _references(facts: Facts, image: ImageState) -> Iterator[Reference]:
    yield from facts.names[image.id]
    for text in image.registry_digests:
        if (parsed := _parsed(text)) is not None:
            yield parsed


def _parsed(text: str) -> Reference | None:
    try:
        return parse_reference(text)
    except ValueError:
        return None
