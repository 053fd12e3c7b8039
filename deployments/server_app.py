"""Prefect's app, closed to pages of other sites, and on SQLite without the freeze of a failed statement.

SQLAlchemy 2.0 leaves a cursor of aiosqlite open when its statement fails, which SQLite does to writers that meet
("database is locked"). The garbage collector closes it later, in the thread of the event loop, and waits there for
the connection's mutex: when that connection then waits for the write lock, whose holder is a coroutine of the same
loop, nobody goes on before SQLite's time-out, a minute later. A cursor that closes itself in its own thread as its
statement fails leaves nothing to collect.
"""

from __future__ import annotations

import sqlite3
from typing import Any

import sqlalchemy

from caisson.settings import load_settings
from deployments.same_origin import Origins, SameOrigin


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


def create_app() -> SameOrigin:
    """The app that uvicorn serves: Prefect's own, behind the check of where a request comes from."""
    from prefect.server.api.server import create_app as prefects

    close_failed_cursors()
    settings = load_settings()
    origins = Origins.of(
        server_host=settings.server_host, server_names=settings.server_names, host_name=settings.host_name
    )
    return SameOrigin(prefects(final=True), origins)


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
