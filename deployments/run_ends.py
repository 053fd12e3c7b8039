"""How the runs of a host end: what one left on the engine is reaped, and its state is made true.

Of those whose process has just ended, of those that say they are going on while nobody executes them, and of those of a
host that is gone.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from typing import Protocol
from uuid import UUID

import anyio
import anyio.to_thread
import httpx
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import FlowRun, State
from prefect.exceptions import ObjectNotFound

from caisson.reaping import Word
from deployments.fellows import Fellows
from deployments.leftovers import find_unsupervised, kill_leftover
from deployments.ownership import owner_of
from deployments.settle import Why, needs_reaping, true_state
from deployments.state import StateDir, forget_dead_runs
from tasks.reap import flow_run_ids, words_of

logger = logging.getLogger("caisson.worker")

REAP_SECONDS = 15.0
SETTLE_ATTEMPTS = 20


class Reaper(Protocol):
    """The worker's hand on the engine. Each may raise; names are those of what was removed."""

    def reap(self, flow_run_id: str) -> list[str]:
        """Remove what a dead run left."""
        ...

    def reap_overdue(self, words: Mapping[str, Word]) -> list[str]:
        """Remove what should have ended by itself, by Prefect's word on its run."""
        ...

    def owners(self) -> set[str]:
        """IDs of the flow runs that have something on the engine now."""
        ...


class RunEnds:
    """The ends of one host's runs.

    ``supervised`` are the runs that its worker has under way; ``executed`` those of them that have a process; ``end``
    begins to end one of these.
    """

    def __init__(
        self,
        client: PrefectClient,
        host: str,
        *,
        state: StateDir,
        reaper: Reaper,
        fellows: Fellows,
        supervised: Callable[[], Collection[UUID]],
        executed: Callable[[], Collection[UUID]],
        end: Callable[[UUID], None],
    ) -> None:
        self._client, self._host = client, host
        self._state, self._reaper, self._fellows = state, reaper, fellows
        self._supervised, self._executed, self._end = supervised, executed, end
        self._settling = anyio.Lock()

    async def settle(self, flow_run_id: UUID, why: Why, exit_code: int | None, cancelled: str | None) -> None:
        """Make the state of a run true whose process is gone; gives up in the end, the next safety poll goes on."""
        for attempt in range(SETTLE_ATTEMPTS):
            try:
                await self._settle_once(flow_run_id, why, exit_code, cancelled)
            except ObjectNotFound:
                await self._reap_run(flow_run_id)  # deleted in the meantime
            except httpx.HTTPError as error:
                logger.warning("Can't settle run %s yet: %s", flow_run_id, error)
                await anyio.sleep(min(0.25 * (attempt + 1), 3))
                continue
            return

    async def _settle_once(self, flow_run_id: UUID, why: Why, exit_code: int | None, cancelled: str | None) -> None:
        state = (await self._client.read_flow_run(flow_run_id)).state
        truth = true_state(state, why=why, exit_code=exit_code, cancelled=cancelled)
        if needs_reaping(truth or state):
            await self._reap_run(flow_run_id)  # first: who waits for the final state relies on it
        if truth is not None:
            await self.set_state(flow_run_id, truth, force=True)

    async def set_state(self, flow_run_id: UUID, state: State, *, force: bool = False) -> None:
        logger.info("Run %s: %s (%s)", flow_run_id, state.name, state.message)
        await self._client.set_flow_run_state(flow_run_id, state, force=force)

    async def _reap_run(self, flow_run_id: UUID) -> None:
        with anyio.move_on_after(REAP_SECONDS) as scope:
            try:
                removed = await anyio.to_thread.run_sync(self._reaper.reap, str(flow_run_id), abandon_on_cancel=True)
            except Exception as error:
                # The builder has a deadline of its own, so this is not the last chance.
                logger.warning("Can't remove what run %s left on the engine: %s", flow_run_id, error)
            else:
                for name in removed:
                    logger.info("Run %s had left %s; it is removed", flow_run_id, name)
        if scope.cancelled_caught:
            logger.warning("The engine takes too long to remove what run %s left", flow_run_id)

    async def settle_unsupervised(self) -> None:
        """Settle this host's runs whose worker died before them, and any whose end could not be reported."""
        # One at a time: a second list, made before the first was settled, would tell of runs that have begun anew.
        async with self._settling:
            try:
                for flow_run in await find_unsupervised(self._client, self._host, self._supervised):
                    if flow_run.id in self._supervised():
                        continue
                    killed = await anyio.to_thread.run_sync(kill_leftover, self._state, flow_run)
                    logger.info("Run %s had no worker%s", flow_run.id, "; its process was ended" if killed else "")
                    await self.settle(flow_run.id, Why.LOST, None, None)
            except httpx.HTTPError as error:
                logger.warning("Can't look for runs without a worker: %s", error)

    async def _settle_for_fellows(self) -> None:
        """Settle runs of hosts that are gone; and end runs of this one that another has settled meanwhile."""
        try:
            for flow_run in await self._fellows.abandoned(self._client):
                logger.info("Run %s was on host %s, which is gone", flow_run.id, owner_of(flow_run))
                await self.settle(flow_run.id, Why.HOST_GONE, None, None)
            for flow_run_id in await self._fellows.ended_elsewhere(self._client, self._executed()):
                logger.warning("Run %s was settled while this host seemed to be gone: it is ended", flow_run_id)
                self._end(flow_run_id)
        except (httpx.HTTPError, ObjectNotFound) as error:
            logger.warning("Can't look for hosts that are gone: %s", error)

    async def reconcile(self) -> None:
        """What should not be, made true: runs that nobody executes, and builders that no run has any more."""
        await self.settle_unsupervised()
        forget_dead_runs(self._state)
        await self._settle_for_fellows()
        try:
            await self._reap_strays()
        except Exception as error:
            logger.warning("Can't look for what runs left on the engine: %s", error)

    async def _reap_strays(self) -> None:
        """Reap what came after its run had been reaped, or could not be removed then.

        Such is a builder that the engine was asked for by a process that died meanwhile, and one whose engine was down.
        A run that this API does not know is another's.
        """
        owners = set(flow_run_ids(await anyio.to_thread.run_sync(self._reaper.owners)))
        # Asked for after the owners: a run is supervised before it has a builder.
        supervised = set(self._supervised())
        found: list[FlowRun] = []
        if strays := owners - supervised:
            found = await self._client.read_flow_runs(
                flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=list(strays)))
            )
        words = words_of(owners, found, executed=supervised)
        for name in await anyio.to_thread.run_sync(self._reaper.reap_overdue, words):
            logger.info("%s was left behind; it is removed", name)
        for flow_run in found:
            if words[str(flow_run.id)] is Word.DEAD:
                await self._reap_run(flow_run.id)
