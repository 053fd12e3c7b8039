"""Deliveries that were seen and the builds that they asked for, in the service's store.

A delivery and its builds are written in one transaction before it is answered, so that neither a crash nor a Prefect
that is down loses a build, and the state of a build that ends while nobody looks is told later. Times are the ledger's
stamps.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from caisson.ledger.stamps import from_stamp, to_stamp
from caisson.webhooks.decision import WantedBuild
from caisson.webhooks.signature import Delivery
from caisson.webhooks.status import BuildState
from deployments.service_store import ServiceStore

KEEP_DELIVERIES = timedelta(days=90)
KEEP_BUILDS = timedelta(days=7)
_COLUMNS = "key, hook, request, sha, ref, context, host, priority, supersede, asked, flow_run_id, state, told, attempts"
# SQLite takes 32,766 values in one statement; a round of fewer leaves others a turn.
_AT_ONCE = 200
_FAILS_OFTEN = 10


class Acceptance(StrEnum):
    """Whether a delivery is new."""

    NEW = "new"
    SEEN = "seen"
    REPLAYED = "replayed"


@dataclass(frozen=True)
class AskedBuild:
    """A build that a delivery asked for. ``flow_run_id`` is empty until it is in the queue, ``told`` until its first
    state has been told; ``attempts`` are failures in a row of what is to be done next.
    """

    key: str
    hook: str
    request: Mapping[str, Any]
    sha: str
    ref: str
    context: str
    host: str
    priority: str
    supersede: bool
    asked: datetime
    flow_run_id: str
    state: BuildState
    told: str
    attempts: int


class WebhookStore:
    """Every call raises ``StoreUnusable`` when the store can't be read or written."""

    def __init__(self, store: ServiceStore) -> None:
        self._store = store

    def accept(
        self, hook: str, delivery: Delivery, builds: Iterable[WantedBuild], now: datetime
    ) -> tuple[Acceptance, list[str]]:
        """Remember a delivery with its builds, or say that it was here before; the keys are those of its builds."""
        with self._store.writing() as database:
            known = database.execute(
                "SELECT delivery FROM webhook_deliveries"
                " WHERE hook = ?1 AND (delivery = ?2 OR (?3 <> '' AND digest = ?3))",
                (hook, delivery.id, delivery.digest),
            ).fetchall()
            if known:
                same = any(found == delivery.id for (found,) in known)
                return (Acceptance.SEEN if same else Acceptance.REPLAYED), []
            database.execute(
                "INSERT INTO webhook_deliveries (hook, delivery, digest, seen) VALUES (?, ?, ?, ?)",
                (hook, delivery.id, delivery.digest, to_stamp(now)),
            )
            keys = []
            for index, build in enumerate(builds):
                keys.append(_key(hook, delivery.id, index))
                database.execute(
                    "INSERT INTO webhook_builds"
                    " (key, hook, request, sha, ref, context, host, priority, supersede, asked, due)"
                    " VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?10)",
                    (
                        keys[-1],
                        hook,
                        json.dumps(build.request),
                        build.sha,
                        build.ref,
                        build.context,
                        build.host,
                        str(build.priority),
                        build.supersede,
                        to_stamp(now),
                    ),
                )
        return Acceptance.NEW, keys

    def builds(self, keys: Iterable[str]) -> list[AskedBuild]:
        """The builds of these keys, in the order that they were asked in."""
        wanted = json.dumps(list(keys))
        return self._select("WHERE key IN (SELECT value FROM json_each(?)) ORDER BY rowid", (wanted,))

    def to_begin(self, now: datetime) -> list[AskedBuild]:
        """What is to be put into the queue, the oldest first; what has failed often lets the others pass."""
        return self._select(
            "WHERE flow_run_id = '' AND state = 'queued' AND due <= ? ORDER BY attempts >= ?, rowid LIMIT ?",
            (to_stamp(now), _FAILS_OFTEN, _AT_ONCE),
        )

    def superseded(self) -> list[AskedBuild]:
        """Pushes that are not in the queue yet, and of whose branch and image a newer push is known."""
        return self._select(
            "AS old WHERE flow_run_id = '' AND state = 'queued' AND supersede AND EXISTS (SELECT 1 FROM webhook_builds"
            " AS new WHERE new.hook = old.hook AND new.host = old.host AND new.ref = old.ref AND new.supersede"
            " AND json_extract(new.request, '$.image') = json_extract(old.request, '$.image')"
            " AND new.asked > old.asked AND (new.flow_run_id <> '' OR new.state = 'queued')) ORDER BY rowid",
            (),
        )

    def begun(self, key: str, flow_run_id: str, now: datetime) -> None:
        """It is in the queue."""
        self._execute(
            "UPDATE webhook_builds SET flow_run_id = ?, attempts = 0, due = ? WHERE key = ?",
            (flow_run_id, to_stamp(now), key),
        )

    def in_flight(self) -> list[AskedBuild]:
        """What is in the queue or runs, as far as is known."""
        return self._select("WHERE flow_run_id <> '' AND state IN ('queued', 'running') ORDER BY rowid", ())

    def set_states(self, states: Mapping[str, BuildState], now: datetime) -> None:
        """New states of the builds of these keys; each is told at once."""
        if not states:
            return
        with self._store.writing() as database:
            database.executemany(
                "UPDATE webhook_builds SET state = ?, attempts = 0, due = ? WHERE key = ?",
                [(str(state), to_stamp(now), key) for key, state in states.items()],
            )

    def to_tell(self, now: datetime) -> list[AskedBuild]:
        """What providers are to be told; a final state also of a build that never got into the queue."""
        return self._select(
            "WHERE told <> state AND due <= ? AND (flow_run_id <> '' OR state <> 'queued') ORDER BY due, rowid LIMIT ?",
            (to_stamp(now), _AT_ONCE),
        )

    def told(self, key: str, state: BuildState) -> None:
        """The provider knows this state, or will never take it."""
        self._execute("UPDATE webhook_builds SET told = ?, attempts = 0 WHERE key = ?", (str(state), key))

    def postpone(self, key: str, attempts: int, until: datetime) -> None:
        """It has failed that often, and is tried again then."""
        self._execute("UPDATE webhook_builds SET attempts = ?, due = ? WHERE key = ?", (attempts, to_stamp(until), key))

    def is_idle(self) -> bool:
        """Whether nothing is to be begun, looked at, or told."""
        with self._store.reading() as database:
            row = database.execute(
                "SELECT 1 FROM webhook_builds WHERE state IN ('queued', 'running') OR told <> state LIMIT 1"
            ).fetchone()
        return row is None

    def forget(self, now: datetime) -> None:
        """Remove deliveries that are too old to come again, and builds of which all is told."""
        with self._store.writing() as database:
            database.execute("DELETE FROM webhook_deliveries WHERE seen < ?", (to_stamp(now - KEEP_DELIVERIES),))
            database.execute(
                "DELETE FROM webhook_builds WHERE asked < ? AND told = state AND state NOT IN ('queued', 'running')",
                (to_stamp(now - KEEP_BUILDS),),
            )

    def _execute(self, statement: str, values: tuple[Any, ...]) -> None:
        with self._store.writing() as database:
            database.execute(statement, values)

    def _select(self, condition: str, values: tuple[Any, ...]) -> list[AskedBuild]:
        with self._store.reading() as database:
            rows = database.execute(f"SELECT {_COLUMNS} FROM webhook_builds {condition}", values).fetchall()  # noqa: S608
        return [_build(row) for row in rows]


def _key(hook: str, delivery: str, index: int) -> str:
    """The idempotency key of one of a delivery's builds: the same after a crash, another for every other."""
    digest = hashlib.sha256(json.dumps([hook, delivery, index]).encode()).hexdigest()
    return f"webhook-{digest}"


def _build(row: sqlite3.Row | tuple[Any, ...]) -> AskedBuild:
    key, hook, request, sha, ref, context, host, priority, supersede, asked, flow_run_id, state, told, attempts = row
    return AskedBuild(
        key=key,
        hook=hook,
        request=json.loads(request),
        sha=sha,
        ref=ref,
        context=context,
        host=host,
        priority=priority,
        supersede=bool(supersede),
        asked=from_stamp(asked),
        flow_run_id=flow_run_id,
        state=BuildState(state),
        told=told,
        attempts=attempts,
    )
