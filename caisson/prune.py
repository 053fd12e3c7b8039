"""Apply of a prune's plan: plan ∩ still eligible, one removal after the other, never by force.

- Just before each removal, with builds held off, it is asked anew whether the item may go (``caisson.prune_view``).
- An image loses all its names but one by name, each only while it points to the planned image, and goes by its ID. What
  the engine then refuses gets its names back.
- What is not there any more, and what the engine would remove by force only, is passed by. A read that fails ends the
  prune: nothing goes on half a picture.
- What goes only under pressure goes only until ``statvfs`` tells that there is room. Where all of a plan is done and
  there is none yet, it goes on with a new one: an engine tells no inodes, and does not tell which images' layers
  BuildKit's cache holds as well. What those left on the disk goes from the cache, before any more images.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace

from caisson.disk import DiskUsage
from caisson.disk_limits import DiskLimits, Zone
from caisson.engine import Engine
from caisson.errors import CaissonError, EngineRefused, EngineUnreachable, PruneBusy, RemovalRefused
from caisson.image_removal import give_back, remove_image, unname
from caisson.prune_report import Ending, ItemResult, PruneReport, PruneRound
from caisson.prune_view import HostView, PruneHost
from caisson.retention.plan import FIRST, plan_prune
from caisson.retention.prune_plan import (
    ONLY_UNDER_PRESSURE,
    Attempt,
    FreeTarget,
    PlanItem,
    PruneBuildCache,
    PrunePlan,
    RemoveContainer,
    RemoveImage,
    RemoveTag,
    RemoveVolume,
    has_room,
)
from caisson.retention.recheck import Verdict

CACHE_SECONDS = 1800.0
MOST_ROUNDS = 5
"""Plans that one prune makes at most: each asks the engine for its disk once more."""
_LONGEST_PAUSE_SECONDS = 2.0
_ENGINE_POLLS, _ENGINE_POLL_SECONDS = 15, 2.0
_DISK_IS_FULL = "no space left on device"

OnResult = Callable[[ItemResult], None]
Replan = Callable[[Attempt], PrunePlan]


def make_plan(
    view: HostView, limits: DiskLimits, *, force_pressure: bool = False, attempt: Attempt = FIRST
) -> PrunePlan:
    """Look at the host and plan. Under pressure from the high threshold on, or where that is forced.

    Raises ``EngineUnreachable``, ``EngineRefused``, ``LedgerUnusable``, and ``OSError`` of the file system.
    """
    view.read_disk()
    snapshot = view.look(view.host.leases.held())
    pressed = force_pressure or limits.zone(snapshot.usage) >= Zone.HIGH
    if pressed and view.go_without_account():
        snapshot = view.look(view.host.leases.held())
    target = FreeTarget(*limits.wanted(snapshot.usage, Zone.BETWEEN)) if pressed else None
    plan = plan_prune(snapshot, view.policy, snapshot.taken, pressure=target, attempt=attempt)
    return replace(plan, engine=view.host.engine_id)


def adopt_plan(plan: PrunePlan, host: PruneHost, limits: DiskLimits) -> PrunePlan:
    """A plan that was kept as a file, with the target that this host's disk has now instead of what the file says.

    Raises ``ValueError`` for one of another engine, and for one that evicts and says of no pressure; ``OSError`` of the
    file system.
    """
    if plan.engine != host.engine_id:
        raise ValueError(f"engine: it was made for the engine {plan.engine!r}, and this one is {host.engine_id!r}")
    if plan.target is not None:
        return replace(plan, target=FreeTarget(*limits.wanted(host.read_usage(), Zone.BETWEEN)))
    if (evicted := next((item for item in plan.items if item.phase in ONLY_UNDER_PRESSURE), None)) is not None:
        raise ValueError(f"target: it has none, and what is {evicted.phase} goes only until one is reached")
    return plan


def dry_run(plan: PrunePlan, *, trigger: str) -> PruneReport:
    """The report of a plan that is not applied. Pure."""
    results = tuple(ItemResult(item, "not-reached", item.rule, "a dry run") for item in plan.items)
    moment = plan.planned
    return PruneReport(uuid.uuid4().hex, plan, results, moment, moment, trigger, True, 0, 0, plan.usage, "planned")


def apply_plan(
    view: HostView,
    plan: PrunePlan,
    *,
    trigger: str,
    on_result: OnResult = lambda _: None,
    should_stop: Callable[[], bool] = lambda: False,
    replan: Replan | None = None,
) -> PruneReport:
    """Remove what may still go; the ledger has it before the first removal. ``trigger`` says what started it.

    ``replan`` makes each further plan, under pressure: where all of the last is done, something went, and the target is
    not reached; ``MOST_ROUNDS`` plans at most. Without it the given plan is all.

    Raises ``PruneBusy`` while another prune of the host runs, and ``LedgerUnusable`` before the first removal. Failures
    after that are the report's ``problem``; whatever else ends it is recorded in the ledger, and raised.
    """
    with view.host.leases.only_prune() as mine:
        if not mine:
            raise PruneBusy("Another prune of this host is under way.", hint="Wait for its end, then try again.")
        if not view.has_disk:
            view.read_disk()
        if plan.target is not None:
            view.go_without_account()
        return _Apply(view, plan, on_result, should_stop, replan).run(trigger)


class _Apply:
    def __init__(
        self,
        view: HostView,
        plan: PrunePlan,
        on_result: OnResult,
        should_stop: Callable[[], bool],
        replan: Replan | None,
    ) -> None:
        self._host, self._view, self._plan = view.host, view, plan
        self._on_result, self._should_stop, self._replan = on_result, should_stop, replan
        self._plans, self._attempt = [plan], FIRST
        self._results: list[ItemResult] = []
        self._problem, self._silent = "it was interrupted", ""

    def run(self, trigger: str) -> PruneReport:
        host, prune_id, started = self._host, uuid.uuid4().hex, self._host.clock()
        self._keep_reserve()
        before = after = host.read_usage()
        summary = {"items": len(self._plan.items), "reclaimable_bytes": self._plan.reclaimable_bytes}
        host.ledger.prunes.begin(prune_id, started=started, trigger=trigger, plan=summary)
        try:
            self._problem = self._all_rounds()
        finally:
            self._keep_reserve()
            with suppress(OSError):
                after = host.read_usage()
            ending = self._ending(after)
            freed_bytes, freed_inodes = after.free_bytes - before.free_bytes, after.free_inodes - before.free_inodes
            ended = host.clock()
            host.ledger.prunes.end(
                prune_id,
                ended=ended,
                outcome=f"{ending}: {self._problem}" if self._problem else ending,
                freed_bytes=freed_bytes,
                freed_inodes=freed_inodes,
            )
        left = self._plan.items[len(self._of_this_round) :]
        number = len(self._plans)
        not_reached = (
            ItemResult(item, "not-reached", item.rule, "the prune ended before its turn", round=number) for item in left
        )
        return PruneReport(
            id=prune_id,
            plan=self._plans[0],
            results=(*self._results, *not_reached),
            started=started,
            ended=ended,
            trigger=trigger,
            dry_run=False,
            freed_bytes=freed_bytes,
            freed_inodes=freed_inodes,
            usage_after=after,
            ending=ending,
            problem=self._problem,
            more_rounds=tuple(map(PruneRound.of, self._plans[1:])),
        )

    @property
    def _of_this_round(self) -> list[ItemResult]:
        return [result for result in self._results if result.round == len(self._plans)]

    def _all_rounds(self) -> str:
        """Why it ended early, in a sentence; empty where it came to its end."""
        while True:
            try:
                before = self._host.read_usage()
                if problem := self._remove_all():
                    return problem
                plan = self._next_plan(before)
            except (CaissonError, OSError) as error:
                return str(error)
            if plan is None or not plan.items:
                return " ".join(plan.problems) if plan else ""
            self._plan = plan
            self._plans.append(plan)

    def _next_plan(self, before: DiskUsage) -> PrunePlan | None:
        if self._replan is None or self._plan.target is None or len(self._plans) >= MOST_ROUNDS:
            return None
        # Where nothing went, a new plan would be of the same again.
        removed = [result.item for result in self._of_this_round if result.outcome == "removed"]
        after = self._host.read_usage()
        if not removed or has_room(after, self._plan.target):
            return None
        predicted, freed = sum(item.marginal_bytes for item in removed), after.free_bytes - before.free_bytes
        self._attempt = self._attempt.next(predicted=predicted, freed=freed)
        return self._replan(self._attempt)

    def _remove_all(self) -> str:
        """Why it ended early, in a sentence; empty where it came to its end."""
        for batch in self._batches():
            if self._should_stop():
                return "it was asked to stop"
            began = time.monotonic()
            try:
                results = self._remove(batch)
            except (CaissonError, OSError) as error:
                return str(error)
            for found in results:
                result = replace(found, round=len(self._plans))
                self._results.append(result)
                self._on_result(result)
            if self._silent:
                return self._silent
            self._pause(time.monotonic() - began)
        return ""

    def _batches(self) -> Iterator[list[PlanItem]]:
        """Items that are removed side by side: as many images as there are connections, none the parent of another.

        Of what goes only under pressure, no more than it takes to the target by estimate.
        """
        batch: list[PlanItem] = []
        for item in self._plan.items:
            if batch and not self._goes_with(batch, item):
                yield batch
                batch = []
            batch.append(item)
        if batch:
            yield batch

    def _goes_with(self, batch: Sequence[PlanItem], item: PlanItem) -> bool:
        if len(batch) >= len(self._host.engines) or item.phase != batch[0].phase:
            return False
        if not isinstance(item, RemoveImage) or not isinstance(batch[0], RemoveImage):
            return False
        if item.phase in ONLY_UNDER_PRESSURE and self._is_enough(batch):
            return False
        children = (self._view.image(before.image.id) for before in batch if isinstance(before, RemoveImage))
        # Of what is not in the picture, or before the first, nobody knows the parent.
        return all(child is not None and child.parent != item.image.id for child in children)

    def _is_enough(self, batch: Sequence[PlanItem]) -> bool:
        target = self._plan.target
        usage = self._host.read_usage()
        estimate = replace(usage, free_bytes=usage.free_bytes + sum(item.marginal_bytes for item in batch))
        return target is None or has_room(estimate, target)

    def _remove(self, batch: Sequence[PlanItem]) -> list[ItemResult]:
        target = self._plan.target
        if batch[0].phase in ONLY_UNDER_PRESSURE:
            if target is None:
                return [ItemResult(item, "kept", "no-target", "nothing says how much is to be free") for item in batch]
            if has_room(self._host.read_usage(), target):
                return [ItemResult(item, "not-needed", item.rule, "there is room by now") for item in batch]
        if isinstance(batch[0], PruneBuildCache):
            self._count_cache_anew(batch[0])
            with self._host.leases.exclude() as held:
                self._view.refresh(held)
                verdict = self._view.verdict(batch[0])
            # BuildKit keeps what it uses, so no build has to wait.
            return [self._removed(self._host.engine, batch[0]) if verdict.allowed else _left(batch[0], verdict)]
        with self._host.leases.exclude() as held:
            self._view.refresh(held)
            allowed: list[PlanItem] = []
            denied: list[ItemResult] = []
            for item in batch:
                verdict = self._view.verdict(item)
                if verdict.allowed:
                    allowed.append(item)
                else:
                    denied.append(_left(item, verdict))
            return [*denied, *self._act(allowed)]

    def _count_cache_anew(self, item: PruneBuildCache) -> None:
        """Where cache that images share makes up for the reserve, see how much of it they still do."""
        if item.keep_bytes < self._view.policy.build_cache.reserved_space:
            self._view.read_disk()
            self._view.go_without_account()
            self._view.distrust()

    def _act(self, items: Sequence[PlanItem]) -> list[ItemResult]:
        for item in items:
            if isinstance(item, RemoveImage | RemoveTag):
                self._view.touching(item.image.id)
        if len(items) <= 1:
            return [self._removed(self._host.engine, item) for item in items]
        with ThreadPoolExecutor(len(items)) as pool:
            return list(pool.map(self._removed, self._host.engines, items))

    def _removed(self, engine: Engine, item: PlanItem) -> ItemResult:
        began = time.monotonic()
        taken: list[str] = []
        try:
            was_there = self._remove_one(engine, item, taken)
        except RemovalRefused as error:
            self._view.distrust()
            return ItemResult(item, "kept", "engine-refused", error.message, time.monotonic() - began)
        except EngineRefused as error:
            self._view.distrust()
            if self._gives_up_reserve(error):
                return self._removed(engine, item)
            return ItemResult(item, "failed", "engine-refused", error.message, time.monotonic() - began)
        except EngineUnreachable as error:
            return self._after_silence(engine, item, error, taken, time.monotonic() - began)
        if isinstance(item, RemoveImage):
            self._view.removed(item.image.id)
        if not was_there:
            return ItemResult(item, "gone", item.rule, "somebody else removed it", time.monotonic() - began)
        return ItemResult(item, "removed", item.rule, item.reason, time.monotonic() - began)

    def _keep_reserve(self) -> None:
        if self._host.reserve is not None:
            self._host.reserve.keep()

    def _gives_up_reserve(self, error: EngineRefused) -> bool:
        """Whether there was one, and the engine may be asked once more."""
        if _DISK_IS_FULL not in error.message or self._host.reserve is None:
            return False
        return self._host.reserve.give_up()

    def _remove_one(self, engine: Engine, item: PlanItem, taken: list[str]) -> bool:
        match item:
            case RemoveImage():
                found = self._view.image(item.image.id)
                return found is not None and remove_image(engine, found, taken)
            case RemoveTag():
                return unname(engine, item.reference, item.image.id)
            case RemoveContainer():
                return engine.remove_ended_container(item.id)
            case RemoveVolume():
                return engine.remove_volume(item.name)
            case PruneBuildCache():
                freed = engine.prune_build_cache(
                    keep_bytes=item.keep_bytes,
                    reserved_bytes=item.reserved_bytes,
                    min_free_bytes=item.min_free_bytes,
                    timeout=CACHE_SECONDS,
                )
                return freed > 0

    def _after_silence(
        self, engine: Engine, item: PlanItem, error: EngineUnreachable, taken: Sequence[str], seconds: float
    ) -> ItemResult:
        """See what came of what the engine was asked, if it is there at all; tags that are ``taken`` are given back."""
        self._view.distrust()
        reason = error.message
        try:
            self._await_engine(engine, _ENGINE_POLLS if taken else 1)
            if isinstance(item, RemoveImage):
                if engine.inspect_image(item.image.id) is None:
                    return ItemResult(item, "removed", item.rule, item.reason, seconds)
                # One that only takes long goes on with the image: a name given back now would point to nothing then.
                if not error.details.get("timed_out"):
                    give_back(engine, item.image.id, taken)
                    taken = ()
        except (EngineUnreachable, EngineRefused) as silent:
            self._silent = silent.message
        if taken:
            reason = f"{reason} The image has lost its {'tag' if len(taken) == 1 else 'tags'} {', '.join(taken)}."
        return ItemResult(item, "failed", "engine-silent", reason, seconds)

    def _await_engine(self, engine: Engine, polls: int) -> None:
        """Return once it answers; raises ``EngineUnreachable`` when it does not."""
        for _ in range(polls - 1):
            with suppress(EngineUnreachable):
                engine.info()
                return
            self._host.sleep(_ENGINE_POLL_SECONDS)
        engine.info()

    def _pause(self, seconds: float) -> None:
        """As long as the removal took, where a build waits for the engine or may come to."""
        if self._view.has_builds:
            self._host.sleep(min(seconds, _LONGEST_PAUSE_SECONDS))

    def _ending(self, usage: DiskUsage) -> Ending:
        if self._problem:
            return "stopped"
        if self._plan.target is None:
            return "done"
        return "target-reached" if has_room(usage, self._plan.target) else "short"


def _left(item: PlanItem, verdict: Verdict) -> ItemResult:
    return ItemResult(item, "gone" if verdict.decision == "gone" else "kept", verdict.rule, verdict.reason)
