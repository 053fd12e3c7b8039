"""All that a prune knows of one image: every rule that keeps it, when its time is over, what it shares. Pure."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache

from pydantic import AwareDatetime, TypeAdapter

from caisson.engine import ImageID
from caisson.image_rows import ImageRow
from caisson.layers import LayerHolders
from caisson.retention.expiry import image_expiry, why_not_expired
from caisson.retention.facts import Facts
from caisson.retention.plan import Eligibility, judge
from caisson.retention.protections import Reason, ancestor_reason, kept_until, protections_of
from caisson.snapshot import LABEL_KEEP_UNTIL, ImageState

_MOST_SHARING = 20


@dataclass(frozen=True)
class Sharing:
    """Another image, and what of this one it holds as well: layers and their bytes."""

    id: ImageID
    names: tuple[str, ...]
    layers: int
    size: int


@dataclass(frozen=True)
class ImageAccount:
    """One image. ``protections`` are all that hold for it now, ``expiry`` is what it still has of its time.

    ``alone_bytes`` is what it would free if nothing but it went now. ``goes`` is the earliest moment at which a prune
    without pressure takes it if nothing changes, ``evictable`` the earliest for one under pressure; each is None where
    no time brings it about, and ``stays`` says why the first is not. ``shared_with`` are the images that hold most of
    it, 20 at most.
    """

    image: ImageRow
    protections: tuple[Reason, ...]
    expiry: str
    alone_bytes: int
    goes: AwareDatetime | None
    evictable: AwareDatetime | None
    stays: str
    shared_with: tuple[Sharing, ...]


_ADAPTER = TypeAdapter(ImageAccount)


def account_to_json(account: ImageAccount) -> str:
    """The account as one JSON document."""
    return _ADAPTER.dump_json(account, indent=2).decode()


def image_account(facts: Facts, row: ImageRow, going: Collection[ImageID]) -> ImageAccount:
    """The account of an image of ``facts``; ``row`` and all images that go are from the plan of the same moment."""
    image = facts.by_id[row.id]
    expired = image_expiry(facts, image)
    goes, evictable, stays = _prospects(facts, image)
    return ImageAccount(
        image=row,
        protections=_protections(facts, image, going),
        expiry=expired.reason if expired else why_not_expired(facts, image),
        alone_bytes=_alone_bytes(facts, image),
        goes=goes,
        evictable=evictable,
        stays=stays,
        shared_with=tuple(_sharing(facts, image)[:_MOST_SHARING]),
    )


def _protections(facts: Facts, image: ImageState, going: Collection[ImageID]) -> tuple[Reason, ...]:
    found = protections_of(facts, image)
    child = next((child for child in sorted(facts.children.get(image.id, ())) if child not in going), None)
    return found if child is None else (*found, ancestor_reason(child))


def _prospects(facts: Facts, image: ImageState) -> tuple[datetime | None, datetime | None, str]:
    """When it goes by its age, when pressure may take it, and what is in the way of the former for good."""
    moments = sorted({facts.now, *_moments(facts, image)})

    @cache
    def judged(moment: datetime) -> Eligibility:
        return judge(Facts(facts.snapshot, facts.policy, moment))

    def first(holds: Callable[[Eligibility], bool]) -> datetime | None:
        # On one snapshot time only takes protections away and only adds to what is expired.
        index = bisect_left(moments, True, key=lambda moment: holds(judged(moment)))
        return moments[index] if index < len(moments) else None

    goes = first(lambda eligible: image.id in eligible.expired)
    evictable = first(lambda eligible: image.id not in eligible.protected)
    return goes, evictable, "" if goes else _in_the_way(facts, image, moments[-1], judged(moments[-1]))


def _in_the_way(facts: Facts, image: ImageState, end: datetime, eligible: Eligibility) -> str:
    if found := eligible.protected.get(image.id):
        return found[0].reason
    if image.id in eligible.held_up:
        return eligible.held_up[image.id].reason
    return why_not_expired(Facts(facts.snapshot, facts.policy, end), image)


def _moments(facts: Facts, image: ImageState) -> Iterator[datetime]:
    """Every moment to come at which a rule can change its mind about the image or what was built on it."""
    own = [lease.expires for lease in facts.snapshot.leases if lease.expires is not None]
    family = [image]
    seen = {image.id}
    while family:
        member = family.pop()
        own += _own_moments(facts, member)
        children = [child for child in facts.children.get(member.id, ()) if child not in seen]
        seen.update(children)
        family += [facts.by_id[child] for child in children]
    return (moment for moment in own if moment > facts.now)


def _own_moments(facts: Facts, image: ImageState) -> Iterator[datetime]:
    spans = [facts.policy.dangling_age, facts.policy.leftovers_age]
    for retention in facts.retentions(image):
        spans += [retention.min_age, *([retention.max_age] if retention.max_age is not None else [])]
    for span in spans:
        yield from _after(facts.last_use[image.id], span)
    end = kept_until(image.labels.get(LABEL_KEEP_UNTIL, ""))
    if end is not None:
        # It is kept to that moment, and with it.
        yield from _after(end, timedelta(microseconds=1))


def _after(moment: datetime, span: timedelta) -> Iterator[datetime]:
    # What lies beyond the calendar's end never comes.
    with suppress(OverflowError):
        yield (moment + span).astimezone(UTC)


def _alone_bytes(facts: Facts, image: ImageState) -> int:
    holders = LayerHolders(other.layers for other in facts.images)
    return holders.marginal(facts.images.index(image))


def _sharing(facts: Facts, image: ImageState) -> list[Sharing]:
    own = dict(image.layers)
    found = []
    for other in facts.images:
        common = own.keys() & {layer.chain_id for layer in other.layers} if other.id != image.id else ()
        if common:
            names = tuple(sorted(other.tags or other.registry_digests))
            found.append(Sharing(other.id, names, len(common), sum(own[chain_id] for chain_id in common)))
    return sorted(found, key=lambda sharing: (-sharing.size, -sharing.layers, sharing.id))
