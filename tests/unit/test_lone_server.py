"""Where no host is left to settle what another has left going on, the server does; and nobody waits for two minutes."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

import pytest

from caisson.errors import SettingsInvalid
from caisson.settings import Settings, load_settings
from deployments.lone_server import LOOK_SECONDS, LoneServer
from deployments.prefect_api import PrefectApi
from deployments.server import server_environment
from deployments.state import StateDir

HEARTBEAT_SECONDS = 30.0


class Prefect:
    """Workers by name with their last heartbeat, all of them offline but for ``online``; and runs by their states."""

    def __init__(self, **workers: str) -> None:
        self.workers, self.online = workers, set[str]()
        self.runs: dict[str, dict[str, Any]] = {}
        self.ended_meanwhile: set[str] = set()
        self.told: dict[str, str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def add(self, run: str, kind: str, host: str, *, queue: str = "shared") -> None:
        state = {"type": kind, "name": kind.title(), "message": f"Taken by host {host}" if kind == "PENDING" else ""}
        labels = {"prefect.worker.name": host}
        document = {"id": run, "state_type": kind, "state": state, "labels": labels, "work_queue_name": queue}
        self.runs[run] = document

    def post(self, path: str, body: Any) -> Any:
        if path.endswith("/workers/filter"):
            return [
                {"name": name, "last_heartbeat_time": beat, "status": "ONLINE" if name in self.online else "OFFLINE"}
                for name, beat in self.workers.items()
            ]
        if path == "/flow_runs/filter":
            return list(self.runs.values())
        run = path.split("/")[2]
        assert body["force"] is True
        self.told[run] = body["state"]["type"]
        del self.runs[run]
        return {}

    def get(self, path: str) -> Any:
        run = path.split("/")[2]
        return {
            "state": {"type": "COMPLETED", "name": "Completed"}
            if run in self.ended_meanwhile
            else self.runs[run]["state"]
        }


def look(prefect: Prefect, *, seconds: float, every: float = LOOK_SECONDS) -> float | None:
    """Look until something is settled, for so long at most; after how many seconds that was."""
    server = LoneServer(lambda: cast(PrefectApi, prefect), heartbeat_seconds=HEARTBEAT_SECONDS)
    at = 0.0
    while at <= seconds:
        if server.look(at):
            return at
        at += every
    return None


def test_what_the_only_host_left_is_settled_within_two_minutes() -> None:
    prefect = Prefect(b1="12:00")
    for run, kind in (("1", "RUNNING"), ("2", "PENDING"), ("3", "CANCELLING")):
        prefect.add(run, kind, "b1")
    prefect.add("care", "RUNNING", "", queue="care-b1")
    prefect.add("done", "RUNNING", "b1")
    prefect.ended_meanwhile.add("done")
    settled = look(prefect, seconds=200)
    assert settled is not None
    # Before it dies a host may have been heard of for a look's time.
    assert 3 * HEARTBEAT_SECONDS <= settled <= 120 - LOOK_SECONDS
    assert prefect.told == {"1": "CRASHED", "2": "SCHEDULED", "3": "CANCELLED", "care": "CRASHED"}


def test_when_all_are_lost_at_once_all_are_settled() -> None:
    prefect = Prefect(b1="12:00", b2="12:01")
    prefect.add("1", "RUNNING", "b1")
    prefect.add("2", "RUNNING", "b2")
    assert look(prefect, seconds=200)
    assert set(prefect.told) == {"1", "2"}


def test_what_a_host_that_lives_can_settle_is_left_to_it() -> None:
    prefect = Prefect(b1="12:00", b2="12:01")
    prefect.online.add("b2")
    prefect.add("1", "RUNNING", "b1")
    assert look(prefect, seconds=200) is None


def test_a_run_that_no_host_has_taken_is_nobodys() -> None:
    prefect = Prefect(b1="12:00")
    prefect.add("1", "RUNNING", "")
    assert look(prefect, seconds=200) is None


def test_a_server_that_was_busy_itself_has_heard_of_nobody() -> None:
    prefect = Prefect(b1="12:00")
    prefect.add("1", "RUNNING", "b1")
    assert look(prefect, seconds=400, every=20) is None


def test_the_settings_that_two_minutes_stand_on(tmp_path: Path) -> None:
    with pytest.raises(SettingsInvalid, match="CAISSON_HEARTBEAT_SECONDS: Input should be less than or equal to 30"):
        load_settings(_env_file=None, heartbeat_seconds=31)
    settings = Settings(_env_file=None, state_dir=tmp_path)
    env = server_environment(settings, StateDir(tmp_path).create(), {})
    assert env["PREFECT_SERVER_SERVICES_FOREMAN_LOOP_SECONDS"] == "5"


def test_the_pages_are_where_the_server_may_write(tmp_path: Path) -> None:
    env = server_environment(Settings(_env_file=None, state_dir=tmp_path), StateDir(tmp_path).create(), {})
    assert Path(env["PREFECT_SERVER_UI_STATIC_DIRECTORY"]).is_relative_to(tmp_path)


def test_a_build_that_waits_is_late_after_an_hour_or_when_the_user_says(tmp_path: Path) -> None:
    settings, state = Settings(_env_file=None, state_dir=tmp_path), StateDir(tmp_path).create()
    name = "PREFECT_SERVER_SERVICES_LATE_RUNS_AFTER_SECONDS"
    assert server_environment(settings, state, {})[name] == "3600"
    assert server_environment(settings, state, {name: "600"})[name] == "600"
