"""The worker of one host: takes the runs of its queues in the work pool, one process each, and never loses one.

What it adds to Prefect's process worker, and why:
- It is woken by events (a poll alone costs seconds) and polls only as a safety net.
- It supervises the processes itself: forked from a warm server, and cancelled through Prefect's control channel, so
  that the engine in the run's own process runs the hooks and reports ``Cancelled``.
- Whatever ended a process, what it left on the engine is reaped and the run's state is made true.
- At start, and as often as it polls, runs that say they are going on while nobody executes them are settled: this
  host's own (deployments.ownership says which), and those of a host that is gone.
- Builds that any host may take it takes by the rules of caisson.placing.
- When it is told to stop it polls no more, lets runs finish for a while, and cancels the rest properly.
"""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Callable, Collection, Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import anyio
import anyio.abc
import anyio.to_thread
import httpx
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.responses import WorkerFlowRunResponse
from prefect.events.clients import get_events_subscriber
from prefect.events.filters import EventAnyResourceFilter, EventFilter, EventNameFilter
from prefect.events.schemas.events import Event
from prefect.exceptions import Abort, ObjectNotFound
from prefect.runner._control_channel import ControlChannel, ControlSignalStatus
from prefect.states import Cancelling, Pending
from prefect.utilities.engine import propose_state
from prefect.utilities.processutils import command_from_string
from prefect.workers.base import BaseJobConfiguration, BaseWorker
from prefect.workers.process import ProcessVariables, ProcessWorkerResult

from caisson.settings import Settings
from deployments.backoff import Backoff
from deployments.build_record import log_end
from deployments.fellows import Fellows, cancelling
from deployments.fork_client import ENGINE, ForkServerClient, ForkServerDown, RunProcess, start_process
from deployments.job import JobConfiguration, shared_environment
from deployments.names import POOL, SHARED_QUEUE, care_queue, host_queue
from deployments.offers import Offers
from deployments.ownership import taken_message
from deployments.placement import Placement
from deployments.processes import ProcessIdentity
from deployments.run_ends import Reaper, RunEnds
from deployments.run_outputs import RunOutputs
from deployments.server import without_build_secrets
from deployments.settle import CANCELLED, Why
from deployments.slots import Slots
from deployments.state import StateDir, forget_run, record_run

logger = logging.getLogger("caisson.worker")

SCHEDULED = "prefect.flow-run.Scheduled"
CANCELLING = "prefect.flow-run.Cancelling"
# A cancelled build is gone within ten seconds: what its own clean-up takes, or else what killing and reaping it takes;
# and before that the time until a cancel is noticed whose event was lost.
CANCEL_GRACE_SECONDS = 6.0
CANCEL_LOOK_SECONDS = 2.0
ABANDONED_GRACE_SECONDS = 8.0
ANNOUNCE_SECONDS = 3.0
FORK_SERVER_SECONDS = 10.0
RECONCILE_SECONDS = 10.0
POLL_GAP_SECONDS = 0.2
FULL_POLL_GAP_SECONDS = 2.0
TICK_SECONDS = 0.05


@dataclass
class Stop:
    """How a worker is told to stop: ``request`` once to drain, twice to drain no longer.

    ``abandon`` says that the launcher was killed: no server is there, or for long, that states could be told.
    """

    requested: anyio.Event = field(default_factory=anyio.Event)
    hurry: anyio.Event = field(default_factory=anyio.Event)
    abandoned: bool = False

    def request(self) -> None:
        (self.hurry if self.requested.is_set() else self.requested).set()

    def abandon(self) -> None:
        self.abandoned = True
        self.hurry.set()
        self.requested.set()


