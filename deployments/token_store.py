"""The tokens of Caisson's own API as they are kept."""

from __future__ import annotations

import json
import sqlite3
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

from caisson.errors import RequestInvalid, StoreUnusable
from caisson.ledger.stamps import from_stamp, to_stamp
from caisson.settings import Settings
from caisson.tokens import Grant, Scope, TokenRecord, is_genuine, new_token, record_of, token_id
from deployments.service_store import ServiceStore, store_file

_COLUMNS = "token_id, name, scopes, images, repositories, secrets, digest, created, expires, last_used"
# Who uses a token all the time would else cost a write each time.
_USED_EVERY = timedelta(minutes=1)


class TokenStore:
    """Tokens in the service's store. Every call raises ``StoreUnusable``."""

    def __init__(self, store: ServiceStore) -> None:
        self._store = store

    @classmethod
    def of(cls, settings: Settings) -> TokenStore:
        return cls(ServiceStore(store_file(settings)))

    def create(
        self, name: str, grant: Grant, *, lifetime: timedelta | None, now: datetime | None = None
    ) -> tuple[str, TokenRecord]:
        """Make a token; returns it, and what is kept. Raises ``RequestInvalid`` where there is one of that name."""
        token = new_token()
        record = record_of(token, name, grant, now=now or datetime.now(UTC), lifetime=lifetime)
        try:
            with self._store.writing() as database:
                database.execute(f"INSERT INTO tokens ({_COLUMNS}) VALUES (?,?,?,?,?,?,?,?,?,?)", _row(record))  # noqa: S608
        except sqlite3.IntegrityError:
            raise RequestInvalid(
                f"name: there is a token {name!r} already; revoke it first, or take another."
            ) from None
        return token, record

    def all(self) -> list[TokenRecord]:
        """Every token, the oldest first, expired ones too."""
        with self._store.reading() as database:
            rows = database.execute(f"SELECT {_COLUMNS} FROM tokens ORDER BY created, token_id").fetchall()  # noqa: S608
        return [_record(row) for row in rows]

    def revoke(self, name_or_id: str) -> TokenRecord | None:
        """Remove a token, at once; None where there is none."""
        with self._store.writing() as database:
            row = database.execute(
                f"DELETE FROM tokens WHERE name = ?1 OR token_id = ?1 RETURNING {_COLUMNS}",  # noqa: S608
                (name_or_id,),
            ).fetchone()
        return _record(row) if row else None

    def get(self, token_id: str, now: datetime | None = None) -> TokenRecord | None:
        """The record of that ID, None once it has expired or been revoked."""
        record = self._read(token_id)
        return None if record is None or record.expired(now or datetime.now(UTC)) else record

    def find(self, token: str, now: datetime) -> TokenRecord | None:
        """The record of a genuine token that has not expired, and remember its use."""
        found = token_id(token)
        if found is None:
            return None
        record = self._read(found)
        if record is None or not is_genuine(token, record) or record.expired(now):
            return None
        if record.last_used is None or now - record.last_used > _USED_EVERY:
            # On a disk that is full a token is as good as before.
            with suppress(StoreUnusable), self._store.writing() as database:
                database.execute("UPDATE tokens SET last_used = ? WHERE token_id = ?", (to_stamp(now), found))
        return record

    def _read(self, token_id: str) -> TokenRecord | None:
        with self._store.reading() as database:
            row = database.execute(f"SELECT {_COLUMNS} FROM tokens WHERE token_id = ?", (token_id,)).fetchone()  # noqa: S608
        return _record(row) if row else None


def _row(record: TokenRecord) -> tuple[Any, ...]:
    return (
        record.id,
        record.name,
        json.dumps(sorted(record.grant.scopes)),
        json.dumps(record.grant.images),
        json.dumps(record.grant.repositories),
        json.dumps(record.grant.secrets),
        record.digest,
        to_stamp(record.created),
        None if record.expires is None else to_stamp(record.expires),
        None if record.last_used is None else to_stamp(record.last_used),
    )


def _record(row: tuple[Any, ...]) -> TokenRecord:
    identity, name, scopes, images, repositories, secrets, digest, created, expires, last_used = row
    return TokenRecord(
        id=identity,
        name=name,
        grant=Grant(
            frozenset(Scope(scope) for scope in json.loads(scopes)),
            tuple(json.loads(images)),
            tuple(json.loads(repositories)),
            tuple(json.loads(secrets)),
        ),
        digest=digest,
        created=from_stamp(created),
        expires=None if expires is None else from_stamp(expires),
        last_used=None if last_used is None else from_stamp(last_used),
    )
