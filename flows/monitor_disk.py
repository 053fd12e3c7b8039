"""The flow ``monitor_disk``: one look at the file systems that Docker fills, every minute.

While all is well it is one process with no task, and makes no call to the engine but one in five minutes, for the
events that the engine would forget; once in ten minutes it renews the page that people look at. Under pressure it
starts a prune, and it says when prunes no longer succeed. Why so: docs/decisions.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from prefect import flow
from prefect.context import FlowRunContext

from caisson.disk_account import AGAIN
from caisson.disk_events import disk_events
from caisson.disk_history import DiskHistory
from caisson.disk_markdown import disk_markdown, disk_summary
from caisson.disk_metrics import write_metrics
from caisson.disk_places import holds_images
from caisson.disk_report import DiskReport
from caisson.disk_reserve import DiskReserve
from caisson.disk_state import DiskState, only_one, read_state, write_state
from caisson.disk_watch import Look, changed_horizons, look, report
from caisson.errors import LedgerUnusable
from caisson.ledger import Prune
from caisson.metrics import write_metrics as write_build_metrics
from caisson.prune_events import overdue_event, recovered_event
from caisson.prune_watch import PruneWatch, wants_prune, watch_prunes
from caisson.settings import Settings, load_settings
from tasks.attribute_disk import attribute_disk
from tasks.emit_events import emit_events
from tasks.forget_runs import forget_runs
from tasks.publish_disk import publish_page
from tasks.replay_events import replay_events
from tasks.start_prune import start_prune
from tasks.step import run_logger

_PAGE_EVERY = timedelta(minutes=10)
_FORGET_EVERY = timedelta(hours=1)
_REPLAY_EVERY = timedelta(minutes=5)


@flow(
    name="monitor-disk",
    description="Looks at the file systems that Docker fills: thresholds, forecast, and what holds them.",
    flow_run_name="disk",
    persist_result=False,
)
def monitor_disk(attribution: bool = False) -> str:
    """Look at Docker's disks; ``attribution`` also asks the engine what holds them, which can take minutes."""
    settings = load_settings()
    now = datetime.now(UTC)
    with only_one(settings.state_dir, "disk-monitor") as mine:
        if not mine:
            return "Another look at the disks is under way."
        if not (_started_by_hand() or attribution) and _is_fresh(settings, now):
            return "The disks were looked at just now."
        return _monitor(settings, now, attribution=attribution)


def _monitor(settings: Settings, now: datetime, *, attribution: bool) -> str:
    state = read_state(settings.state_dir)
    if _is_due(state.cleaned, now, _FORGET_EVERY):
        # First, and remembered at once: where each look fails, its runs must not pile up either.
        state = _forget(settings, state, now)
    found = look(settings, state, now)
    history = DiskHistory(settings, now)
    history.record(found)
    for words in history.problems:
        run_logger().warning(words)
    new = found.state
    if attribution or _wants_attribution(found, state):
        attribute_disk(settings, _used(found))
        new = new.changed(attributed=now)
    made, forecasts = report(settings, found, history.of, resets=history.prunes())
    horizons = changed_horizons(state, forecasts)
    events = list(disk_events(found, made, horizons))
    for event in events:
        run_logger().warning(event.message)
    emit_events(settings.host_name, events)
    new = new.changed(horizons={**state.horizons, **horizons})
    if _is_due(state.replayed, now, _REPLAY_EVERY):
        replay_events(settings, now)
        new = new.changed(replayed=now)
    prunes = history.recent_prunes()
    if prunes is not None:
        new = _watch_prunes(settings, new, prunes, now)
    if settings.prune_on_pressure and wants_prune(found.readings, prunes or (), asked=state.prune_asked, now=now):
        new = _start_prune(settings, new, now)
    by_hand = _started_by_hand()
    if events or attribution or by_hand or _is_due(state.published, now, _PAGE_EVERY):
        new = _publish(settings, new, made, history, by_hand=by_hand)
    for reading in found.readings:
        # Here, and not only when a prune begins: by then the disk may be full.
        if holds_images(reading.place):
            DiskReserve(Path(reading.place.path)).keep()
    _keep(settings, new, made, history)
    return disk_summary(made)


