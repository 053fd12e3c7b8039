"""Prunes by a real Caisson on a real engine with a disk of its own: by schedule, by hand and under pressure."""

from __future__ import annotations

import json
import os
import re
import secrets
import sqlite3
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from caisson.docker_engine import DockerEngine
from caisson.leases import Leases
from caisson.ledger import Ledger, Prune
from caisson.prune_files import plan_file, report_file
from caisson.prune_report import report_from_json
from caisson.retention.plan_json import plan_from_json
from deployments.names import prune_deployment
from deployments.tether import tethered
from deployments.trigger import FlowRunId, RunChanged
from tests.conftest import find_engines
from tests.engine.repositories import Repository, git
from tests.flows.caisson_host import CaissonHost, free_port, wait_for
from tests.full_disks import fill
from tests.own_engine import OwnEngine, copy_image, own_engine

ADDRESS = "10.231.83.1"
IMAGE = "caisson-flow/pruned"
# It is on the engine anyway, and brings a shell.
BASE = "FROM caisson-builder:latest\n"
MIB = 1 << 20
SCHEDULER_SECONDS = 180.0
# All but the newest image of a repository has had its time at once.
RETENTION = {
    "otherwise": {"keep_last": 1, "max_age": "0s", "min_age": "0s"},
    "allow_unrecoverable": True,
    "keep_deployed": 0,
    "build_cache": {"max_used_space": ""},
}


