"""Three hosts, each with an engine of its own, one Prefect server on PostgreSQL: real builds, and real losses."""

from __future__ import annotations

import json
import os
import re
import signal
import stat
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from caisson.docker_engine import DockerEngine
from caisson.prune_files import plan_file
from deployments.host_states import HostState, read_host_states
from deployments.launcher import down
from deployments.names import AUDIT_FLOW, MONITOR_FLOW, PRUNE_FLOW
from deployments.ownership import owner
from deployments.trigger import FlowRunId, trigger_build
from tests.conftest import EngineHost, find_containerd_engine, find_engines
from tests.engine.repositories import GitDaemon, Repository, git_daemon
from tests.flows.caisson_host import ROOT, CaissonHost, is_alive, started_pid, wait_for
from tests.flows.postgres import Postgres, postgres

CAISSON = str(Path(sys.executable).with_name("caisson"))
TOKEN = "builder:h0rse-battery-staple"
IMAGES = "caisson-hosts/app"
REPOSITORIES = 10
BUILDS = 100
FIRST_NUMBERS = count(0, BUILDS)
HEARTBEAT_SECONDS = 3
FINAL = frozenset({"COMPLETED", "FAILED", "CRASHED", "CANCELLED"})


@dataclass
class Fleet:
    """Hosts by name, ``b1`` with the server; and the repositories that each of their builders reaches."""

    database: Postgres
    git: GitDaemon
    hosts: dict[str, CaissonHost]
    engines: dict[str, EngineHost]
    repositories: list[Repository]

    @property
    def api_url(self) -> str:
        return f"http://127.0.0.1:{self.hosts['b1'].variables['CAISSON_SERVER_PORT']}/api"

    def caisson(self, host: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run ``caisson …`` as a user of that host would."""
        env = self.hosts[host].env | variables
        return subprocess.run(
            [CAISSON, *arguments], env=env, cwd="/", capture_output=True, text=True, timeout=120, check=False
        )

    def build(self, number: int, *, host: str = "any") -> FlowRunId:
        """Ask for an image of a name of its own; a host that has built this repository's commit only names it again."""
        request = {
            "repository_url": self.repositories[number % REPOSITORIES].url,
            "image": f"{IMAGES}-{number}",
            "limits": {"memory": "256m"},
        }
        with self.hosts["b1"].api as api:
            return trigger_build(api, {"request": request}, deployment=f"build-image/{host}")

    def states(self) -> dict[str, HostState]:
        with self.hosts["b1"].api as api:
            return {state.name: state for state in read_host_states(api)}

    def runs(self, runs: list[FlowRunId]) -> list[dict[str, Any]]:
        with self.hosts["b1"].api as api:
            found = [
                run
                for at in range(0, len(runs), 100)
                for run in api.post("/flow_runs/filter", {"flow_runs": {"id": {"any_": runs[at : at + 100]}}})
            ]
        assert len(found) == len(runs)
        return found

    def images(self) -> list[tuple[str, str]]:
        """Host and reference of each image of these tests, on all engines."""
        found = []
        for name, engine_host in self.engines.items():
            with DockerEngine(engine_host.docker_host) as engine:
                tags = (tag for image in engine.list_images() for tag in image.tags if tag.startswith(f"{IMAGES}-"))
                found += [(name, tag) for tag in tags]
        return found

    def clean(self) -> None:
        for name, engine_host in self.engines.items():
            with DockerEngine(engine_host.docker_host) as engine:
                for _, tag in (pair for pair in self.images() if pair[0] == name):
                    engine.untag_image(tag)
                for container in engine.list_containers({"caisson.host": name}):
                    engine.remove_container(container.id)


def host_of(run: dict[str, Any]) -> str:
    """The host that has taken a run."""
    message = str((run["state"] or {}).get("message") or "")
    return owner(run["work_queue_name"] or "", run["state_type"], message, run["labels"])


def documented(program: str, names: Mapping[str, str]) -> list[str]:
    """The command of that program as docs/operations.md has it, with names in the place of others."""
    (command,) = re.findall(rf"^{program} .*$", (ROOT / "docs/operations.md").read_text(), re.MULTILINE)
    words = (word.rpartition("=") for word in command.split())
    return [f"{option}{sign}{names.get(value, value)}" for option, sign, value in words]


def wait_until_ended(fleet: Fleet, asked: list[FlowRunId], wanted: int) -> None:
    """Return when so many of them have ended; asked once a second, for the server has builds to serve as well."""

    def ended() -> int:
        time.sleep(1)
        with fleet.hosts["b1"].api as api:
            final = {"id": {"any_": asked}, "state": {"type": {"any_": sorted(FINAL)}}}
            return int(api.post("/flow_runs/count", {"flow_runs": final}))

    wait_for(f"{wanted} builds have ended", lambda: ended() >= wanted, seconds=600)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    engines = dict(zip(("b1", "b2", "b3"), (*find_engines()[:2], find_containerd_engine()), strict=True))
    # Every engine's containers reach this host there, whichever network they are in.
    address = engines["b2"].gateway
    directory = tmp_path_factory.mktemp("fleet")
    with postgres() as database, git_daemon(directory / "git", address) as git:
        repositories = [
            git.repository(
                f"app{number}",
                {"Dockerfile": f"FROM debian:trixie-slim\nLABEL app={number}\n"},
            )
            for number in range(REPOSITORIES)
        ]
        hosts = {
            name: CaissonHost(
                directory / name,
                name,
                {
                    "CAISSON_DOCKER_HOST": engine.docker_host,
                    "CAISSON_ENGINE_SOCKET": engine.socket_in_engine,
                    "CAISSON_GUARD_DIR": f"{engine.guard_dir}-{name}",
                    "CAISSON_ENGINE_GUARD_DIR": engine.engine_guard_dir and f"{engine.engine_guard_dir}-{name}",
                    "CAISSON_DOCKER_DATA_ROOT": engine.data_root,
                    "CAISSON_MIN_FREE_BYTES": "64m",
                    "CAISSON_CONCURRENCY": "2",
                    "CAISSON_POLL_SECONDS": "2",
                    "CAISSON_DRAIN_SECONDS": "20",
                    "CAISSON_HEARTBEAT_SECONDS": str(HEARTBEAT_SECONDS),
                    "CAISSON_CACHE_WAIT_SECONDS": "1",
                },
            )
            for name, engine in engines.items()
        }
        hosts["b1"].variables |= {"CAISSON_DATABASE_URL": database.url("postgres"), "CAISSON_API_AUTH": TOKEN}
        made = Fleet(database, git, hosts, engines, repositories)
        try:
            hosts["b1"].up()
            yield made
        finally:
            for host in ("b3", "b2", "b1"):
                if hosts[host].is_up:
                    hosts[host].stop()
            made.clean()


def test_hosts_join_with_a_token_that_nobody_sees(fleet: Fleet, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    wrong = fleet.caisson("b2", "join", "--api", fleet.api_url, CAISSON_JOIN_TOKEN="builder:wrong")
    assert (wrong.returncode, "asks for a password" in wrong.stderr) == (60, True), wrong.stderr
    assert not (fleet.hosts["b2"].state_dir / "connection.json").exists()
    same = fleet.caisson("b2", "join", "--api", fleet.api_url, "--token", str(file), CAISSON_HOST_NAME="b1")
    assert "a live host is called b1 already" in same.stderr
    for name, arguments, variables in (
        ("b2", ("--token", str(file)), {}),
        ("b3", (), {"CAISSON_JOIN_TOKEN": TOKEN}),
    ):
        joined = fleet.caisson(name, "join", "--api", fleet.api_url.removesuffix("/api"), *arguments, **variables)
        assert joined.returncode == 0, joined.stderr
        assert f"build-image/{name}" in joined.stdout
        assert TOKEN not in joined.stdout + joined.stderr
        connection = fleet.hosts[name].state_dir / "connection.json"
        assert stat.S_IMODE(connection.stat().st_mode) == 0o600
        assert json.loads(connection.read_text()) == {"api_url": fleet.api_url, "token": TOKEN}
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda name: fleet.hosts[name].up(), ("b2", "b3")))
    for name in ("b2", "b3"):
        processes = fleet.hosts[name].processes()
        assert not any("uvicorn" in command for command in processes.values())
        assert not any(TOKEN.split(":")[1] in command for command in processes.values())
    assert {name: state.state for name, state in fleet.states().items()} == dict.fromkeys(fleet.hosts, "online")
    shown = fleet.caisson("b3", "hosts")
    assert shown.returncode == 0, shown.stderr
    assert [line.split()[:2] for line in shown.stdout.splitlines()[1:4]] == [[name, "online"] for name in fleet.hosts]