class CaissonWorker(BaseWorker[JobConfiguration, ProcessVariables, ProcessWorkerResult]):
    """A process worker for the queues of one host and the shared one. ``serve`` runs it until it is told to stop."""

    type = "process"
    job_configuration = JobConfiguration
    job_configuration_variables = ProcessVariables

    def __init__(self, settings: Settings, *, reaper: Reaper) -> None:
        self._care_queue = care_queue(settings.host_name)
        self._slots = Slots(
            settings.concurrency, care_queue=self._care_queue, per_repository=settings.repository_concurrency
        )
        super().__init__(
            work_pool_name=POOL,
            work_queues=[host_queue(settings.host_name), self._care_queue, SHARED_QUEUE],
            name=settings.host_name,
            limit=self._slots.most,
            heartbeat_interval_seconds=settings.heartbeat_seconds,
        )
        self._offers = Offers((host_queue(settings.host_name), SHARED_QUEUE), self._care_queue)
        self._placement = Placement(settings)
        self._settings = settings
        self._state = StateDir(settings.state_dir).create()
        self._outputs = RunOutputs(self._state, settings.log_format)
        self._outputs.prune()
        self._reaper = reaper
        self._control = ControlChannel()
        self._fork_server = ForkServerClient(without_build_secrets({**os.environ, **shared_environment()}))
        self._wake = anyio.Event()
        self._wakes_at = float("inf")
        self._supervised: set[UUID] = set()
        self._processes: dict[UUID, RunProcess] = {}
        self._cancelled: dict[UUID, str] = {}
        self._cancel_at_start = ""

    @classmethod
    def __dispatch_key__(cls) -> str:
        # Not the pool's type: Prefect's own process worker keeps that place in its registry.
        return "caisson"

    # --- the life of the worker

    async def serve(self, stop: Stop, *, on_ready: Callable[[], None] = lambda: None) -> None:
        """Take and execute runs until ``stop`` is requested; then drain, and cancel what is left."""
        async with AsyncExitStack() as stack:
            if self._settings.fork_server:
                await stack.enter_async_context(self._fork_server.running())
            await stack.enter_async_context(self._control)
            # Last in, first out: leaving the worker waits for its runs, which need the two above.
            await stack.enter_async_context(self)
            self._ends = RunEnds(
                self.client,
                self.name,
                state=self._state,
                reaper=self._reaper,
                fellows=Fellows(
                    self.name,
                    heartbeat_seconds=self._settings.heartbeat_seconds,
                    poll_seconds=self._settings.poll_seconds,
                ),
                supervised=self._supervised_now,
                executed=lambda: list(self._processes),
                end=self._end_soon,
            )
            await self._ends.reconcile()
            await self._tell_others()
            if self._settings.fork_server:
                # Imported at the same time as all the above: mostly it is there, and the first run is as quick as any.
                await self._fork_server.wait_ready(timeout_seconds=FORK_SERVER_SECONDS)
            async with anyio.create_task_group() as services:
                services.start_soon(self._poll_for_ever)
                services.start_soon(self._listen_for_ever)
                services.start_soon(self._synchronize_for_ever)
                services.start_soon(self._reconcile_for_ever)
                services.start_soon(self._look_for_cancels_for_ever)
                logger.info("Worker %s takes runs of %s", self.name, self._work_pool_name)
                on_ready()
                await stop.requested.wait()
                services.cancel_scope.cancel()
            await self._drain(stop)
            if not stop.abandoned:
                with anyio.move_on_after(ANNOUNCE_SECONDS):
                    await self._placement.tell(self.client, running=0, stopped=True)

    async def _poll_for_ever(self) -> None:
        while True:
            woken = self._wake
            polled = time.monotonic()
            try:
                await self.get_and_submit_flow_runs()
            except Exception as error:
                logger.warning("Can't ask for runs: %s", error)
            await self._placement.tell_if_asked(self.client, running=self._builds_now)
            with anyio.move_on_after(self._settings.poll_seconds):
                await woken.wait()
            # Each answer holds all that waits, and each run that comes in wakes every host: a burst must not become a
            # storm of polls, least of all by hosts that have no room.
            while time.monotonic() - polled < (POLL_GAP_SECONDS if self._free_slots else FULL_POLL_GAP_SECONDS):
                await anyio.sleep(TICK_SECONDS)
            self._wake = anyio.Event()

    async def _reconcile_for_ever(self) -> None:
        # Not only when nothing happens for long: on many hosts something always does.
        while True:
            await anyio.sleep(min(self._settings.poll_seconds, RECONCILE_SECONDS))
            await self._ends.reconcile()

    async def _look_for_cancels_for_ever(self) -> None:
        while True:
            await anyio.sleep(CANCEL_LOOK_SECONDS)
            try:
                if executed := self._supervised_now():
                    for flow_run_id in await cancelling(self.client, executed):
                        self._start_soon(self._cancel, flow_run_id, CANCELLED)
            except Exception as error:
                logger.warning("Can't look for runs that are cancelled: %s", error)

    async def _tell_others(self) -> None:
        await self._placement.refresh(self.client)
        await self._placement.tell(self.client, running=self._builds_now)

    async def _listen_for_ever(self) -> None:
        backoff = Backoff(first=0.1, most=5, healthy_seconds=10)
        while True:
            begun = time.monotonic()
            try:
                await self._listen()
            except Exception as error:
                logger.warning("The event stream was lost: %s", error)
            await anyio.sleep(backoff.after(ran_seconds=time.monotonic() - begun))

    async def _listen(self) -> None:
        wanted = EventFilter(
            event=EventNameFilter(name=[SCHEDULED, CANCELLING]),
            any_resource=EventAnyResourceFilter(id=[f"prefect.work-pool.{self.work_pool.id}"]),
        )
        async with get_events_subscriber(filter=wanted, reconnection_attempts=0) as events:
            self._wake.set()  # for what came while nobody listened
            async for event in events:
                self._on_event(event)

    def _on_event(self, event: Event) -> None:
        if event.event == CANCELLING:
            self._start_soon(self._on_cancelling, UUID(event.resource.id.removeprefix("prefect.flow-run.")))
        self._wake.set()

    async def _on_cancelling(self, flow_run_id: UUID) -> None:
        if flow_run_id in self._supervised_now():
            await self._cancel(flow_run_id, CANCELLED)
        else:
            await self._ends.settle_unsupervised()

    def _start_soon(self, function: Callable[..., Coroutine[Any, Any, None]], *arguments: object) -> None:
        async def guarded() -> None:
            try:
                await function(*arguments)
            except Exception as error:
                # What leaves this task ends every run of the host.
                logger.warning("%s failed: %s", function.__name__, error)

        assert self._runs_task_group is not None
        self._runs_task_group.start_soon(guarded)

    async def _synchronize_for_ever(self) -> None:
        while True:
            await anyio.sleep(self.heartbeat_interval_seconds)
            try:
                await self._sync_and_initialize()
                await self._tell_others()
            except Exception as error:
                logger.warning("Can't report to the Prefect server: %s", error)

    async def _propose_pending_state(self, flow_run: FlowRun) -> bool:
        # Prefect lets one worker alone do this, and the state says which: see deployments.ownership.
        try:
            state = await propose_state(self.client, Pending(message=taken_message(self.name)), flow_run_id=flow_run.id)
        except (Abort, ObjectNotFound) as refusal:
            logger.info("Run %s is not for this worker: %s", flow_run.id, refusal)
            return False
        except httpx.HTTPError as error:
            logger.warning("Can't take run %s: %s", flow_run.id, error)
            return False
        return state.is_pending()

    async def _get_scheduled_flow_runs(self) -> list[WorkerFlowRunResponse]:
        has_room = self._free_slots > 0
        held = await self._placement.look() if has_room else ""
        if has_room and not held:
            return await self._offers.runs(self.client)
        # One build says why they wait. And Prefect takes a queue that nobody reads for one that nobody serves.
        build = await self._offers.first_build(self.client)
        return [*await self._offers.care(self.client), *(build if held else [])]

    async def _submit_scheduled_flow_runs(self, flow_run_response: list[WorkerFlowRunResponse]) -> list[FlowRun]:
        here, again = await self._placement.fitting(self.client, flow_run_response, free_slots=self._free_slots)
        if again:
            self._wake_in(again)
        return await super()._submit_scheduled_flow_runs(self._slots.choose(here, self._supervised_now()))

    async def _submit_run(self, flow_run: FlowRun) -> None:
        try:
            await super()._submit_run(flow_run)
        except Exception as error:
            # It is offered again, or settled. What leaves this task ends every other run of the host.
            logger.warning("Can't take run %s now: %s", flow_run.id, error)
            self._release_limit_slot(flow_run.id)
            self._submitting_flow_run_ids.discard(flow_run.id)

    def _wake_in(self, seconds: float) -> None:
        """Poll again then; one that is due before does as well."""
        at = time.monotonic() + seconds
        if at < self._wakes_at:
            self._wakes_at = at
            self._start_soon(self._wake_at, at)

    async def _wake_at(self, at: float) -> None:
        await anyio.sleep(max(0.0, at - time.monotonic()))
        if self._wakes_at == at:
            self._wakes_at = float("inf")
        self._wake.set()

    @property
    def _free_slots(self) -> int:
        return self._slots.free(self._supervised_now())

    @property
    def _builds_now(self) -> int:
        return self._settings.concurrency - self._free_slots

    def _emit_flow_run_submitted_event(self, configuration: BaseJobConfiguration) -> Event | None:
        # Two events of the six that a run leaves, each a dozen rows, and the log says the same.
        flow_run = configuration._related_objects.get("flow-run")
        is_care = flow_run is not None and flow_run.work_queue_name == self._care_queue
        return None if is_care else super()._emit_flow_run_submitted_event(configuration)

    # --- one run

    async def run(
        self,
        flow_run: FlowRun,
        configuration: JobConfiguration,
        task_status: anyio.abc.TaskStatus[int] | None = None,
    ) -> ProcessWorkerResult:
        """Execute one run in a process of its own, and settle it when that has ended."""
        self._supervised.add(flow_run.id)
        try:
            exit_code, pid = await self._execute(flow_run, configuration, task_status or anyio.TASK_STATUS_IGNORED)
            await self._ends.settle(flow_run.id, Why.ENDED, exit_code, self._cancelled.get(flow_run.id))
        finally:
            self._supervised.discard(flow_run.id)
            self._control.unregister(flow_run.id)
            self._cancelled.pop(flow_run.id, None)
            self._wake.set()  # a slot is free
        await anyio.to_thread.run_sync(log_end, self._settings, flow_run.id)
        # Settled, whatever the exit code: the base class must not report a crash once more.
        return ProcessWorkerResult(status_code=0, identifier=str(pid))

    async def _execute(
        self, flow_run: FlowRun, configuration: JobConfiguration, task_status: anyio.abc.TaskStatus[int]
    ) -> tuple[int, int]:
        concluded = False
        with self._outputs.open(str(flow_run.id)) as output:
            process = await self._start(flow_run, configuration, output.fileno())
            self._processes[flow_run.id] = process
            try:
                if (identity := ProcessIdentity.of(process.pid)) is not None:
                    record_run(self._state, str(flow_run.id), identity)
                task_status.started(process.pid)
                if reason := self._cancelled.pop(flow_run.id, self._cancel_at_start):
                    self._start_soon(self._cancel, flow_run.id, reason)
                exit_code = await process.wait()
                concluded = exit_code == 0 or self._control.get_conclusion(flow_run.id) is not None
            finally:
                process.send_signal(signal.SIGKILL)  # for the case that this task itself was cancelled
                del self._processes[flow_run.id]
                forget_run(self._state, str(flow_run.id))
        if concluded:
            self._outputs.concluded(str(flow_run.id))
        else:
            printed = self._outputs.path(str(flow_run.id))
            logger.warning("Run %s ended with %d; what it printed is in %s", flow_run.id, exit_code, printed)
        return exit_code, process.pid

    async def _start(self, flow_run: FlowRun, configuration: JobConfiguration, output: int) -> RunProcess:
        port, token = self._control.register(flow_run.id)
        env = {name: value for name, value in configuration.env.items() if value is not None}
        env |= {"PREFECT__CONTROL_PORT": str(port), "PREFECT__CONTROL_TOKEN": token}
        if entrypoint := _module_entrypoint(configuration):
            env["PREFECT__FLOW_ENTRYPOINT"] = entrypoint
        cwd = configuration.working_dir or Path.cwd()
        custom = configuration.command if configuration._command_configured else None
        if custom is not None:
            return await start_process(command_from_string(custom), env, cwd, output)
        if self._settings.fork_server:
            try:
                return await self._fork_server.spawn(env, cwd, output)
            except ForkServerDown as error:
                logger.info("Run %s starts without the fork server: %s", flow_run.id, error)
        return await start_process(list(ENGINE), env, cwd, output)

    # --- how runs end

    async def _cancel(self, flow_run_id: UUID, reason: str, *, grace_seconds: float = CANCEL_GRACE_SECONDS) -> None:
        """Have the run's engine cancel it; kill it when it takes longer than the grace."""
        if flow_run_id in self._cancelled or flow_run_id not in self._supervised_now():
            return
        self._cancelled[flow_run_id] = reason
        process = self._processes.get(flow_run_id)
        if process is None:
            return  # its start or its end is under way, and sees the reason
        if await self._control.signal(flow_run_id, "cancel") is ControlSignalStatus.ALREADY_CONCLUDED:
            return
        await _end(flow_run_id, process, grace_seconds)

    def _end_soon(self, flow_run_id: UUID) -> None:
        if process := self._processes.get(flow_run_id):
            self._start_soon(_end, flow_run_id, process, CANCEL_GRACE_SECONDS)

    def _supervised_now(self) -> Collection[UUID]:
        return self._supervised | self._submitting_flow_run_ids

    async def _drain(self, stop: Stop) -> None:
        """Wait for the runs that are going on, then cancel those that are left."""
        deadline = time.monotonic() + self._settings.drain_seconds
        if self._supervised_now():
            logger.info("Draining %d runs for %.0f s", len(self._supervised_now()), self._settings.drain_seconds)
        while self._supervised_now() and time.monotonic() < deadline and not stop.hurry.is_set():
            await anyio.sleep(0.05)
        self._cancel_at_start = "Caisson is stopping."
        async with anyio.create_task_group() as group:
            for flow_run_id in self._supervised_now():
                group.start_soon(self._stop_run, flow_run_id, stop.abandoned)

    async def _stop_run(self, flow_run_id: UUID, abandoned: bool) -> None:
        if not abandoned:
            with anyio.move_on_after(ANNOUNCE_SECONDS):
                try:
                    await self._ends.set_state(flow_run_id, Cancelling(message=self._cancel_at_start))
                except (httpx.HTTPError, ObjectNotFound) as error:
                    logger.warning("Can't announce the cancellation of run %s: %s", flow_run_id, error)
        grace = ABANDONED_GRACE_SECONDS if abandoned else CANCEL_GRACE_SECONDS
        await self._cancel(flow_run_id, self._cancel_at_start, grace_seconds=grace)


async def _end(flow_run_id: UUID, process: RunProcess, grace_seconds: float) -> None:
    """Have a run's process end; kill it when it takes longer than the grace."""
    process.send_signal(signal.SIGTERM)
    with anyio.move_on_after(grace_seconds):
        await process.wait()
        return
    logger.warning("Run %s did not end within %.0f s of being told to: killed", flow_run_id, grace_seconds)
    process.send_signal(signal.SIGKILL)


def _module_entrypoint(configuration: JobConfiguration) -> str:
    """Where the flow is, if it is importable as it stands: the run then need not ask for its deployment again."""
    deployment = configuration._related_objects.get("deployment")
    if deployment is None or deployment.pull_steps or deployment.path or ":" in (deployment.entrypoint or ":"):
        return ""
    return str(deployment.entrypoint)
