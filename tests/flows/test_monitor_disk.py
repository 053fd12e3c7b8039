"""The monitor in a real Caisson: a small disk fills up and recovers, and everybody who should hears of it."""

from __future__ import annotations

import json
import os
import queue
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from deployments.names import monitor_deployment
from deployments.prefect_api import PrefectApi
from deployments.server import client_environment
from deployments.state import StateDir
from deployments.trigger import FlowRunId
from tests.conftest import find_engines
from tests.flows.caisson_host import ROOT, CaissonHost, wait_for

MIB = 1 << 20
# Prefect's scheduler looks once a minute for what is to be scheduled.
SCHEDULER_SECONDS = 180.0
DEPLOY = """
from caisson.settings import load_settings
from deployments.apply import apply_deployments
print(apply_deployments(load_settings()))
"""


@dataclass
class Watched:
    """A Caisson whose engine's data root is a file system of 20 MiB."""

    host: CaissonHost
    disk: Path

    def fill(self, mib: int) -> None:
        (self.disk / "filler").write_bytes(b"\0" * (mib * MIB))

    def look(self, **parameters: Any) -> FlowRunId:
        """One run by hand, until it has ended."""
        run = self.host.trigger("monitor-disk", **parameters)
        self.host.wait_for_state(run, "Completed")
        return run

    def events(self, name: str) -> list[dict[str, Any]]:
        """Events of that name, the oldest first."""
        wanted = {"filter": {"event": {"name": [name]}, "order": "ASC"}, "limit": 50}
        with self.host.api as api:
            found: list[dict[str, Any]] = api.post("/events/filter", wanted)["events"]
        return found

    def schedules(self) -> list[dict[str, Any]]:
        return list(self._deployment()["schedules"])

    @property
    def deployment_id(self) -> str:
        return str(self._deployment()["id"])

    def _deployment(self) -> Any:
        with self.host.api as api:
            return api.get(f"/deployments/name/{monitor_deployment(self.host.settings)}")

    def place_of_a_build(self) -> str:
        """What `caisson builds` says of a build that is asked for now, and withdrawn again."""
        request = {"repository_url": "https://git.example.com/team/app.git", "image": "team/app"}
        run = self.host.trigger("build-image", request=request)
        rows = json.loads(self.host.cli("builds", "--json"))
        with self.host.api as api:
            api.post(f"/flow_runs/{run}/set_state", {"state": {"type": "CANCELLED"}, "force": True})
        return next(str(row["place"]) for row in rows if row["run"] == run)

    def deploy(self, **variables: str) -> None:
        """What ``caisson up`` does with the deployments at its start."""
        env = client_environment(self.host.settings, StateDir(self.host.state_dir), self.host.env) | variables
        subprocess.run([sys.executable, "-c", DEPLOY], env=env, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory, caisson: CaissonHost) -> Iterator[Watched]:
    directory = tmp_path_factory.mktemp("watched")
    disk = directory / "docker"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=20m,nr_inodes=500", "caisson-test", str(disk)], check=True)
    host = CaissonHost(
        directory / "state",
        "watched",
        {
            "CAISSON_DOCKER_HOST": find_engines()[0].docker_host,
            "CAISSON_DOCKER_DATA_ROOT": str(disk),
            "CAISSON_CONCURRENCY": "2",
            "CAISSON_MONITOR_SECONDS": "3600",
            "CAISSON_POLL_SECONDS": "5",
            "PREFECT_SERVER_SERVICES_DB_VACUUM_LOOP_SECONDS": "10",
        },
    )
    try:
        host.copy_database(caisson)
        host.up()
        host.apply_samples()
        yield Watched(host, disk)
    finally:
        if host.process is not None:
            host.stop()
        subprocess.run(["umount", str(disk)], check=True)


