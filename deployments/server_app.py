"""Prefect's app, closed to pages of other sites, with its key in a file, and on SQLite with writers that take turns and
without the freeze of a failed statement.

SQLAlchemy 2.0 leaves a cursor of aiosqlite open when its statement fails, which SQLite does to writers that meet
("database is locked"). The garbage collector closes it later, in the thread of the event loop, and waits there for
the connection's mutex: when that connection then waits for the write lock, whose holder is a coroutine of the same
loop, nobody goes on before SQLite's time-out, a minute later. A cursor that closes itself in its own thread as its
statement fails leaves nothing to collect.

And each run that is asked for has Prefect judge the schema of the work pool's job variables, again and again the same:
most of what a thousand builds that are asked for at once cost it.
"""

from __future__ import annotations

import asyncio
import functools
import json
import os
import sqlite3
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import sqlalchemy

from caisson.errors import CaissonError
from caisson.settings import Settings, load_settings
from deployments.encryption_key import keep_key
from deployments.same_origin import Origins, SameOrigin
from deployments.sqlite_turns import take_turns
from deployments.state import StateDir

KEY = "PREFECT_SERVER_ENCRYPTION_KEY"


class _Cursor(sqlite3.Cursor):
    def execute(self, *args: Any) -> _Cursor:
        try:
            super().execute(*args)
        except BaseException:
            self.close()
            raise
        return self

    def executemany(self, *args: Any) -> _Cursor:
        try:
            super().executemany(*args)
        except BaseException:
            self.close()
            raise
        return self


class _Connection(sqlite3.Connection):
    def cursor(self, factory: Any = _Cursor) -> Any:
        return super().cursor(factory)


def close_failed_cursors(engines: type[sqlalchemy.Engine] | sqlalchemy.Engine = sqlalchemy.Engine) -> None:
    """Let connections of these engines to SQLite close a cursor as its statement fails, in the thread that ran it."""
    sqlalchemy.event.listen(engines, "do_connect", _with_our_connections)


def check_schemas_once(validator: Any) -> None:
    """Let a class of jsonschema's validators remember which schemas it found valid; a wrong one is told each time."""
    check = validator.check_schema

    @functools.lru_cache(maxsize=256)
    def check_text(text: str, arguments: tuple[tuple[str, Any], ...]) -> None:
        check(json.loads(text), **dict(arguments))

    def check_once(schema: Any, **arguments: Any) -> None:
        check_text(json.dumps(schema), tuple(arguments.items()))

    validator.check_schema = staticmethod(check_once)


def create_app() -> SameOrigin:
    """The app that uvicorn serves: Prefect's own, behind the check of where a request comes from."""
    from prefect.server.api.server import create_app as prefects
    from prefect.server.database.configurations import AioSqliteConfiguration
    from prefect.utilities.schema_tools import validation

    close_failed_cursors()
    take_turns(AioSqliteConfiguration)
    check_schemas_once(validation._VALIDATOR)
    settings = load_settings()
    if settings.database_url:
        _use_key_file(settings)
    origins = Origins.of(
        server_host=settings.server_host, server_names=settings.server_names, host_name=settings.host_name
    )
    return SameOrigin(prefects(final=True), origins)


def _use_key_file(settings: Settings) -> None:
    if os.environ.get(KEY):
        return
    # uvicorn's loop runs in this thread already.
    with ThreadPoolExecutor(1) as pool:
        in_database = pool.submit(asyncio.run, key_in_database()).result()
    # A file of its own: `encryption.key` is that of the SQLite database which was there before.
    path = StateDir(settings.state_dir).create().prefect_home / "encryption-postgresql.key"
    try:
        os.environ[KEY] = keep_key(path, in_database=in_database)
    except CaissonError as error:
        print(f"caisson: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


async def key_in_database() -> str:
    """The key that Prefect has made by itself and keeps in its database; empty where it has none."""
    from prefect.server.database import provide_database_interface

    database = provide_database_interface()
    async with (await database.engine()).connect() as connection:
        names = await connection.run_sync(lambda plain: sqlalchemy.inspect(plain).get_table_names())
        if "configuration" not in names:
            return ""
        query = sqlalchemy.select(database.Configuration.value).where(database.Configuration.key == "ENCRYPTION_KEY")
        value = await connection.scalar(query)
    return str(value["fernet_key"]) if value else ""


def create_lone_app() -> SameOrigin:
    """The same for a server without a worker beside it, which looks after runs that no host is left to settle."""
    from deployments.lone_server import LoneServer

    LoneServer.of(load_settings()).start()
    return create_app()


def _with_our_connections(
    dialect: sqlalchemy.Dialect, _record: object, _arguments: object, keywords: dict[str, Any]
) -> None:
    if dialect.name == "sqlite":
        keywords["factory"] = _Connection
