"""The worker's side of placing: what it knows of its own host and of the others, and what it tells them.

Builds asked of this host and builds that any host may take come from different queues; the rules for both are in
``caisson.placing``. What Prefect can't be asked for is taken as it was last known, for no build may wait on it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from http import HTTPStatus
from pathlib import Path
from typing import Any, Protocol, TypeVar
from uuid import UUID

import anyio.to_thread
import httpx
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import VariableCreate, VariableUpdate
from prefect.client.schemas.objects import WorkerStatus
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError

from caisson.disk import read_file_system
from caisson.disk_places import stops_builds
from caisson.disk_state import read_state
from caisson.disk_watch import require_uncritical
from caisson.docker_engine import DockerEngine
from caisson.errors import CaissonError, DiskTooFull, EngineUnreachable
from caisson.ledger import Ledger
from caisson.placing import Candidate, hold_reason, place
from caisson.settings import Settings
from deployments.hosts import (
    RECORDS,
    TAG,
    HostRecord,
    parse_records,
    repository_mark,
    repository_marks,
    variable_name,
)
from deployments.names import POOL, SHARED_QUEUE, care_queue, host_queue
from deployments.queued import repository_of

logger = logging.getLogger("caisson.worker")

REFRESH_SECONDS = 2.0
TELL_SECONDS = 60.0
ENGINE_SECONDS = 2.0


class _FlowRun(Protocol):
    @property
    def id(self) -> UUID: ...
    @property
    def work_queue_name(self) -> str | None: ...
    @property
    def parameters(self) -> dict[str, Any]: ...


class _Offer(Protocol):
    @property
    def flow_run(self) -> _FlowRun: ...


Offer = TypeVar("Offer", bound=_Offer)


@dataclass(frozen=True)
class _Own:
    """This host as it is at this moment: its disks, and whether its engine answers."""

    is_critical: bool
    free_bytes: int
    engine_answers: bool


class Placement:
    """What one worker knows of hosts; for one task at a time."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._host = settings.host_name
        self._others: tuple[Candidate, ...] = ()
        self._drains = False
        self._repositories: frozenset[str] = frozenset()
        self._refreshed = float("-inf")
        self._told: HostRecord | None = None
        self._told_at = float("-inf")
        self._seen: dict[UUID, float] = {}
        self._own: _Own | None = None
        self._reason = ""

    async def look(self) -> str:
        """Look at this host for the offers that come next; why it takes no build now, whatever is offered, if so."""
        self._own = await anyio.to_thread.run_sync(_look, self._settings)
        return hold_reason(self._me(self._own, free_slots=1, drains=False))

    async def fitting(
        self, client: PrefectClient, offered: Sequence[Offer], *, free_slots: int
    ) -> tuple[list[Offer], float]:
        """Those of the offered runs that this host takes as far as place is concerned, in their order; and after how
        many seconds to ask again for those that were left (0: when something changes)."""
        care = care_queue(self._host)
        if free_slots < 1 or all(offer.flow_run.work_queue_name == care for offer in offered):
            return [offer for offer in offered if offer.flow_run.work_queue_name == care], 0
        own, self._own = self._own, None
        if own is None:
            own = await anyio.to_thread.run_sync(_look, self._settings)
        if any(offer.flow_run.work_queue_name == SHARED_QUEUE for offer in offered):
            await self.refresh(client)
        me = self._me(own, free_slots=free_slots, drains=self._drains)
        # A paused queue's runs are not offered at all, so that a drain holds builds asked of this host without us.
        held = hold_reason(replace(me, drains=False))
        # Nothing tells of an engine that is back.
        taken, again, reasons = [], 0.0 if own.engine_answers else ENGINE_SECONDS, [held] if held else []
        now = time.monotonic()
        seen, self._seen = self._seen, {}
        for offer in offered:
            flow_run = offer.flow_run
            if flow_run.work_queue_name == care:
                taken.append(offer)
            elif flow_run.work_queue_name != SHARED_QUEUE:
                if not held:
                    taken.append(offer)
            else:
                self._seen[flow_run.id] = since = seen.get(flow_run.id, now)
                placing = place(
                    repository_mark(repository_of(flow_run.parameters)),
                    me,
                    self._others,
                    waited_seconds=now - since,
                    patience_seconds=self._settings.cache_wait_seconds,
                )
                if placing.take:
                    taken.append(offer)
                    continue
                reasons.append(placing.reason)
                if placing.again_seconds:
                    again = min(again or placing.again_seconds, placing.again_seconds)
        self._say(reasons[0] if reasons else "")
        return taken, again

    def _me(self, own: _Own, *, free_slots: int, drains: bool) -> Candidate:
        return Candidate(
            self._host,
            drains=drains,
            is_critical=own.is_critical,
            engine_answers=own.engine_answers,
            free_slots=free_slots,
            repositories=self._repositories,
        )

    async def tell(self, client: PrefectClient, *, running: int, stopped: bool = False) -> None:
        """Tell the others of this host, if there is news; for another's sake alone, so that failure is only logged."""
        own = await anyio.to_thread.run_sync(_look, self._settings)
        self._repositories = await anyio.to_thread.run_sync(_repositories, self._settings)
        record = HostRecord(
            self._host,
            version=_version(),
            slots=self._settings.concurrency,
            running=running,
            level="critical" if own.is_critical else "normal",
            free_bytes=own.free_bytes,
            engine_answers=own.engine_answers,
            stopped=stopped,
            prune_seconds=self._settings.prune_seconds,
            repositories=self._repositories,
        )
        now = time.monotonic()
        if now - self._told_at < TELL_SECONDS and _is_no_news(self._told, record):
            return
        try:
            try:
                await client.update_variable(VariableUpdate(name=variable_name(self._host), value=record.value))
            except PrefectHTTPStatusError as error:
                if error.response.status_code != HTTPStatus.NOT_FOUND:
                    raise
                name = variable_name(self._host)
                await client.create_variable(VariableCreate(name=name, value=record.value, tags=[TAG]))
        except httpx.HTTPError as error:
            logger.warning("Can't tell the other hosts about this one: %s", error)
        else:
            self._told, self._told_at = record, now

    async def tell_if_asked(self, client: PrefectClient, *, running: int) -> None:
        """Tell at once what changed, where there is another host that wants to know."""
        if any(other.is_live for other in self._others):
            await self.tell(client, running=running)

    async def refresh(self, client: PrefectClient) -> None:
        """Ask how the other hosts are and whether this one drains, unless that was only just asked."""
        now = time.monotonic()
        if now - self._refreshed < REFRESH_SECONDS:
            return
        try:
            queues = await client.read_work_queues(work_pool_name=POOL)
            paused = {queue.name for queue in queues if queue.is_paused}
            workers = await client.read_workers_for_work_pool(POOL)
            online = {worker.name for worker in workers if worker.status == WorkerStatus.ONLINE}
            records = await read_records(client)
        except (httpx.HTTPError, ObjectNotFound) as error:
            logger.warning("Can't ask for the other hosts: %s", error)
            return
        self._refreshed = now
        self._drains = host_queue(self._host) in paused
        self._others = tuple(
            record.candidate(online=record.host in online, drains=host_queue(record.host) in paused)
            for record in records
            if record.host != self._host
        )

    def _say(self, reason: str) -> None:
        if reason and reason != self._reason:
            logger.info("Builds wait: %s", reason)
        self._reason = reason