@dataclass
class Pruned:
    """A Caisson on an engine of its own, whose disk has 2 GiB."""

    caisson: CaissonHost
    engine: OwnEngine
    repository: Repository

    def build(self, run_step: str = "true", **request: Any) -> FlowRunId:
        """Start the build of an image that is like no other."""
        content = f"{run_step} && echo {uuid.uuid4()} && head -c 1000000 /dev/urandom > /tmp/blob"
        self.repository.commit({"Dockerfile": f"{BASE}RUN {content}\n"})
        body = {"repository_url": self.repository.url, "image": IMAGE, "limits": {"memory": "256m"}, **request}
        return self.caisson.trigger("build-image", request=body)

    def built(self, **request: Any) -> str:
        """Build one, and give the name that nothing else will get."""
        run = self.build(**request)
        self.ends(run, "Completed")
        return f"{IMAGE}:sha-{git(self.repository.directory, 'rev-parse', 'HEAD')}"

    def ends(self, run: FlowRunId, *names: str) -> RunChanged:
        state = self.caisson.wait_for_state(run, "Completed", "Failed", "Crashed", "Cancelled", seconds=120)
        assert state.state_name in names, state
        return state

    def prune(self, **parameters: Any) -> FlowRunId:
        return self.caisson.trigger("prune-images", **parameters)

    def look(self) -> None:
        self.ends(self.caisson.trigger("monitor-disk"), "Completed")

    @property
    def tags(self) -> set[str]:
        with DockerEngine(self.engine.host.docker_host) as docker:
            found = {tag for image in docker.list_images() for tag in image.tags}
        return {tag for tag in found if re.fullmatch(f"{IMAGE}:sha-[0-9a-f]{{40}}", tag)}

    @property
    def ledger(self) -> Path:
        return self.caisson.state_dir / "ledger.sqlite"

    def prunes(self) -> list[Prune]:
        return Ledger(self.ledger).prunes.list()

    def filtered(self, what: str, **conditions: Any) -> list[dict[str, Any]]:
        with self.caisson.api as api:
            found: list[dict[str, Any]] = api.post(f"/{what}/filter", conditions)
        return found

    def events(self, name: str) -> list[dict[str, Any]]:
        with self.caisson.api as api:
            found: list[dict[str, Any]] = api.post("/events/filter", {"filter": {"event": {"name": [name]}}})["events"]
        return found

    def forget_pause(self) -> None:
        """As if the last prune had been ten minutes ago, so that pressure starts one at once."""
        state = self.caisson.state_dir / "disk.json"
        state.write_text(json.dumps(json.loads(state.read_text()) | {"prune_asked": None}))
        back = timedelta(minutes=11) // timedelta(microseconds=1)
        with sqlite3.connect(self.ledger, timeout=30) as database:
            database.execute("UPDATE prunes SET started = started - ?, ended = ended - ?", (back, back))

    def log(self, run: FlowRunId) -> str:
        lines = self.filtered("logs", logs={"flow_run_id": {"any_": [run]}}, sort="TIMESTAMP_ASC")
        return "\n".join(line["message"] for line in lines)

    def docker(self, *arguments: str) -> str:
        command = ["docker", "-H", self.engine.host.docker_host, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture(scope="module")
def pruned(caisson: CaissonHost, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pruned]:
    root, port = tmp_path_factory.mktemp("git"), free_port()
    (directory := root / "app").mkdir()
    git(directory, "init", "--quiet", "--initial-branch=main")
    with own_engine(ADDRESS, disk_bytes=2 << 30) as engine:
        copy_image("caisson-builder", find_engines()[0], engine.host)
        host = CaissonHost(
            tmp_path_factory.mktemp("pruned"),
            f"pruned-{os.getpid()}",
            {
                "CAISSON_DOCKER_HOST": engine.host.docker_host,
                "CAISSON_GUARD_DIR": f"{engine.directory}/guard",
                "CAISSON_MIN_FREE_BYTES": "64m",
                "CAISSON_DISK_LOW": "400m free",
                "CAISSON_DISK_HIGH": "300m free",
                "CAISSON_DISK_CRITICAL": "10m free",
                # Only what is done with it is to find what was left behind.
                "CAISSON_POLL_SECONDS": "600",
                "CAISSON_PRUNE_SECONDS": str(30 * 86_400),
                "CAISSON_PRUNE_ON_PRESSURE": "true",
                "CAISSON_RETENTION": json.dumps(RETENTION),
            },
        )
        options = ["--reuseaddr", "--export-all", f"--base-path={root}", f"--listen={ADDRESS}", f"--port={port}"]
        command = tethered(engine.inside("git", "daemon", *options))
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as daemon:
            host.copy_database(caisson)
            host.up()
            try:
                yield Pruned(host, engine, Repository(directory, f"git://{ADDRESS}:{port}/app/.git"))
            finally:
                host.stop()
                daemon.kill()


@pytest.fixture(scope="module")
def images(pruned: Pruned) -> tuple[str, str, str]:
    """Three images of one repository: one that a container has, one that has had its time, and the newest."""
    # To the first look all that is there is equally new.
    pruned.ends(pruned.prune(), "Completed")
    in_use, expired, newest = pruned.built(), pruned.built(), pruned.built()
    pruned.docker("create", "--name", "user", in_use)
    return in_use, expired, newest


def test_by_hand_it_is_a_dry_run_whose_page_says_what_would_go(pruned: Pruned, images: tuple[str, str, str]) -> None:
    run = pruned.prune()
    state = pruned.ends(run, "Completed")
    assert state.message.startswith("A dry run: nothing was removed. Would remove 1 image: about ")
    assert pruned.tags == set(images)
    assert pruned.prunes() == []
    (page,) = pruned.filtered("artifacts", artifacts={"flow_run_id": {"any_": [run]}})
    assert page["key"] == f"prune-plan-{pruned.caisson.name}"
    assert "![Bytes by rule](data:image/svg+xml;base64," in page["data"]
    assert "`expired`" in page["data"]
    plan = plan_from_json(plan_file(pruned.caisson.state_dir, run).read_text())
    (item,) = [item for item in plan.items if item.kind == "image"]
    assert images[1] in item.image.tags
    assert {kept.rule for kept in plan.kept if IMAGE in " ".join(kept.image.tags)} == {"in-use", "keep-last"}
    assert report_from_json(report_file(pruned.caisson.state_dir, run).read_text()).dry_run


def test_a_policy_that_was_filled_in_and_not_switched_on_is_not_passed_over(pruned: Pruned) -> None:
    state = pruned.ends(pruned.prune(policy={"keep_deployed": 7}), "Failed")
    assert "Switch own_policy on" in state.message


def test_another_prune_that_is_under_way_is_no_failure(pruned: Pruned, images: tuple[str, str, str]) -> None:
    leases = Leases(pruned.caisson.state_dir / "leases", Ledger(pruned.ledger).leases)
    with leases.only_prune() as mine:
        assert mine
        state = pruned.ends(pruned.prune(dry_run=False), "Completed")
    assert state.message == "Another prune of this host is under way."
    assert pruned.tags == set(images)


def test_what_a_dead_build_left_goes_first_and_nobody_elses(pruned: Pruned, images: tuple[str, str, str]) -> None:
    dead = pruned.prune()
    pruned.ends(dead, "Completed")
    past = (datetime.now(UTC) - timedelta(hours=1)).isoformat(timespec="seconds")

    def builder(run: str, deadline: str = past) -> str:
        build = secrets.token_hex(6)
        name, host = f"caisson-build-{build}", pruned.caisson.name
        labels = {"build": build, "flow-run": run, "deadline": deadline, "host": host}
        options = [f"--label=caisson.{key}={value}" for key, value in labels.items()]
        pruned.docker("create", f"--name={name}", *options, "caisson-builder:latest")
        return name

    def told(run: FlowRunId, *names: str) -> bool:
        wait_for("the end of its log", lambda: "Finished in state" in pruned.log(run))
        return any(f"{name} was left behind by a dead build" in pruned.log(run) for name in names)

    later = (datetime.now(UTC) + timedelta(hours=1)).isoformat(timespec="seconds")
    other = builder("not-a-run")
    leases = Leases(pruned.caisson.state_dir / "leases", Ledger(pruned.ledger).leases)
    made: list[str] = [other]
    try:
        for dry_run in (True, *[False] * 10):
            left, early = builder(dead), builder(dead, later)
            made += [left, early]
            with nullcontext() if dry_run else leases.only_prune():
                run = pruned.prune(dry_run=dry_run)
                pruned.ends(run, "Completed")
            names = pruned.docker("ps", "-a", "--format", "{{.Names}}").split()
            assert {other, "user"} <= set(names)
            assert not told(run, other, early)
            if dry_run:
                assert not told(run, left)
                continue
            assert left not in names
            # Every ten seconds the worker looks for what its dead runs have left, due or not, and it may come first.
            if told(run, left) and early in names:
                break
        else:
            pytest.fail("The worker came first each time.")
    finally:
        for name in made:
            with suppress(subprocess.CalledProcessError):
                pruned.docker("rm", name)


def test_the_schedule_prunes_what_has_expired_and_keeps_what_is_protected(
    pruned: Pruned, images: tuple[str, str, str]
) -> None:
    in_use, expired, newest = images
    with pruned.caisson.api as api:
        deployment = api.get(f"/deployments/name/{prune_deployment(pruned.caisson.settings)}")
        (schedule,) = deployment["schedules"]
        assert schedule["parameters"] == {"dry_run": False}
        assert schedule["schedule"]["interval"] == 30 * 86_400
        path = f"/deployments/{deployment['id']}/schedules/{schedule['id']}"
        # Prefect empties the parameters of a schedule that is changed without them.
        often = {
            "schedule": {"interval": 30.0, "anchor_date": "2026-01-01T00:00:00Z"},
            "parameters": schedule["parameters"],
        }
        api._call("PATCH", path, often)
        try:
            # The worker's poll is too slow here; what starts a run wakes it.
            wait_for("a prune", lambda: pruned.look() or expired not in pruned.tags, seconds=SCHEDULER_SECONDS)
        finally:
            api._call("PATCH", path, {"active": False})
    (prune,) = wait_for("its end", lambda: [item for item in pruned.prunes() if item.ended][-1:])
    assert (prune.trigger, prune.outcome) == ("the schedule", "done")
    assert pruned.tags == {in_use, newest}
    pages = wait_for(
        "its page",
        lambda: pruned.filtered("artifacts", artifacts={"key": {"like_": "prune-report-"}}, sort="CREATED_DESC"),
    )
    assert "Removed 1 of 1 planned" in pages[-1]["data"]
    run = FlowRunId(pages[-1]["flow_run_id"])
    report = report_from_json(report_file(pruned.caisson.state_dir, run).read_text())
    assert (report.id, report.counts) == (prune.id, {"removed": 1})
    assert f"({', '.join(report.results[0].item.image.tags)})" in pruned.log(run)  # type: ignore[union-attr]
    assert newest not in pruned.log(run)
    wait_for("the event", lambda: pruned.events("caisson.prune.finished"))


def test_a_prune_of_the_command_line_is_told_to_prefect_too(pruned: Pruned, tmp_path: Path) -> None:
    (policy := tmp_path / "policy.toml").write_text('keep = ["**"]\n')
    pruned.caisson.cli("prune", "--apply", "--yes", "--policy", str(policy))
    prune = pruned.prunes()[0]
    assert prune.trigger == "the command line"
    told = wait_for(
        "the event",
        lambda: [e for e in pruned.events("caisson.prune.finished") if e["payload"].get("prune") == prune.id],
    )
    assert told[0]["resource"]["prefect.resource.id"] == f"caisson.host.{pruned.caisson.name}"


def test_a_prune_while_a_build_runs_does_not_break_it(pruned: Pruned, images: tuple[str, str, str]) -> None:
    build = pruned.build("echo it-goes-on && sleep 25")
    log = pruned.caisson.state_dir / "builds" / f"{build}.log"
    wait_for("its RUN step", lambda: log.exists() and "it-goes-on" in log.read_text())
    pruned.ends(pruned.prune(dry_run=False, under_pressure=True), "Completed")
    assert pruned.caisson.state(build).state_name == "Running"
    pruned.ends(build, "Completed")
    assert f"{IMAGE}:sha-{git(pruned.repository.directory, 'rev-parse', 'HEAD')}" in pruned.tags


def test_it_is_told_when_no_prune_succeeds_and_when_one_does_again(
    pruned: Pruned, images: tuple[str, str, str]
) -> None:
    pruned.look()
    state = pruned.caisson.state_dir / "disk.json"
    remembered = json.loads(state.read_text())
    assert remembered["replayed"]
    remembered["prunes_expected"] = (datetime.now(UTC) - timedelta(days=100)).isoformat()
    remembered["prune_succeeded"] = (datetime.now(UTC) - timedelta(days=61)).isoformat()
    state.write_text(json.dumps(remembered))
    back = timedelta(days=61) // timedelta(microseconds=1)
    with sqlite3.connect(pruned.ledger, timeout=30) as database:
        database.execute("UPDATE prunes SET started = started - ?, ended = ended - ?", (back, back))
    pruned.look(), pruned.look()
    (overdue,) = wait_for("the alarm", lambda: pruned.events("caisson.prune.overdue"))
    assert "has succeeded for 61 days; one is expected every 30 days" in overdue["payload"]["message"]
    pruned.ends(pruned.prune(dry_run=False), "Completed")
    pruned.look(), pruned.look()
    wait_for("its end", lambda: pruned.events("caisson.prune.recovered"))
    assert [len(pruned.events(f"caisson.prune.{name}")) for name in ("overdue", "recovered")] == [1, 1]


def test_a_disk_that_is_full_to_the_last_byte_recovers_by_itself(pruned: Pruned, images: tuple[str, str, str]) -> None:
    large, _ = pruned.built(run_step="head -c 600000000 /dev/urandom > /tmp/large"), pruned.built()
    pruned.look()
    filler = pruned.engine.data_root / "filler"
    begun = datetime.now(UTC)
    try:
        fill(filler, os.statvfs(pruned.engine.data_root).f_bavail * 4096)
        pruned.look(), pruned.look()
        wait_for("the event", lambda: pruned.events("caisson.disk.critical"))
        (run,) = pruned.filtered("flow_runs", flow_runs={"tags": {"all_": ["disk-pressure"]}})
        pruned.ends(FlowRunId(run["id"]), "Completed")
        pruned.look(), pruned.look()
        wait_for("the event", lambda: pruned.events("caisson.disk.recovered"))
    finally:
        filler.unlink()
    assert large not in pruned.tags
    (prune,) = [item for item in pruned.prunes() if item.started >= begun]
    assert (prune.trigger, prune.outcome) == ("the disk's pressure", "target-reached")
    pruned.look(), pruned.look()


def test_pressure_starts_a_prune_once_and_what_is_missing_is_told(pruned: Pruned, images: tuple[str, str, str]) -> None:
    expired, _ = pruned.built(), pruned.built()
    pruned.forget_pause()
    usage = os.statvfs(pruned.engine.data_root)
    filler = pruned.engine.data_root / "filler"
    with filler.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, usage.f_bavail * usage.f_frsize - 200 * MIB)
    begun = datetime.now(UTC)
    try:
        pruned.look(), pruned.look(), pruned.look()
        tagged = {"flow_runs": {"tags": {"all_": ["disk-pressure"]}}, "sort": "EXPECTED_START_TIME_DESC"}
        run, _ = pruned.filtered("flow_runs", **tagged)
        pruned.ends(FlowRunId(run["id"]), "Completed")
        pruned.look()
        assert len(pruned.filtered("flow_runs", **tagged)) == 2, "another one only after ten minutes"
    finally:
        filler.unlink()
    assert expired not in pruned.tags
    (prune,) = [item for item in pruned.prunes() if item.started >= begun]
    assert (prune.trigger, prune.outcome) == ("the disk's pressure", "short")
    short = wait_for("the event", lambda: pruned.events("caisson.prune.short"))
    assert "could not reach the low threshold" in short[0]["payload"]["message"]