def test_each_host_looks_after_itself_also_while_it_drains(fleet: Fleet) -> None:
    assert fleet.caisson("b3", "drain").returncode == 0
    with fleet.hosts["b1"].api as api:
        asked = {
            (flow, host): trigger_build(api, {}, deployment=f"{flow}/{host}")
            for flow in (MONITOR_FLOW, PRUNE_FLOW, AUDIT_FLOW)
            for host in fleet.hosts
        }
    for (flow, host), run in asked.items():
        state = fleet.hosts["b1"].wait_for_state(run, "Completed", "Failed", "Crashed", seconds=120)
        assert state.state_name == "Completed", (flow, host, state.message)
    assert fleet.caisson("b3", "undrain").returncode == 0
    workers = {run["id"]: run["labels"]["prefect.worker.name"] for run in fleet.runs(list(asked.values()))}
    assert {key: workers[run] for key, run in asked.items()} == {(flow, host): host for flow, host in asked}
    for name, host in fleet.hosts.items():
        # What each remembers is of its own disk and its own engine.
        assert {"disk.json", "audit.json"} <= {file.name for file in host.state_dir.iterdir()}
        plan = json.loads(plan_file(host.state_dir, asked[PRUNE_FLOW, name]).read_text())
        with DockerEngine(fleet.engines[name].docker_host) as engine:
            assert plan["engine"] == engine.info().id
    with fleet.hosts["b1"].api as api:
        pages = {page["key"] for page in api.post("/artifacts/latest/filter", {"limit": 200})}
    assert {f"{page}-{host}" for page in ("disk", "audit", "prune-plan") for host in fleet.hosts} <= pages