async def read_records(client: PrefectClient) -> list[HostRecord]:
    """What all hosts have told; raises ``httpx.HTTPError``."""
    return parse_records((await client.request("POST", "/variables/filter", json=RECORDS)).json())


def _is_no_news(told: HostRecord | None, record: HostRecord) -> bool:
    # Free bytes change all the time and decide nothing.
    return told is not None and replace(record, free_bytes=told.free_bytes) == told


def _look(settings: Settings) -> _Own:
    return _Own(*_look_at_disk(settings), _engine_answers(settings))


def _engine_answers(settings: Settings) -> bool:
    """Whether a build would find the engine; one that answers with an error is for the build to report."""
    try:
        DockerEngine(settings.docker_host, timeout=ENGINE_SECONDS).close()
    except CaissonError as error:
        return not isinstance(error, EngineUnreachable)
    return True


def _look_at_disk(settings: Settings) -> tuple[bool, int]:
    """Whether one of Docker's disks is critical now, and the free bytes of the fullest.

    Where the monitor has not found them yet, the build looks for itself.
    """
    places = read_state(settings.state_dir).places
    if places is None or not places.places:
        return False, 0
    try:
        require_uncritical(settings, places.places, holders=[])
        is_critical = False
    except DiskTooFull:
        is_critical = True
    try:
        free = min(read_file_system(Path(item.path)).free_bytes for item in places.places if stops_builds(item))
    except (OSError, ValueError):
        free = 0
    return is_critical, free


def _repositories(settings: Settings) -> frozenset[str]:
    """The repositories whose builds may be in this host's build cache: those that were built here last."""
    try:
        return repository_marks(Ledger(settings.state_dir / "ledger.sqlite").builds.latest_sources())
    except CaissonError as error:
        logger.warning("Can't read which repositories were built here: %s", error)
        return frozenset()


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("caisson")
    except PackageNotFoundError:
        return ""
