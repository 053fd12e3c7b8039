"""What is never removed: an ordered list of protections, each with a name, a sentence, and a reason in each case. Pure.

Rules of this module:

- Protections hold against everything: age, a full disk, an apply.
- What can't be understood is kept: an unreadable name, an unreadable date, a snapshot with a failed read.
- One that protects *whole* keeps every name of the image too. The others keep the image by one of its names; its other
  names may go when their own repository's rule says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

from caisson.durations import format_age, format_duration
from caisson.engine import ImageID, short_id
from caisson.plan import REPOSITORY_UNDER_CONSTRUCTION
from caisson.retention.facts import Facts
from caisson.snapshot import LABEL_KEEP_UNTIL, ImageState


@dataclass(frozen=True)
class Reason:
    """Why something is kept or removed: by which rule, and a sentence without its full stop."""

    rule: str
    reason: str
    whole: bool = True


@dataclass(frozen=True)
class Protection:
    """One rule: ``protect`` gives the reason to keep an image, or an empty string."""

    name: str
    sentence: str
    protect: Callable[[Facts, ImageState], str] = field(repr=False)
    whole: bool = True


def _incomplete(facts: Facts, _: ImageState) -> str:
    problems = facts.snapshot.problems
    return f"the host could not be read in full: {problems[0]}" if problems else ""


def _in_use(facts: Facts, image: ImageState) -> str:
    container = facts.in_use.get(image.id)
    return f"the container {container.name} ({container.state}) was made from it" if container else ""


def _lease(facts: Facts, image: ImageState) -> str:
    lease = facts.leased.get(image.id)
    if lease is None:
        return ""
    what = "holds every image, since what it needs can't be told" if lease.everything else "holds it"
    return f"{lease.holder} {what}{f' until {lease.expires:%Y-%m-%d %H:%M %Z}' if lease.expires else ''}"


def _scope(facts: Facts, image: ImageState) -> str:
    return "" if image.id in facts.in_scope else "Caisson did not build it, and the scope is its own images"


def _unreadable(facts: Facts, image: ImageState) -> str:
    problem = facts.unreadable.get(image.id)
    return f"one of its names can't be read: {problem}" if problem else ""


def _ambiguous(facts: Facts, image: ImageState) -> str:
    return "the engine lists one of its tags for another image too" if image.id in facts.ambiguous else ""


def _keep_until(facts: Facts, image: ImageState) -> str:
    return until_reason(image.labels.get(LABEL_KEEP_UNTIL), facts.now)


def until_reason(text: str | None, now: datetime) -> str:
    """Why a ``caisson.keep-until`` label keeps what has it at ``now``; empty when it does not.

    A date is kept to its end, and a time without a zone is UTC.

    >>> until_reason("2026-05-01", datetime(2026, 5, 1, 12, tzinfo=UTC))
    'its label caisson.keep-until says 2026-05-01'
    >>> until_reason("2026-05-01", datetime(2026, 5, 2, tzinfo=UTC))
    ''
    """
    if text is None:
        return ""
    shown = text[:40]
    until = kept_until(text)
    if until is None:
        return f"its label {LABEL_KEEP_UNTIL} says {shown!r}, which is no date"
    return f"its label {LABEL_KEEP_UNTIL} says {shown}" if now <= until else ""


def kept_until(text: str) -> datetime | None:
    """The last moment at which such a label keeps what has it; None where it is no date, which keeps it for good."""
    try:
        until = datetime.fromisoformat(text.strip())
    except ValueError:
        return None
    if len(text.strip()) <= len("2026-01-01"):
        until = until.replace(hour=23, minute=59, second=59)
    return until if until.tzinfo else until.replace(tzinfo=UTC)


def _deployed(facts: Facts, image: ImageState) -> str:
    if image.deployed is None or image.deployed > facts.policy.keep_deployed:
        return ""
    if image.deployed == 0:
        return "it is deployed"
    return f"it was deployed {image.deployed} before the current one, and {facts.policy.keep_deployed} are kept"


def _min_age(facts: Facts, image: ImageState) -> str:
    least = max(retention.min_age for retention in facts.retentions(image))
    idle = facts.idle(image)
    if idle >= least:
        return ""
    return f"used {_ago(facts, image)}, and what was used within {format_duration(least)} stays"


def _ago(facts: Facts, image: ImageState) -> str:
    if facts.last_use[image.id] >= facts.now:
        return "now" if image.last_used and image.first_seen else "at a time that is not known"
    return f"{format_age(facts.idle(image))} ago"


def _keep_pattern(facts: Facts, image: ImageState) -> str:
    for name in facts.names[image.id]:
        pattern = facts.kept_by_pattern(name)
        if pattern:
            return f"{name} matches {pattern}"
    return ""


def _keep_last(facts: Facts, image: ImageState) -> str:
    repositories = sorted(facts.newest.get(image.id, ()))
    if not repositories:
        return ""
    return f"among the {facts.retention(repositories[0]).keep_last} newest of {repositories[0]}"


def is_leftover(facts: Facts, image: ImageState) -> bool:
    """Whether only an unfinished build names it."""
    names = facts.names[image.id]
    return bool(names) and all(name.repository.canonical() == REPOSITORY_UNDER_CONSTRUCTION for name in names)


def _unrecoverable(facts: Facts, image: ImageState) -> str:
    if facts.policy.allow_unrecoverable or image.registry_digests or not image.tags or is_leftover(facts, image):
        return ""
    return "no registry has it, and allow_unrecoverable is off"


PROTECTIONS = (
    # First, since with a failed read none of the others can be relied on.
    Protection("incomplete", "Nothing goes when a part of the host could not be read", _incomplete),
    # By image ID and in any state: a stopped container needs its image to start again.
    Protection("in-use", "What a container in any state was made from stays, with all its names", _in_use),
    Protection("lease", "What a running build, pull or push holds stays", _lease),
    Protection("scope", "What is not Caisson's stays, where the scope is its own images", _scope),
    Protection("unreadable-name", "What has a name that can't be read stays", _unreadable),
    Protection("ambiguous-tag", "What shares a tag with another image stays: the listing was torn", _ambiguous),
    Protection("keep-until", "What a label keeps stays until then", _keep_until),
    Protection("deployed", "The current deployment and those before it stay", _deployed),
    Protection("min-age", "What was used lately stays", _min_age),
    Protection("keep-pattern", "What has a name that a keep pattern matches stays", _keep_pattern, whole=False),
    Protection("keep-last", "The newest of each repository stay", _keep_last, whole=False),
    # Last, so that it is named only where it is the one thing in the way.
    Protection("unrecoverable", "What no registry has stays, unless that is allowed", _unrecoverable),
)
ANCESTOR = "ancestor"
"""The protection that follows from the others: the engine refuses to remove a parent of what is kept."""


def protections_of(facts: Facts, image: ImageState) -> tuple[Reason, ...]:
    """Every protection that holds for an image, in their order; ``ANCESTOR`` is not among them."""
    found = ((rule, rule.protect(facts, image)) for rule in PROTECTIONS)
    return tuple(Reason(rule.name, reason, rule.whole) for rule, reason in found if reason)


def ancestors_of(facts: Facts, kept: Iterable[ImageID]) -> Iterator[tuple[ImageID, Reason]]:
    """The ancestors of what is kept, each once, with the reason; those that are among ``kept`` are left out."""
    staying = set(kept)
    for image_id in sorted(staying):
        for ancestor in facts.ancestors(facts.by_id[image_id]):
            if ancestor.id in staying:
                # What is above it follows from it.
                break
            staying.add(ancestor.id)
            yield ancestor.id, ancestor_reason(image_id)


def ancestor_reason(kept: ImageID) -> Reason:
    """Why an image stays that ``kept`` was built on."""
    return Reason(ANCESTOR, f"the image {short_id(kept)}, which is kept, was built on it")
