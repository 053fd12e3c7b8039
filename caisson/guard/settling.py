"""Judging what may need names: they are asked for in a thread, so that the guard's loop serves all others meanwhile.

What is judged waits, and whatever comes behind it on its connection; it is judged anew once the names are known. Where
that never comes to an end, it is denied.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from caisson.guard.dockerfile_names import Unasked
from caisson.guard.verdict import Denied

MOST_ROUNDS = 64
"""What is asked for is known afterwards, for a minute; more are for files that wait on one connection at once."""


def never_ends() -> Denied:
    """What is said of names that are unknown again and again."""
    return Denied("names", "The names in the Dockerfile could not be asked for in time.")


async def ask_all(questions: Iterable[Unasked]) -> None:
    """Ask for all of these names; it takes as long as ``Names`` lets it."""

    def ask() -> None:
        for question in questions:
            question.ask()

    await asyncio.to_thread(ask)


async def settled(check: Callable[[], None]) -> None:
    """Have ``check`` judge, anew where names had to be asked for; raises ``Denied``."""
    for _ in range(MOST_ROUNDS):
        try:
            check()
        except Unasked as unasked:
            await ask_all((unasked,))
        else:
            return
    raise never_ends()