def _is_fresh(settings: Settings, now: datetime) -> bool:
    """After a pause of the host its scheduled runs come all at once: most of them then have nothing new to see."""
    apart = timedelta(seconds=min(5.0, settings.monitor_seconds / 2))
    return not _is_due(read_state(settings.state_dir).looked, now, apart)


def _wants_attribution(found: Look, state: DiskState) -> bool:
    """Under pressure what holds the disk is worth the engine's time, but not each minute."""
    under_pressure = any(reading.pressure.level != "normal" for reading in found.readings)
    return under_pressure and _is_due(state.attributed, found.at, AGAIN)


def _used(found: Look) -> int | None:
    """Bytes in use where Docker has one file system; with several no difference can be told."""
    return found.readings[0].usage.used_bytes if len(found.readings) == 1 else None


def _is_due(last: datetime | None, now: datetime, every: timedelta) -> bool:
    # A time that lies ahead is of a clock that was set back.
    return last is None or not timedelta() <= now - last < every


def _started_by_hand() -> bool:
    context = FlowRunContext.get()
    return context is not None and context.flow_run is not None and not context.flow_run.auto_scheduled


def _watch_prunes(settings: Settings, state: DiskState, prunes: tuple[Prune, ...], now: datetime) -> DiskState:
    """Tell when no prune has succeeded for long, and when one has again."""
    interval = timedelta(seconds=settings.prune_seconds)
    remembered = PruneWatch(state.prunes_expected, state.overdue_told, state.prune_succeeded)
    watched = watch_prunes(remembered, prunes, interval=interval, now=now)
    if watched.finding and watched.since is not None:
        event = (
            overdue_event(settings.host_name, watched.since, now, interval)
            if watched.finding == "overdue"
            else recovered_event(settings.host_name, watched.since)
        )
        run_logger().warning(event.message)
        emit_events(settings.host_name, [event])
    watch = watched.watch
    return state.changed(prunes_expected=watch.expected, overdue_told=watch.told, prune_succeeded=watch.success)


def _start_prune(settings: Settings, state: DiskState, now: datetime) -> DiskState:
    """Have Prefect start a prune; a failure of that is no failure of the look."""
    try:
        started = start_prune(settings.host_name, now)
    except Exception as error:
        run_logger().warning(f"The disk is under pressure, but no prune could be started ({type(error).__name__}).")
        return state
    if started is None:
        run_logger().info("The disk is under pressure, and a prune of it is under way already.")
        return state
    run_logger().warning(f"The disk is under pressure: a prune was started, the run {started}.")
    return state.changed(prune_asked=now)


def _publish(
    settings: Settings, state: DiskState, made: DiskReport, history: DiskHistory, *, by_hand: bool
) -> DiskState:
    """Renew the page; a failure of that is no failure of the look."""
    context = FlowRunContext.get()
    own_run = context.flow_run.id if by_hand and context is not None and context.flow_run is not None else None
    page = disk_markdown(made, history.picture(made))
    try:
        artifact = publish_page(
            settings.host_name, page, disk_summary(made), artifact=state.artifact, flow_run_id=own_run
        )
    except Exception as error:
        run_logger().warning(f"The page could not be renewed in Prefect ({type(error).__name__}: {error}).")
        return state
    return state.changed(published=made.at, artifact=artifact)


def _forget(settings: Settings, state: DiskState, now: datetime) -> DiskState:
    context = FlowRunContext.get()
    deployment_id = context.flow_run.deployment_id if context is not None and context.flow_run is not None else None
    if deployment_id is None:
        return state
    try:
        forget_runs(deployment_id, now)
        state = state.changed(cleaned=now)
        write_state(settings.state_dir, state)
    except Exception as error:
        run_logger().warning(f"Old runs could not be removed ({type(error).__name__}: {error}).")
    return state


def _keep(settings: Settings, state: DiskState, made: DiskReport, history: DiskHistory) -> None:
    """What to remember, last: killed before this, a change is told twice rather than never."""
    try:
        write_metrics(settings, made)
        if history.ledger is not None:
            write_build_metrics(settings, history.ledger)
    except (OSError, LedgerUnusable) as error:
        run_logger().warning(f"The metrics could not be written ({error}).")
    try:
        write_state(settings.state_dir, state)
    except OSError as error:
        run_logger().warning(f"What the monitor remembers could not be written ({error}).")
