"""What came of a prune, as events in Prefect; not the same with each prune."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

from caisson.prune_events import PruneEvent
from caisson.prune_told import choose_untold, read_told, write_told
from caisson.settings import Settings
from tasks.emit_events import emit_events
from tasks.step import run_logger


def tell_prune(settings: Settings, events: Iterable[PruneEvent]) -> None:
    """Emit those that are worth it; that it can't be remembered is no failure of the prune."""
    chosen, told = choose_untold(read_told(settings.state_dir), events, datetime.now(UTC))
    emit_events(settings.host_name, chosen)
    try:
        write_told(settings.state_dir, told)
    except OSError as error:
        run_logger().warning(f"What was told of prunes could not be written ({error.strerror or error}).")
