"""A statement that failed does not stop the server's event loop, whatever its connection does by then."""

from __future__ import annotations

import asyncio
import gc
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import sqlalchemy
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from deployments.server_app import check_schemas_once, close_failed_cursors

BUSY_SECONDS = 3.0


@pytest.mark.parametrize("closes", [True, False])
def test_a_failed_statement_is_let_go_of_in_its_own_thread(tmp_path: Path, closes: bool) -> None:
    # A browser that other tests have opened may have left a loop in this thread.
    with ThreadPoolExecutor(1) as pool:
        blocked = pool.submit(asyncio.run, _seconds_that_a_collection_blocks(tmp_path / "prefect.db", closes)).result()
    # Without ours, SQLAlchemy and aiosqlite still freeze the loop: the day they don't, this module can go.
    assert (blocked < BUSY_SECONDS * 0.8) == closes


async def _seconds_that_a_collection_blocks(database: Path, closes: bool) -> float:
    engine = create_async_engine(f"sqlite+aiosqlite:///{database}", connect_args={"timeout": BUSY_SECONDS})
    sqlalchemy.event.listen(engine.sync_engine, "connect", _no_begin_of_its_own)
    if closes:
        close_failed_cursors(engine.sync_engine)
    try:
        return await _blocked(engine)
    finally:
        await engine.dispose()


async def _blocked(engine: AsyncEngine) -> float:
    async with engine.connect() as holder, engine.connect() as waiter:
        for statement in ("CREATE TABLE run (id INTEGER PRIMARY KEY)", "INSERT INTO run VALUES (1)"):
            await holder.exec_driver_sql(statement)
        # What other tests have left is not to be collected with it, which would take a second on its own.
        gc.freeze()
        failed = await _failure(waiter, "INSERT INTO run VALUES (1)")
        assert failed is not None
        await holder.exec_driver_sql("BEGIN IMMEDIATE")
        waiting = asyncio.create_task(_failure(waiter, "BEGIN IMMEDIATE"))
        await asyncio.sleep(0.3)
        # What the error holds is a cycle, so that only a collection finds it.
        failed.again = failed  # type: ignore[attr-defined]
        del failed
        began = time.monotonic()
        gc.collect()
        blocked = time.monotonic() - began
        gc.unfreeze()
        await holder.exec_driver_sql("COMMIT")
        await waiting
        return blocked


async def _failure(connection: AsyncConnection, statement: str) -> Exception | None:
    try:
        await connection.exec_driver_sql(statement)
    except sqlalchemy.exc.DBAPIError as error:
        return error
    return None


def _no_begin_of_its_own(connection: sqlalchemy.engine.interfaces.DBAPIConnection, _record: object) -> None:
    connection.isolation_level = None


def test_a_schema_is_judged_once_and_a_wrong_one_each_time() -> None:
    judged: list[Any] = []

    def check(schema: Any, **arguments: Any) -> None:
        judged.append(schema)
        jsonschema.Draft202012Validator.check_schema(schema, **arguments)

    validator = jsonschema.validators.extend(jsonschema.Draft202012Validator)
    validator.check_schema = staticmethod(check)
    check_schemas_once(validator)
    number, text, wrong = {"type": "integer"}, {"type": "string"}, {"type": "numb"}
    for _ in range(3):
        jsonschema.validate(1, number, validator)
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(1, text, validator)
        with pytest.raises(jsonschema.SchemaError):
            jsonschema.validate(1, wrong, validator)
    assert judged == [number, text, wrong, wrong, wrong]
