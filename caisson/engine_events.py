"""What the engine's events say about the use of images and volumes. Pure.

An engine keeps its last 256 events in memory and none over a restart (20.10 and 26.1; moby daemon/events). So a replay
is complete only if the event at which the last one ended is still there: then nothing between was lost, whatever came
of the clock. Otherwise something may have been, and every image may have been used.

Events tell of containers (by the name or ID that their image was asked for), of pulls and pushes (by name), of tags,
loads and saves (by ID). They tell nothing of a build's base images on BuildKit, and nothing of BuildKit's builds and
their tags at all on 20.10 and with the containerd store of 26.1; an image that came of such a build is new, and lends
its first sight to its base.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from caisson.engine import EngineEvent, ImageID, ImageInfo
from caisson.last_use import Use
from caisson.reference import Reference, parse_reference

# What is done to an image without using it. All else that there is, or will be, counts as a use.
_NO_USE = frozenset(("untag", "delete", "prune"))
_NO_VOLUME_USE = frozenset(("destroy", "prune"))
_HEX = re.compile(r"[0-9a-f]{1,64}")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Replay:
    """The events since the last look, the oldest first.

    ``is_complete`` says that none was lost; ``anchor`` is where the next one goes on, empty when the engine has no
    event.
    """

    events: tuple[EngineEvent, ...]
    is_complete: bool
    anchor: tuple[str, ...]


def replay(events: Iterable[EngineEvent], anchor: tuple[str, ...]) -> Replay:
    """What is new in all that the engine still has; ``anchor`` is the last replay's, empty for the first."""
    every = tuple(events)
    anchors = [_anchor(event) for event in every]
    end = anchors[-1] if anchors else ()
    if anchor in anchors:
        last = len(anchors) - 1 - anchors[::-1].index(anchor)
        return Replay(every[last + 1 :], True, end)
    return Replay(every, False, end)


def _anchor(event: EngineEvent) -> tuple[str, ...]:
    return (str(event.time_ns), event.type, event.action, event.subject)


@dataclass
class ImageNames:
    """Which images a name may stand for, or may have stood for since the last look: never fewer."""

    ids: Collection[ImageID]
    _by_reference: dict[str, set[ImageID]] = field(default_factory=dict)
    _found: dict[str, frozenset[ImageID]] = field(default_factory=dict)

    def add(self, image: ImageID, references: Iterable[str]) -> None:
        """References (with tag or digest) of an image, now or before; what is no reference is left out."""
        for text in references:
            if (name := full_name(text)) is not None:
                self._by_reference.setdefault(name, set()).add(image)
        self._found.clear()

    def add_tags_of(self, events: Iterable[EngineEvent]) -> None:
        """Tags that were set and may be gone again."""
        for image, tags in tags_of(events).items():
            self.add(image, tags)

    def find(self, text: str) -> frozenset[ImageID]:
        """By ID, by the beginning of one, or by reference."""
        if text not in self._found:
            self._found[text] = frozenset(self._find(text))
        return self._found[text]

    def _find(self, text: str) -> set[ImageID]:
        found = set(self._by_reference.get(full_name(text) or "", ()))
        prefix = text.removeprefix("sha256:")
        if _HEX.fullmatch(prefix):
            found |= {image for image in self.ids if image.removeprefix("sha256:").startswith(prefix)}
        return found


def uses_of(events: Iterable[EngineEvent], names: ImageNames) -> dict[ImageID, Use]:
    """The last use of each image that the events tell of.

    A container's name of an image that no image is known to have had may be one of those that were taken away.
    """
    events = tuple(events)
    uses: dict[ImageID, Use] = {}
    untagged = {ImageID(event.subject) for event in events if event.type == "image" and event.action == "untag"}
    for event in events:
        if event.type == "container":
            # A healthcheck's exec has its command in the action.
            image, how = event.attributes.get("image", ""), f"container {event.action.partition(':')[0]}"
        elif event.type == "image" and event.action not in _NO_USE:
            image, how = event.subject, event.action
        else:
            continue
        at = moment(event)
        for found in names.find(image) or (untagged if event.type == "container" else ()):
            if found not in uses or uses[found].at <= at:
                uses[found] = Use(at, how)
    return uses


def tags_of(events: Iterable[EngineEvent]) -> dict[ImageID, set[str]]:
    """The names that the events tell of images by their IDs."""
    tags: dict[ImageID, set[str]] = {}
    for event in events:
        if event.type == "image" and event.subject.startswith("sha256:"):
            name = event.attributes.get("name", "")
            if full_name(name) is not None and name != event.subject:
                tags.setdefault(ImageID(event.subject), set()).add(name)
    return tags


def unknown_names(events: Iterable[EngineEvent], names: ImageNames) -> set[str]:
    """Names that containers were made by, and that no image is known to have had."""
    made_by = {event.attributes.get("image", "") for event in events if event.type == "container"}
    return {name for name in made_by if full_name(name) is not None and not names.find(name)}


def registry_transfers(events: Iterable[EngineEvent]) -> dict[str, datetime]:
    """When each reference was last pulled or pushed; without those of a whole repository, which tell no tag.

    Which image that was no event tells: see ``registries_of``.
    """
    transfers: dict[str, datetime] = {}
    for event in events:
        if event.type == "image" and event.action in ("pull", "push"):
            reference = _parsed(event.subject)
            if reference is not None and (reference.tag or reference.digest):
                transfers[event.subject] = moment(event)
    return transfers


def registries_of(transfers: Mapping[str, datetime], images: Mapping[str, ImageInfo | None]) -> dict[ImageID, set[str]]:
    """The repositories, in full, that a registry has images of, by what each reference points to now.

    Only where the image got no name since: else it may not have had this one then, and BuildKit moves names without an
    event. What is unsure is nobody's, for what counts as recoverable may go.
    """
    registries: dict[ImageID, set[str]] = {}
    for text, at in transfers.items():
        image, reference = images.get(text), _parsed(text)
        if image is not None and reference is not None and image.last_tag_time and image.last_tag_time <= at:
            registries.setdefault(image.id, set()).add(reference.repository.canonical())
    return registries


def used_volumes(events: Iterable[EngineEvent]) -> frozenset[str]:
    """The volumes that were made, mounted or unmounted, of those that the events tell of.

    A container that has stopped holds its volumes until it is removed, of which no event of theirs tells.
    """
    return frozenset(event.subject for event in events if event.type == "volume" and event.action not in _NO_VOLUME_USE)


def moment(event: EngineEvent) -> datetime:
    """When it happened, by the engine's clock."""
    return _EPOCH + timedelta(microseconds=event.time_ns // 1000)


def full_name(text: str) -> str | None:
    """A reference as everything that means the same is written; None for what is none."""
    reference = _parsed(text)
    if reference is None:
        return None
    if reference.digest is not None:
        # With both, the digest alone says which image it is.
        return f"{reference.repository.canonical()}@{reference.digest}"
    return reference.or_latest().canonical()


def _parsed(text: str) -> Reference | None:
    try:
        return parse_reference(text)
    except ValueError:
        return None
