"""The engine's events, recorded before it forgets them: it keeps only the last 256."""

from __future__ import annotations

from datetime import datetime

from caisson.docker_engine import DockerEngine
from caisson.errors import CaissonError
from caisson.event_replay import replay_events as replay
from caisson.ledger import Ledger
from caisson.settings import Settings
from tasks.step import run_logger


def replay_events(settings: Settings, now: datetime) -> None:
    """Record the uses of images since the last time; a failure is told, and is none of the look's."""
    try:
        with DockerEngine(settings.docker_host, timeout=10) as engine:
            is_complete = replay(engine, Ledger(settings.state_dir / "ledger.sqlite"), now=now)
    except (CaissonError, OSError) as error:
        run_logger().warning(f"What the engine's events tell of images could not be recorded: {error}")
        return
    if not is_complete:
        run_logger().info("Some of the engine's events were lost: every image counts as used now.")
