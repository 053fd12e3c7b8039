"""Writers of Prefect's SQLite take turns: none is refused for what another wrote, none waits for ever."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextvars import Context
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from prefect.server.database.configurations import AioSqliteConfiguration

from deployments.sqlite_turns import take_turns

SECONDS = 20.0
"""Far less than SQLite waits for a lock, as Prefect has set it."""


class Turned(AioSqliteConfiguration):
    """Prefect's own, as our server has it."""


take_turns(Turned)


class Database:
    """One table on disk, and sessions as Prefect opens them."""

    def __init__(self, configuration: AioSqliteConfiguration) -> None:
        self.configuration = configuration

    async def session(self) -> Any:
        return await self.configuration.session(await self.configuration.engine())

    async def write(self, number: int, *, between: Callable[[], Awaitable[object]] | None = None) -> None:
        """A transaction that reads first, and writes what it was asked to."""
        async with await self.session() as session, self.configuration.begin_transaction(session):
            await session.execute(sqlalchemy.text("SELECT count(*) FROM numbers"))
            if between is not None:
                await between()
            await session.execute(sqlalchemy.text(f"INSERT INTO numbers VALUES ({number})"))

    async def read(self) -> list[int]:
        async with await self.session() as session:
            found = await session.execute(sqlalchemy.text("SELECT number FROM numbers ORDER BY rowid"))
            return [row[0] for row in found]


def run(
    directory: Path, test: Callable[[Database], Awaitable[None]], kind: type[AioSqliteConfiguration] = Turned
) -> None:
    async def whole() -> None:
        database = Database(kind(f"sqlite+aiosqlite:///{directory / 'prefect.db'}"))
        engine = await database.configuration.engine()
        async with engine.begin() as connection:
            await connection.exec_driver_sql("CREATE TABLE numbers (number INTEGER)")
        try:
            await asyncio.wait_for(test(database), SECONDS)
        finally:
            await engine.dispose()

    # A browser that other tests have opened may have left a loop in this thread.
    with ThreadPoolExecutor(1) as pool:
        pool.submit(asyncio.run, whole()).result()


def request(work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    """What comes from elsewhere, and belongs to no turn."""
    return asyncio.create_task(work, context=Context())


async def meet(database: Database) -> None:
    """The second writes after the first has read, and before it writes."""
    second: list[asyncio.Task[None]] = []

    async def between() -> None:
        second.append(request(database.write(2)))
        await asyncio.wait(second, timeout=0.3)

    await database.write(1, between=between)
    await asyncio.gather(*second)


def test_who_reads_before_it_writes_is_not_refused_for_what_another_wrote(tmp_path: Path) -> None:
    async def test(database: Database) -> None:
        await meet(database)
        assert await database.read() == [1, 2]

    run(tmp_path, test)


def test_prefects_own_way_still_refuses(tmp_path: Path) -> None:
    # The day it does not, this module can go.
    with pytest.raises(sqlalchemy.exc.OperationalError, match="database is locked"):
        run(tmp_path, meet, AioSqliteConfiguration)


def test_writers_are_served_as_they_came_also_when_one_gives_up(tmp_path: Path) -> None:
    async def test(database: Database) -> None:
        tasks: list[asyncio.Task[None]] = []

        async def between() -> None:
            for number in range(1, 20):
                tasks.append(request(database.write(number)))
                await asyncio.sleep(0)
            tasks[4].cancel()
            await asyncio.sleep(0.1)

        await database.write(0, between=between)
        await asyncio.gather(*tasks, return_exceptions=True)
        assert await database.read() == [number for number in range(20) if number != 5]

    run(tmp_path, test)


def test_a_turn_ends_with_the_transaction_that_fails(tmp_path: Path) -> None:
    async def test(database: Database) -> None:
        async def fail() -> None:
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await database.write(1, between=fail)
        await database.write(2)
        assert await database.read() == [2]

    run(tmp_path, test)


def test_what_is_done_within_a_turn_waits_for_nothing(tmp_path: Path) -> None:
    async def test(database: Database) -> None:
        found: list[list[int]] = []

        async def within() -> None:
            found.append(await database.read())
            async with await database.session() as session, database.configuration.begin_transaction(session):
                await session.execute(sqlalchemy.text("SELECT count(*) FROM numbers"))

        await database.write(1)
        await database.write(2, between=within)
        assert found == [[1]]
        assert await database.read() == [1, 2]

    run(tmp_path, test)


def test_a_task_that_outlives_the_turn_it_began_in_takes_one_of_its_own(tmp_path: Path) -> None:
    async def test(database: Database) -> None:
        over = asyncio.Event()
        outlives: list[asyncio.Task[None]] = []

        async def later() -> None:
            await over.wait()
            await meet(database)

        async def begin_it() -> None:
            outlives.append(asyncio.create_task(later()))

        await database.write(0, between=begin_it)
        over.set()
        await asyncio.gather(*outlives)
        assert await database.read() == [0, 1, 2]

    run(tmp_path, test)