def test_a_disk_fills_up_and_recovers_and_everybody_hears_of_it(
    watched: Watched, receiver: tuple[str, queue.Queue[dict[str, Any]]]
) -> None:
    url, posted = receiver
    watched.host.cli("alerts", "set", "webhook", stdin=f"{url}\n")
    watched.host.cli("alerts", "set", "webhook", stdin=f"{url}\n")
    assert watched.host.cli("alerts", "list").split()[:2] == ["webhook", "webhook"]
    watched.host.cli("alerts", "test", "webhook")
    assert posted.get(timeout=30)["event"] == "caisson.alert.test.webhook"

    watched.look()
    watched.fill(17)  # and 1 MiB is the reserve that the monitor keeps
    watched.look()
    first = watched.look()
    alert = posted.get(timeout=30)
    assert (alert["event"], alert["host"]) == ("caisson.disk.pressure", "watched")
    assert alert["payload"]["level"] == "high"
    assert alert["payload"]["missing_bytes"] == 3 * MIB + 1
    assert "90% of 20 MiB in use" in alert["message"]
    # Under pressure the engine is asked what holds the disk, as a task of its own.
    with watched.host.api as api:
        tasks = api.post("/task_runs/filter", {"flow_runs": {"id": {"any_": [first]}}})
    assert [task["name"] for task in tasks] == ["attribute_disk"]

    watched.fill(19)
    watched.look(), watched.look()
    assert posted.get(timeout=30)["event"] == "caisson.disk.critical"
    metrics = (watched.host.state_dir / "metrics" / "caisson_disk.prom").read_text()
    assert f'caisson_disk_pressure{{path="{watched.disk}",level="critical"}} 1' in metrics
    assert f'caisson_disk_avail_bytes{{path="{watched.disk}"}} 0' in metrics
    # What is built waits for room and says so; the looks go on beside it.
    held = watched.host.trigger("sample-sleep", seconds=0)
    wait_for("it is held", lambda: "Builds wait: disk critical on host watched" in watched.host.logs())
    assert watched.host.state(held).state_name in ("Scheduled", "Late")
    wait_for("a build's place tells why", lambda: watched.place_of_a_build() == "waits: disk critical on host watched")

    watched.fill(1)
    watched.look(), watched.look(), watched.look()
    assert posted.get(timeout=30)["event"] == "caisson.disk.recovered"
    watched.host.wait_for_state(held, "Completed")
    # The server tells events on before it stores them.
    wait_for("the recovery is stored", lambda: watched.events("caisson.disk.recovered"))
    assert [len(watched.events(f"caisson.disk.{name}")) for name in ("pressure", "critical", "recovered")] == [1, 1, 1]

    watched.host.cli("alerts", "remove", "webhook")
    assert "No alert is set up" in watched.host.cli("alerts", "list")
    assert posted.empty()


def test_slack_is_set_up_as_a_notification(watched: Watched) -> None:
    url = "https://hooks.slack.com/services/T0/B0/s3cr3t"
    watched.host.cli("alerts", "set", "slack", "--name", "team", "--no-forecast", stdin=f"{url}\n")
    with watched.host.api as api:
        (automation,) = [item for item in api.post("/automations/filter", {}) if item["name"] == "caisson-alert-team"]
    assert [action["type"] for action in automation["actions"]] == ["send-notification"]
    assert "caisson.disk.forecast" not in automation["trigger"]["expect"]
    assert "team                 slack    enabled" in watched.host.cli("alerts", "list")
    watched.host.cli("alerts", "remove", "team")


def test_the_webhooks_address_is_in_no_place_where_others_look(
    watched: Watched, receiver: tuple[str, queue.Queue[dict[str, Any]]]
) -> None:
    url, _ = receiver
    watched.host.cli("alerts", "set", "webhook", "--name", "ops", stdin=f"{url}\n")
    with watched.host.api as api:
        automations = json.dumps(api.post("/automations/filter", {}))
        blocks = json.dumps(api.post("/block_documents/filter", {}))
    with sqlite3.connect(watched.host.state_dir / "prefect" / "prefect.db") as database:
        stored = [str(row) for row in database.execute("SELECT * FROM block_document")]
    watched.host.cli("alerts", "remove", "ops")
    assert "caisson-alert-ops" in automations
    assert "caisson-alert-ops" in blocks
    assert any("caisson-alert-ops" in row for row in stored)
    for text in (automations, blocks, *stored, watched.host.logs(), watched.host.output):
        assert "s3cr3t-path" not in text


