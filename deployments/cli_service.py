"""Where the command line finds a Caisson: the API that the settings name, else the one of this host."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from caisson.settings import Settings
from deployments.prefect_api import PrefectApi
from deployments.server import FOREIGN
from deployments.state import StateDir, find_running

_READY_SECONDS = 60.0
_POLL_SECONDS = 0.1


def find_api(settings: Settings, *, say: Callable[[str], None]) -> PrefectApi | None:
    """The API to build over; None where none is named and none runs. Waits for a Caisson that is just starting."""
    if settings.api_url:
        return PrefectApi(settings.api_url, auth=settings.api_auth)
    running = find_running(settings)
    if running is not None and not running.ready:
        say(f"Caisson at {running.url} is starting: waiting for it.")
        deadline = time.monotonic() + _READY_SECONDS
        while running is not None and not running.ready and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
            running = find_running(settings)
    return PrefectApi(running.api_url, auth=settings.api_auth) if running is not None else None


def use_secrets_of(settings: Settings) -> None:
    """Have Prefect, which is not imported yet, look secrets up where Caisson keeps them, and nowhere else.

    Without this it would take another Prefect of this user for ours, or start a server of its own, for 8 to 16 s.
    """
    for name in FOREIGN:
        os.environ.pop(name, None)
    os.environ["PREFECT_HOME"] = str(StateDir(settings.state_dir).create().prefect_home)
    os.environ["PREFECT_SERVER_EPHEMERAL_ENABLED"] = "false"
    running = None if settings.api_url else find_running(settings)
    api_url = settings.api_url or (running.api_url if running else "")
    if api_url:
        os.environ["PREFECT_API_URL"] = api_url
        if settings.api_auth:
            os.environ["PREFECT_API_AUTH_STRING"] = settings.api_auth
