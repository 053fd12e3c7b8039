"""Writers of Prefect's SQLite database take turns, in the order in which they came.

SQLite has one writer at a time. Prefect begins most transactions as readers (``BEGIN DEFERRED``) that want to write
later: when another wrote in between, SQLite refuses at once, however long it may wait (``SQLITE_BUSY_SNAPSHOT``,
https://sqlite.org/rescode.html#busy_snapshot), and Prefect answers 503 to what was nearly done. Those who may wait poll
for the lock, at most ten times a second, and who polls at the wrong moments never gets it.

Here a transaction begins as the writer that it is (``BEGIN IMMEDIATE``), when those before it are done.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any
from weakref import WeakKeyDictionary


class _Turn:
    """One transaction's; tasks that it started may outlive it, and hold it no more then."""

    over = False


_TURN: ContextVar[_Turn | None] = ContextVar("turn", default=None)


def take_turns(configuration: type[Any]) -> None:
    """Let the transactions of Prefect's ``AioSqliteConfiguration`` take turns, those of one event loop.

    One that is begun within another begins as Prefect has it begin: to wait for the one around it would be for ever.
    """
    from prefect.server.database.configurations import SQLITE_BEGIN_MODE

    begin_as_prefect = configuration.begin_transaction
    locks: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = WeakKeyDictionary()

    @asynccontextmanager
    async def begin_transaction(self: Any, session: Any, with_for_update: bool = False) -> AsyncIterator[Any]:
        around = _TURN.get()
        if around is not None and not around.over:
            async with begin_as_prefect(self, session, with_for_update=with_for_update) as transaction:
                yield transaction
            return
        turn = _Turn()
        async with locks.setdefault(asyncio.get_running_loop(), asyncio.Lock()):
            mark = _TURN.set(turn)
            try:
                async with begin_as_prefect(self, session, with_for_update=True) as transaction:
                    # The connection begins with what it is first asked.
                    await session.connection()
                    # Else a session that only reads within this one would begin as a writer, too.
                    mode = SQLITE_BEGIN_MODE.set(None)
                    try:
                        yield transaction
                    finally:
                        SQLITE_BEGIN_MODE.reset(mode)
            finally:
                turn.over = True
                _TURN.reset(mark)

    configuration.begin_transaction = begin_transaction
