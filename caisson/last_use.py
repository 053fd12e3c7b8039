"""When an image was last used: the latest of all that tells of a use. Pure.

- ``Created`` is no use, and is not looked at.
- A date that is not known adds nothing; one in the future counts as now. Neither ever makes an image older.
- An image that nothing is known of was used now.
- An image lends its last use to every image whose layers are the beginning of its own: who runs it uses those too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from caisson.engine import ImageID


@dataclass(frozen=True)
class Use:
    """One use, or a sign of one; ``how`` is for people: ``tagged``, ``container start``."""

    at: datetime
    how: str


@dataclass(frozen=True)
class Evidence:
    """What is known of one image: its layers' chain IDs, the base's first, and every use that something tells of.

    A chain ID stands for a layer and all below it, so images that have one in common begin with the same layers.
    """

    layers: tuple[str, ...]
    uses: tuple[Use, ...] = ()


def latest(uses: Iterable[Use], *, now: datetime) -> Use:
    """The last of them; now where there is none.

    >>> from datetime import UTC
    >>> now = datetime(2030, 1, 1, tzinfo=UTC)
    >>> latest([Use(datetime(2029, 1, 1, tzinfo=UTC), "tagged"), Use(datetime(2099, 1, 1, tzinfo=UTC), "run")], now=now)
    Use(at=datetime.datetime(2030, 1, 1, 0, 0, tzinfo=datetime.timezone.utc), how='run, by a clock that was ahead')
    """
    last = max(uses, key=lambda use: use.at, default=Use(now, "nothing is known of its use"))
    return last if last.at <= now else Use(now, f"{last.how}, by a clock that was ahead")


def last_uses(images: Mapping[ImageID, Evidence], *, now: datetime) -> dict[ImageID, Use]:
    """The last use of each image, what others lend it included."""
    own = {image: latest(evidence.uses, now=now) for image, evidence in images.items()}
    lent = _lend(images, own)
    return {
        image: use if lent[image].at <= use.at else Use(lent[image].at, f"{lent[image].how} (an image made of it)")
        for image, use in own.items()
    }


def _lend(images: Mapping[ImageID, Evidence], uses: Mapping[ImageID, Use]) -> dict[ImageID, Use]:
    """The latest use among all images that begin with an image's layers, its own included."""
    last: dict[str, Use] = {}
    latest_of_all = max(uses.values(), key=lambda use: use.at, default=None)
    for image, evidence in images.items():
        use = uses[image]
        for layer in evidence.layers:
            if layer not in last or last[layer].at < use.at:
                last[layer] = use
    # An image without layers is the beginning of all.
    return {
        image: last[evidence.layers[-1]] if evidence.layers else latest_of_all or uses[image]
        for image, evidence in images.items()
    }
