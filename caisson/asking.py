"""Who asked for a build and when, and what follows: whom a push joins, what it makes needless, when a build ends for
one of those who asked for it. Pure.

A run remembers the first that asked for it in a label, and everybody who did in tags, by digests: names of callers are
nobody else's business.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from caisson.queueing import Supersede

ASKER_TAG = "caisson:asker="
WITHDRAWN_TAG = "caisson:withdrawn="
ASKED_AT_LABEL = "caisson.asked_at"
WAITS = "SCHEDULED"
_GOES_ON = (WAITS, "PENDING", "RUNNING")


def mark_of(asker: str) -> str:
    """What a run's tags say of one who asked for it."""
    return hashlib.sha256(asker.encode()).hexdigest()[:24]


def asked_at(labels: Mapping[str, object], otherwise: datetime) -> datetime:
    """When a run was asked for, by its labels; where they don't tell, what is given.

    >>> asked_at({ASKED_AT_LABEL: "2026-05-01T12:00:00+00:00"}, datetime.max).isoformat()
    '2026-05-01T12:00:00+00:00'
    """
    try:
        asked = datetime.fromisoformat(str(labels.get(ASKED_AT_LABEL, "")))
    except ValueError:
        return otherwise
    return asked if asked.tzinfo is not None else otherwise


@dataclass(frozen=True)
class PushedRun:
    """A run of a push to one branch: when it was asked for, its state by Prefect's type, whether it ever began, and the
    marks of those who ask for it."""

    id: str
    asked: datetime
    state: str
    began: bool
    askers: frozenset[str]


def may_join(run: PushedRun, branch: Iterable[PushedRun], *, mark: str, superseding: Supersede) -> bool:
    """Whether a new push, which is the branch's newest, may join a run of an older one.

    The branch's tags end at the last push that was asked for: so nothing later than the run may have begun, and what
    is later and waits has to be superseded by this.
    """
    later = [other for other in branch if other.id != run.id and other.asked > run.asked]
    return all(_is_needless(other, mark, superseding) if other.state == WAITS else _never_was(other) for other in later)


def superseded(
    run: PushedRun, branch: Iterable[PushedRun], *, joined: bool, mark: str, superseding: Supersede
) -> list[str]:
    """The runs of the branch that a push to it makes needless, which is built by ``run``: those that were asked for
    earlier, and all where it has ``joined`` an older run. Never one that somebody else asks for as well."""
    return [
        other.id
        for other in branch
        if other.id != run.id and (joined or other.asked < run.asked) and _is_needless(other, mark, superseding)
    ]


def _is_needless(other: PushedRun, mark: str, superseding: Supersede) -> bool:
    states = {"queued": (WAITS,), "running": _GOES_ON, "off": ()}[superseding]
    return other.state in states and other.askers <= {mark}


def _never_was(other: PushedRun) -> bool:
    return other.state == "CANCELLED" and not other.began


def askers(tags: Iterable[str]) -> frozenset[str]:
    """The marks of those who ask for a run."""
    return frozenset(tag.removeprefix(ASKER_TAG) for tag in tags if tag.startswith(ASKER_TAG))


def with_asker(tags: Iterable[str], mark: str) -> list[str]:
    """The run's tags once somebody asks for it, too."""
    return [*(tag for tag in tags if tag not in (ASKER_TAG + mark, WITHDRAWN_TAG + mark)), ASKER_TAG + mark]


def without_asker(tags: Iterable[str], mark: str) -> list[str] | None:
    """The run's tags once one of those who ask for it does no longer; None where it is to end.

    It ends where nobody else asks for it, and where it is ended by who never asked: that is no asker's change of mind.
    Whoever has withdrawn may say so again, and nothing comes of it.

    >>> alone = with_asker(["team-a"], "me")
    >>> both = with_asker(alone, "you")
    >>> without_asker(alone, "me"), without_asker(both, "somebody"), without_asker(both, "me")
    (None, None, ['team-a', 'caisson:asker=you', 'caisson:withdrawn=me'])
    >>> without_asker(without_asker(both, "me"), "me") == without_asker(both, "me")
    True
    """
    tags = list(tags)
    mine = ASKER_TAG + mark in tags or WITHDRAWN_TAG + mark in tags
    if not mine or not askers(tags) - {mark}:
        return None
    return [*(tag for tag in tags if tag not in (ASKER_TAG + mark, WITHDRAWN_TAG + mark)), WITHDRAWN_TAG + mark]
