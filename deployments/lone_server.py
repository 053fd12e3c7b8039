"""Runs of hosts that are gone where no host is left to settle them: the look of a server that has no worker beside it.

Of the hosts that are left one settles what another has left (``deployments.fellows``). With one worker, or when all are
lost at once, nobody would, and their runs would go on for ever by their states.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from prefect.client.schemas.objects import State

from caisson.errors import ServiceUnreachable
from caisson.host_watch import HEARTBEATS_MISSED, HostWatch, hosts_to_settle
from caisson.settings import Settings
from deployments.host_states import going_on
from deployments.names import POOL
from deployments.ownership import owner_of_document
from deployments.prefect_api import PrefectApi
from deployments.server import server_url
from deployments.settle import Why, true_state

LOOK_SECONDS = 5.0
# A server that is too busy to answer itself has heard of nobody.
_MOST_GAP_SECONDS = 3 * LOOK_SECONDS
_log = logging.getLogger("caisson.server")


class LoneServer:
    """The look, from time to time. ``connect`` is how Prefect's API is reached."""

    def __init__(self, connect: Callable[[], PrefectApi], *, heartbeat_seconds: float) -> None:
        self._connect = connect
        self._watch = HostWatch(
            timeout_seconds=HEARTBEATS_MISSED * heartbeat_seconds, most_gap_seconds=_MOST_GAP_SECONDS
        )

    @classmethod
    def of(cls, settings: Settings) -> LoneServer:
        url = f"{server_url(settings)}/api"
        return cls(lambda: PrefectApi(url, auth=settings.api_auth), heartbeat_seconds=settings.heartbeat_seconds)

    def start(self) -> None:
        """Look for as long as the process lives."""
        threading.Thread(target=self._look_for_ever, name="lone-server", daemon=True).start()

    def _look_for_ever(self) -> None:
        while True:
            time.sleep(LOOK_SECONDS)
            try:
                self.look(time.monotonic())
            except ServiceUnreachable as error:
                _log.debug("Can't look for hosts that are gone: %s", error)
            except Exception:
                _log.exception("A look for hosts that are gone failed.")

    def look(self, now: float) -> list[str]:
        """Settle what there is to settle; returns the IDs of those runs. Raises ``ServiceUnreachable``."""
        with self._connect() as api:
            workers = _workers(api)
            heartbeats = {name: str(worker["last_heartbeat_time"]) for name, worker in workers.items()}
            silent = self._watch.look(now, heartbeats)
            offline = {name for name, worker in workers.items() if worker.get("status") == "OFFLINE"}
            gone = hosts_to_settle("", heartbeats, silent=silent, offline=offline)
            runs = [run for run in going_on(api) if owner_of_document(run) in gone] if gone else []
            return [str(run["id"]) for run in runs if _settle(api, run)]


def _workers(api: PrefectApi) -> dict[str, dict[str, Any]]:
    try:
        found = api.post(f"/work_pools/{POOL}/workers/filter", {})
    except ServiceUnreachable as error:
        if error.details.get("status") == 404:
            return {}  # no host has been up yet
        raise
    return {worker["name"]: worker for worker in found if worker.get("last_heartbeat_time")}


def _settle(api: PrefectApi, run: dict[str, Any]) -> bool:
    # Asked for once more: what has ended since the list was made stays as it is.
    state = api.get(f"/flow_runs/{run['id']}").get("state")
    truth = true_state(State.model_validate(state) if state else None, why=Why.HOST_GONE)
    if truth is None:
        return False
    _log.warning("Run %s was on host %s, which is gone: %s", run["id"], owner_of_document(run), truth.name)
    told = truth.model_dump(mode="json", include={"type", "name", "message"})
    api.post(f"/flow_runs/{run['id']}/set_state", {"state": told, "force": True})
    return True
