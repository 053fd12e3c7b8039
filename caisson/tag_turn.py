"""Who moves a tag of this host now, or pushes it: of builds of one branch that end together, each waits for the other.

Between the look at who may and the move nobody else gets in. Tags share a few files for their locks, so that branches
and pull requests, which come and go, leave none behind.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from typing import Literal

from caisson.build import Build
from caisson.errors import LedgerUnusable
from caisson.file_lock import locked
from caisson.tagging import follows_ref

_LOCK_DIGITS = 2


@contextmanager
def tag_turn(build: Build, reference: str, rule: str, *, to: Literal["move", "push"]) -> Iterator[bool]:
    """Hold the tag, and tell whether it is the build's; False: a build of the same ref that was asked for later has it.

    A tag that stands for one commit is every build's of it. Raises ``LedgerUnusable``, and ``BuildTimedOut`` where the
    wait lasts longer than the build may.
    """
    if not follows_ref(rule):
        yield True
        return
    with ExitStack() as stack:
        stack.enter_context(_locked(build, reference, to))
        yield build.ledger.builds.claim_tag(reference, build.follows, asked=build.asked, now=datetime.now(UTC))


def left_alone(reference: str) -> str:
    """The words for a tag that is another build's."""
    return f"{reference} is left alone: it is that of a build of the same ref that was asked for later"


@contextmanager
def _locked(build: Build, reference: str, to: str) -> Iterator[None]:
    directory = build.settings.state_dir / "tags"
    file = directory / f"{hashlib.sha256(reference.encode()).hexdigest()[:_LOCK_DIGITS]}.{to}"
    with ExitStack() as stack:
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            stack.enter_context(locked(file, waiting=build.require_time))
        except OSError as error:
            raise LedgerUnusable(
                f"The lock {file} can't be taken: {error.strerror}.",
                hint="Make CAISSON_STATE_DIR a directory with room in it that Caisson can write to.",
            ) from None
        yield