@pytest.mark.timeout(900)
def test_a_hundred_builds_on_three_hosts_none_lost_and_none_twice(
    fleet: Fleet, capsys: pytest.CaptureFixture[str]
) -> None:
    # Another try builds images of other names.
    first = next(FIRST_NUMBERS)
    began = time.monotonic()
    with ThreadPoolExecutor(4) as pool:
        asked = list(pool.map(fleet.build, range(first, first + BUILDS)))
    queued = time.monotonic() - began
    number_of = {run: number for number, run in enumerate(asked, first)}

    wait_until_ended(fleet, asked, 15)
    # A machine that is gone: nothing of it is told any more, and its builders stay as they are.
    going_on = wait_for(
        "b3 builds",
        lambda: [r["id"] for r in fleet.runs(asked) if r["state_type"] == "RUNNING" and host_of(r) == "b3"],
        seconds=300,
    )
    for pid in fleet.hosts["b3"].processes():
        os.kill(pid, signal.SIGKILL)
    killed = time.monotonic()
    wait_for("b3 is gone", lambda: fleet.states()["b3"].state == "offline")
    wait_for(
        "its runs are settled",
        lambda: all(run["state_type"] in FINAL for run in fleet.runs(asked) if run["id"] in going_on),
    )
    settled = time.monotonic() - killed
    # With the default of 30 s for a heartbeat that is within two minutes.
    assert settled < 3 * HEARTBEAT_SECONDS + 60
    drained = fleet.caisson("b2", "drain", "--wait")
    assert (drained.returncode, "b2 builds nothing" in drained.stdout) == (0, True), drained.stdout + drained.stderr
    by_b2 = {run["id"] for run in fleet.runs(asked) if host_of(run) == "b2"}
    assert fleet.states()["b2"].state == "draining"
    fleet.hosts["b3"].up()
    wait_until_ended(fleet, asked, 60)
    assert {run["id"] for run in fleet.runs(asked) if host_of(run) == "b2"} == by_b2
    assert fleet.caisson("b1", "undrain", "b2").returncode == 0
    wait_until_ended(fleet, asked, BUILDS)
    seconds = time.monotonic() - began
    runs = fleet.runs(asked)
    crashed = {run["id"] for run in runs if run["state_type"] == "CRASHED"}
    assert {run["state_type"] for run in runs} <= {"COMPLETED", "CRASHED"}
    assert crashed <= {run["id"] for run in runs if host_of(run) == "b3"}
    assert len(crashed) <= 2
    assert all("The host of this run is gone" in run["state"]["message"] for run in runs if run["id"] in crashed)
    # One image each, on one engine, but for those whose host went away under them.
    images = Counter(tag for _, tag in fleet.images())
    completed = {f"{IMAGES}-{number_of[run['id']]}:main" for run in runs if run["id"] not in crashed}
    assert {tag for tag in images if tag in completed} == completed
    assert all(images[tag] == 1 for tag in completed)
    began_twice = [run["id"] for run in runs if run["run_count"] > 1]
    assert began_twice == []
    spread = Counter(host_of(run) for run in runs)
    assert set(spread) == set(fleet.hosts)
    where: dict[str, set[str]] = {}
    for run in runs:
        where.setdefault(run["parameters"]["request"]["repository_url"], set()).add(host_of(run))
    with capsys.disabled():
        print(
            f"\n  {BUILDS} builds: asked in {queued:.1f} s, built in {seconds:.1f} s, by host "
            f"{dict(sorted(spread.items()))}, "
            f"{len(crashed)} crashed with their host and were settled after {settled:.1f} s; "
            f"a repository was built on {sum(map(len, where.values())) / len(where):.1f} hosts"
        )


