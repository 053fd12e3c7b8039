"""What the worker gives each run of Prefect's settings."""

from __future__ import annotations

from pathlib import Path

from caisson.settings import Settings
from deployments.job import JobConfiguration
from deployments.server import client_environment
from deployments.state import StateDir

INTERVAL = "PREFECT_LOGGING_TO_API_BATCH_INTERVAL"


def test_a_runs_lines_are_sent_at_once_and_the_worker_that_waits_does_not_wake_for_them(tmp_path: Path) -> None:
    settings = Settings(_env_file=None, state_dir=tmp_path)
    assert INTERVAL not in client_environment(settings, StateDir(tmp_path), {})
    assert JobConfiguration._base_environment()[INTERVAL] == "0.3"


def test_the_settings_that_all_runs_share_are_read_once() -> None:
    assert JobConfiguration._base_environment() is JobConfiguration._base_environment()