def test_a_host_has_one_page_that_is_renewed_and_a_run_by_hand_shows_its_own(watched: Watched) -> None:
    run = watched.look()
    with watched.host.api as api:
        (page,) = api.post("/artifacts/latest/filter", {"artifacts": {"key": {"like_": "disk-watched"}}})
        assert page["flow_run_id"] == run
        assert "![Share of the disk in use](data:image/svg+xml;base64," in page["data"]
        assert f"| {str(watched.disk)[:4].replace('/', chr(92) + '/')}" in page["data"]
        before = api.post("/artifacts/count", {"artifacts": {"key": {"like_": "disk-watched"}}})
    # As the schedule runs it: without a run of its own, and due.
    state = watched.host.state_dir / "disk.json"
    remembered = json.loads(state.read_text())
    remembered["published"] = remembered["looked"] = None
    state.write_text(json.dumps(remembered))
    with watched.host.api as api:
        api.post(f"/deployments/{watched.deployment_id}/schedules", [{"schedule": {"interval": 3}, "slug": "often"}])
        try:
            renewed = wait_for(
                "the page is renewed",
                lambda: [
                    item
                    for item in api.post("/artifacts/latest/filter", {"artifacts": {"key": {"like_": "disk-watched"}}})
                    if item["data"] != page["data"]
                ],
                seconds=SCHEDULER_SECONDS,
            )
        finally:
            _delete_schedule(watched, "often")
        assert renewed[0]["latest_id"] == page["latest_id"]
        assert api.post("/artifacts/count", {"artifacts": {"key": {"like_": "disk-watched"}}}) == before


def _delete_schedule(watched: Watched, slug: str) -> None:
    (schedule,) = [item for item in watched.schedules() if item["slug"] == slug]
    _call(watched.host.api, "DELETE", f"/deployments/{watched.deployment_id}/schedules/{schedule['id']}", None)


def _call(api: PrefectApi, method: str, path: str, body: object) -> None:
    with api:
        api._call(method, path, body)


def test_what_was_edited_in_prefect_survives_a_start_and_the_setting_acts_when_it_changes(watched: Watched) -> None:
    (schedule,) = watched.schedules()
    assert (schedule["schedule"]["interval"], schedule["active"]) == (3600.0, True)
    path = f"/deployments/{watched.deployment_id}"
    edited = {"schedule": {"interval": 300.0, "anchor_date": "2026-01-01T00:00:00Z"}, "active": False}
    _call(watched.host.api, "PATCH", f"{path}/schedules/{schedule['id']}", edited)
    _call(watched.host.api, "PATCH", path, {"parameters": {"attribution": True}, "tags": ["mine"]})
    watched.deploy()
    (kept,) = watched.schedules()
    assert (kept["id"], kept["schedule"]["interval"], kept["active"]) == (schedule["id"], 300.0, False)
    assert watched._deployment()["parameters"] == {"attribution": True}
    assert watched._deployment()["tags"] == ["mine"]
    watched.deploy(CAISSON_MONITOR_SECONDS="120")
    (changed,) = watched.schedules()
    assert (changed["schedule"]["interval"], changed["active"]) == (120.0, True)
    watched.deploy(CAISSON_MONITOR_SECONDS="0")
    assert watched.schedules() == []
    watched.deploy(CAISSON_MONITOR_SECONDS="0")
    assert watched.schedules() == []
    watched.deploy()
    _call(watched.host.api, "PATCH", path, {"parameters": {}})
    assert [item["schedule"]["interval"] for item in watched.schedules()] == [3600.0]


def test_runs_that_nobody_made_in_time_are_dropped_at_the_next_start(watched: Watched) -> None:
    database = watched.host.state_dir / "prefect" / "prefect.db"
    wanted = {
        "deployments": {"id": {"any_": [watched.deployment_id]}},
        "flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}},
    }
    with watched.host.api as api:
        ahead = wait_for("scheduled runs", lambda: api.post("/flow_runs/filter", wanted), seconds=SCHEDULER_SECONDS)
    queue_id = ahead[0]["work_queue_id"]
    with watched.host.api as api:
        _call(watched.host.api, "PATCH", f"/work_queues/{queue_id}", {"is_paused": True})
    late = [run["id"].replace("-", "") for run in ahead[:2]]
    with sqlite3.connect(database, timeout=30) as connection:
        marks = ",".join("?" * len(late))
        times = "next_scheduled_start_time = ?, expected_start_time = ?"
        query = f"UPDATE flow_run SET {times} WHERE replace(id, '-', '') IN ({marks})"
        then = "2026-01-01 00:00:00.000000"
        assert connection.execute(query, (then, then, *late)).rowcount == len(late)
    watched.deploy()
    _call(watched.host.api, "PATCH", f"/work_queues/{queue_id}", {"is_paused": False})
    with watched.host.api as api:
        left = {
            run["id"]
            for run in api.post("/flow_runs/filter", {"flow_runs": {"id": {"any_": [r["id"] for r in ahead[:2]]}}})
        }
    assert left == set()