def test_what_a_lost_host_had_left_is_gone_when_it_is_back(fleet: Fleet) -> None:
    with DockerEngine(fleet.engines["b3"].docker_host) as engine:
        wait_for("no builder is left", lambda: engine.list_containers({"caisson.host": "b3"}) == [], seconds=30)


def test_a_host_that_was_away_for_a_moment_loses_nothing_and_one_that_was_gone_ends_what_was_settled(
    fleet: Fleet, tmp_path: Path
) -> None:
    b2 = fleet.hosts["b2"]
    connection = {"CAISSON_API_URL": fleet.api_url, "CAISSON_API_AUTH": TOKEN}
    CaissonHost(b2.state_dir, "b2", b2.variables | connection).apply_samples()
    with fleet.hosts["b1"].api as api:
        run = trigger_build(api, {"seconds": 300, "marks": str(tmp_path)}, deployment="sample-sleep/b2")
    pid = started_pid(tmp_path)
    # Its worker hears and says nothing, as without a network; its run goes on.
    worker = b2.pid_of("deployments.worker_main")
    os.kill(worker, signal.SIGSTOP)
    try:
        time.sleep(HEARTBEAT_SECONDS * 1.5)
        os.kill(worker, signal.SIGCONT)
        time.sleep(HEARTBEAT_SECONDS * 2)
        assert fleet.runs([run])[0]["state_type"] == "RUNNING"
        os.kill(worker, signal.SIGSTOP)
        (gone,) = wait_for("the run is settled", lambda: [r for r in fleet.runs([run]) if r["state_type"] in FINAL])
        assert gone["state_type"] == "CRASHED"
        assert is_alive(pid)
    finally:
        os.kill(worker, signal.SIGCONT)
    wait_for("its process is ended", lambda: not is_alive(pid))
    assert fleet.runs([run])[0]["state_type"] == "CRASHED"


def test_the_queue_goes_on_after_a_restore_into_a_new_database(fleet: Fleet, tmp_path: Path) -> None:
    for name in fleet.hosts:
        assert fleet.caisson(name, "drain").returncode == 0
    for name in ("b3", "b2"):
        fleet.hosts[name].stop()
    waiting = fleet.build(100_000), fleet.build(100_001, host="b1")
    b1 = fleet.hosts["b1"]
    dump = tmp_path / "caisson.dump"
    assert b1.is_up
    names = {"caisson": "postgres", "caisson.dump": str(dump), "caisson_restored": "restored"}
    fleet.database.run(*documented("pg_dump", names))
    assert down(b1.settings, say=lambda _: None) == 0
    fleet.database.run(*documented("createdb", names))
    fleet.database.run(*documented("pg_restore", names))
    fleet.database.run("psql", "--dbname=postgres", "--command=DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    b1.variables["CAISSON_DATABASE_URL"] = fleet.database.url("restored")
    b1.up()
    assert {run["state_type"] for run in fleet.runs(list(waiting))} == {"SCHEDULED"}
    states = fleet.states()
    assert (states["b1"].state, states["b1"].queued, states["b1"].reason) == ("draining", 1, "host b1 drains")
    assert states["b2"].state in ("stopped", "offline")
    assert fleet.caisson("b1", "undrain").returncode == 0
    for run in waiting:
        assert b1.wait_for_state(run, "Completed", "Failed", "Crashed").state_name == "Completed"


def test_a_host_leaves_and_nothing_of_it_is_left(fleet: Fleet) -> None:
    left = fleet.caisson("b3", "leave")
    assert left.returncode == 0, left.stderr
    assert "b3" not in fleet.states()
    assert not (fleet.hosts["b3"].state_dir / "connection.json").exists()
    with fleet.hosts["b1"].api as api:
        named = {"deployments": {"name": {"any_": ["b3"]}}}
        assert api.post("/deployments/filter", named) == []
    again = fleet.caisson("b3", "leave")
    assert "has joined no others" in again.stderr
