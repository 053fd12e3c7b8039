"""Step: what runs left that died before their own clean-up. The worker does the same with all it sees end."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from uuid import UUID

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import FlowRun

from caisson.build_group import is_held, remove_leftover_groups
from caisson.builder import find_builders, is_builder, remove_builders, remove_references
from caisson.docker_engine import DockerEngine
from caisson.engine import ContainerID, Engine
from caisson.errors import CaissonError, EngineRefused, SettingsInvalid
from caisson.guard.listening import remove_dead_sockets
from caisson.leases import Leases
from caisson.ledger import Ledger
from caisson.plan import LABEL_FLOW_RUN, REPOSITORY_UNDER_CONSTRUCTION
from caisson.reaping import ENDED, Reaping, Word, judge_builder, judge_names, judge_step
from caisson.settings import Settings
from tasks.step import run_logger

# Listing images costs the containerd store 5 ms each, and the worker's reaper is called every few seconds.
_RARELY_SECONDS = 60.0
MOST_RUNS = 200
"""The largest answer that Prefect gives; a run that is cut off would seem to be gone."""
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@task(name="reap_leftovers", task_run_name="reap_leftovers", cache_policy=NO_CACHE, persist_result=False)
def reap_leftovers(settings: Settings) -> list[str]:
    """Reap by Prefect's word; returns the names of what is gone. A failure is told, and is none of the prune's."""
    logger = run_logger()
    reaper = Reaper(settings)
    try:
        words = ask_prefect(reaper.owners())
    except Exception as error:
        # Whatever the client raises: without an answer nobody knows which run is dead.
        logger.warning(f"Nothing is reaped, since Prefect or the engine does not answer ({type(error).__name__}).")
        return []
    try:
        removed = reaper.reap_overdue(words)
    except (CaissonError, OSError) as error:
        logger.warning(f"Not all that dead builds left could be removed: {error}")
        return []
    for name in removed:
        logger.info(f"{name} was left behind by a dead build; it is removed")
    return removed


def ask_prefect(flow_runs: Collection[str]) -> dict[str, Word]:
    """Prefect's word on the runs, as many of them as it tells at once; raises what its client raises."""
    wanted = flow_run_ids(flow_runs)
    if not wanted:
        return {}
    with get_client(sync_client=True) as client:
        found = client.read_flow_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=wanted)), limit=MOST_RUNS)
    return words_of(wanted, found)


def flow_run_ids(texts: Iterable[str]) -> list[UUID]:
    """Those of the labels' values that can be IDs of flow runs; ``MOST_RUNS`` at most: the others are for next time."""
    return sorted({UUID(text) for text in texts if _UUID.fullmatch(text)})[:MOST_RUNS]


def words_of(asked: Iterable[UUID], answer: Iterable[FlowRun], *, executed: Collection[UUID] = ()) -> dict[str, Word]:
    """Prefect's answer as words, by flow run; those that a worker executes live whatever their state says."""
    words = {str(flow_run): Word.NONE for flow_run in asked}
    for flow_run in answer:
        is_dead = flow_run.state is not None and flow_run.state.is_final()
        words[str(flow_run.id)] = Word.DEAD if is_dead else Word.LIVE
    return words | {str(flow_run): Word.LIVE for flow_run in executed}


@dataclass
class Reaper:
    """What dead runs left on this host's engine; for one thread at a time."""

    settings: Settings
    _rare_due: float = field(default=float("-inf"), init=False, repr=False)
    _others: set[ContainerID] = field(default_factory=set, init=False, repr=False)
    """Containers that have ended and are none of Caisson's: looked at once."""

    def owners(self) -> set[str]:
        """The flow runs that have a builder on the engine now, by their IDs."""
        with DockerEngine(self.settings.docker_host) as engine:
            return {item.labels.get(LABEL_FLOW_RUN, "") for item in find_builders(engine)} - {""}

    def reap(self, flow_run_id: str) -> list[str]:
        """Remove what a flow run left that is known to be dead; returns the names of the builders that it removed."""
        with DockerEngine(self.settings.docker_host) as engine:
            removed = remove_builders(engine, find_builders(engine, flow_run_id=flow_run_id))
        self._remove_rest()
        return removed

    def reap_overdue(self, words: Mapping[str, Word]) -> list[str]:
        """Remove, and wait until it is gone, what the rules of ``caisson.reaping`` say is dead; now and then also names
        of images under construction and containers of RUN steps. Groups that no process is in and sockets that nobody
        listens on go as well.

        ``words`` are Prefect's. Returns what all these were called.
        """
        now = datetime.now(UTC)
        with DockerEngine(self.settings.docker_host) as engine:
            rare: list[str] = []
            if time.monotonic() >= self._rare_due:
                self._rare_due = time.monotonic() + _RARELY_SECONDS
                rare = [*self._remove_names(engine, now), *self._remove_steps(engine, now)]
            builders = {builder.name: builder for builder in find_builders(engine)}

            def judge(held: Collection[str]) -> list[Reaping]:
                host = self.settings.host_name
                return [judge_builder(item, words, held=held, host=host, now=now) for item in builders.values()]

            removed = remove_builders(engine, [builders[name] for name in self._reaped(judge)])
        return [*removed, *rare, *self._remove_rest()]

    def _remove_names(self, engine: Engine, now: datetime) -> list[str]:
        # In this order; judge_names says why.
        images = engine.list_images(repository=REPOSITORY_UNDER_CONSTRUCTION)
        builders = find_builders(engine)
        reaped = self._reaped(lambda held: judge_names(images, builders, held=held, now=now))
        return remove_references(engine, reaped)

    def _remove_steps(self, engine: Engine, now: datetime) -> list[str]:
        ended = [item for item in engine.list_containers({}) if item.state in ENDED and not is_builder(item)]
        self._others &= {item.id for item in ended}
        removed = []
        for item in ended:
            if item.id in self._others or (found := engine.inspect_container(item.id)) is None:
                continue
            verdict = judge_step(found, is_held=is_held, now=now)
            if verdict is None:
                self._others.add(item.id)
            elif verdict.reaped:
                with contextlib.suppress(EngineRefused):
                    engine.remove_container(item.id)
                    removed.append(item.name)
        return removed

    def _reaped(self, judge: Callable[[Collection[str]], Iterable[Reaping]]) -> list[str]:
        """The names of what goes. Who holds leases is asked last, and only where something would go without them."""
        if not any(verdict.reaped for verdict in judge(())):
            return []
        return [verdict.name for verdict in judge(self._held()) if verdict.reaped]

    def _held(self) -> set[str]:
        """The builders whose building process lives on this host, by its lease. Raises where that can't be told."""
        ledger = Ledger(self.settings.state_dir / "ledger.sqlite")
        leases = Leases(self.settings.state_dir / "leases", ledger.leases)
        return {lease.holder for lease in leases.held().leases}

    def _remove_rest(self) -> list[str]:
        with contextlib.suppress(OSError, SettingsInvalid):
            # Nobody listens on them, so the process whose guard it was is dead, by the kernel's word.
            remove_dead_sockets(self.settings.guard_dir)
        return remove_leftover_groups()