def test_old_runs_are_removed_and_young_ones_and_failures_stay(watched: Watched) -> None:
    old, young = watched.look(), watched.look()
    database = watched.host.state_dir / "prefect" / "prefect.db"
    with sqlite3.connect(database, timeout=30) as connection:
        query = "UPDATE flow_run SET end_time = datetime('now', '-25 hours') WHERE replace(id, '-', '') = ?"
        assert connection.execute(query, (old.replace("-", ""),)).rowcount == 1
    state = watched.host.state_dir / "disk.json"
    remembered = json.loads(state.read_text())
    remembered["cleaned"] = None
    state.write_text(json.dumps(remembered))
    watched.look()
    with watched.host.api as api:
        left = {run["id"] for run in api.post("/flow_runs/filter", {"flow_runs": {"id": {"any_": [old, young]}}})}
    assert left == {young}


def test_builds_that_ended_long_ago_leave_prefects_database(watched: Watched) -> None:
    run = watched.host.trigger("sample-sleep", seconds=0)
    watched.host.wait_for_state(run, "Completed")
    tables = {
        "log": "flow_run_id",
        "events": "replace(resource_id, 'prefect.flow-run.', '')",
        "flow_run": "id",
    }

    def rows() -> list[int]:
        with sqlite3.connect(watched.host.state_dir / "prefect" / "prefect.db", timeout=30) as database:
            counts = (
                database.execute(f"SELECT count(*) FROM {table} WHERE {column} IN (?, ?)", _ids(run))
                for table, column in tables.items()
            )
            return [count.fetchone()[0] for count in counts]

    wait_for("all of it is stored", lambda: all(rows()))
    with sqlite3.connect(watched.host.state_dir / "prefect" / "prefect.db", timeout=30) as database:
        database.execute("UPDATE flow_run SET end_time = datetime('now', '-91 days') WHERE id IN (?, ?)", _ids(run))
        database.execute(
            "UPDATE events SET occurred = datetime('now', '-8 days') WHERE resource_id = ?",
            (f"prefect.flow-run.{run}",),
        )
    wait_for("nothing of it is left", lambda: not any(rows()), seconds=SCHEDULER_SECONDS)


def _ids(run: FlowRunId) -> tuple[str, str]:
    """As SQLite may have it."""
    return run, run.replace("-", "")


def test_the_disk_is_looked_at_while_builds_take_every_slot(watched: Watched, tmp_path: Path) -> None:
    runs = [watched.host.trigger("sample-sleep", seconds=60) for _ in range(3)]
    try:
        for run in runs[:2]:
            watched.host.wait_for_state(run, "Running")
        begun = time.monotonic()
        watched.look()
        assert time.monotonic() - begun < 15
        assert watched.host.state(runs[2]).state_name in ("Scheduled", "Late")
    finally:
        for run in runs:
            _call(watched.host.api, "POST", f"/flow_runs/{run}/set_state", {"state": {"type": "CANCELLING"}})
        for run in runs:
            watched.host.wait_for_state(run, "Cancelled")


def test_the_command_line_shows_the_same_without_a_service(watched: Watched) -> None:
    made = json.loads(watched.host.cli("disk", "--json"))
    (item,) = made["file_systems"]
    assert (made["host"], item["path"], item["bytes"]["total"]) == ("watched", str(watched.disk), 20 * MIB)
    assert str(watched.disk) in watched.host.cli("disk")
    shown = watched.host.cli("disk", "--attribution")
    assert "What holds it (" in shown
    assert os.path.exists(watched.host.state_dir / "disk-attribution.json")  # noqa: PTH110
