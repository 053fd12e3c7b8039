"""One image removed without force: by its names but one, then by its ID. A thin shell over the engine."""

from __future__ import annotations

from collections.abc import Sequence

from caisson.engine import Engine, ImageID
from caisson.errors import EngineRefused, RemovalRefused
from caisson.reference import parse_reference
from caisson.snapshot import ImageState

REMOVAL_SECONDS = 600.0
"""How long one removal may take: an image of 60,000 files takes 20 s on a quiet host."""


def remove_image(engine: Engine, image: ImageState, taken: list[str]) -> bool:
    """All its names but one, then the image by its ID; where the engine refuses the end, it has its tags back.

    ``taken`` gets each tag that went, at once: it counts when the engine goes away in the middle.
    """
    try:
        for name in _names_in_the_way(image):
            if unname(engine, name, image.id) and name in image.tags:
                taken.append(name)  # noqa: PERF401 - what was taken counts when the next one fails
        return engine.remove_image(image.id, timeout=REMOVAL_SECONDS)
    except EngineRefused:
        give_back(engine, image.id, taken)
        taken.clear()
        raise


def give_back(engine: Engine, image: ImageID, tags: Sequence[str]) -> None:
    """Tag the image again with what was taken from it."""
    for tag in tags:
        # Whoever has taken the name meanwhile keeps it.
        if engine.inspect_image(tag) is None:
            engine.tag_image(image, tag)


def _names_in_the_way(image: ImageState) -> list[str]:
    """What has to go before the engine removes by ID: all tags but one, and digests of other repositories than its.

    A digest goes with the last tag of its repository, and no call gives it back. So the one that stays is of a
    repository with a digest, where there is one, and what takes a digest along goes last.
    """
    digests = sorted(image.registry_digests)
    if not image.tags:
        return digests[:-1]
    repositories = {parse_reference(digest).repository for digest in digests}
    repository_of = {tag: parse_reference(tag).repository for tag in image.tags}
    *_, last = sorted(image.tags, key=lambda tag: (repository_of[tag] in repositories, tag))
    stays = repository_of[last]
    takes_digest = {
        tag: repository != stays and repository in repositories for tag, repository in repository_of.items()
    }
    tags = sorted(image.tags, key=lambda tag: (takes_digest[tag], tag))
    tags.remove(last)
    return [*tags, *(digest for digest in digests if parse_reference(digest).repository != stays)]


def unname(engine: Engine, reference: str, image: ImageID) -> bool:
    """Take one name away while it points to this image; False where it does not any more.

    Raises ``RemovalRefused`` where it is the last one by now: the image would go with it.
    """
    found = engine.inspect_image(reference)
    if found is None or found.id != image or reference not in (*found.tags, *found.digests):
        return False
    if (found.tags or found.digests) == (reference,):
        raise RemovalRefused(f"{reference} is the last name of its image by now.")
    return engine.remove_image(reference, timeout=REMOVAL_SECONDS)
