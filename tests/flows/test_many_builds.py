"""Many builds at once, many lines at once, and a trigger as the README shows it: over the API of a real Caisson."""

from __future__ import annotations

import json
import re
import sqlite3
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any

import pytest

from caisson.docker_engine import DockerEngine
from deployments.trigger import FlowRunId
from tests.conftest import find_engines
from tests.engine.repositories import GitDaemon, Repository, git_daemon
from tests.flows.caisson_host import ROOT, CaissonHost

BASE = "FROM debian:trixie-slim\n"
IMAGES = "caisson-flow/many"
LINES = 50_000
FINAL = ("Completed", "Failed", "Crashed", "Cancelled")


@pytest.fixture(scope="module")
def git(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GitDaemon]:
    with git_daemon(tmp_path_factory.mktemp("git"), find_engines()[0].gateway) as daemon:
        yield daemon
    with DockerEngine(find_engines()[0].docker_host) as engine:
        for tag in [tag for image in engine.list_images() for tag in image.tags if tag.startswith(IMAGES)]:
            engine.untag_image(tag)


def build(host: CaissonHost, repository: Repository, image: str, **request: Any) -> FlowRunId:
    body = {"repository_url": repository.url, "image": image, "limits": {"memory": "256m"}, **request}
    return host.trigger("build-image", request=body)


def reports(host: CaissonHost, runs: list[FlowRunId]) -> list[dict[str, Any]]:
    return [json.loads((host.state_dir / "builds" / f"{run}.json").read_text()) for run in runs]


def builders(host: CaissonHost) -> list[str]:
    with DockerEngine(find_engines()[0].docker_host) as engine:
        return [container.name for container in engine.list_containers({"caisson.host": host.name})]


def image_id(reference: str) -> str:
    with DockerEngine(find_engines()[0].docker_host) as engine:
        image = engine.inspect_image(reference)
    return image.id if image else ""


def test_ten_builds_at_once_all_end_well_each_once(
    caisson: CaissonHost, git: GitDaemon, capsys: pytest.CaptureFixture[str]
) -> None:
    repositories = [git.repository(f"tenth{n}", {"Dockerfile": f"{BASE}COPY n /n\n", "n": f"{n}"}) for n in range(10)]
    began = time.monotonic()
    with ThreadPoolExecutor(10) as pool:
        runs = list(pool.map(lambda n: build(caisson, repositories[n], f"{IMAGES}-{n}", no_cache=True), range(10)))
    states = [caisson.wait_for_state(run, *FINAL, seconds=180) for run in runs]
    with capsys.disabled():
        print(f"\n  ten builds at once, {caisson.settings.concurrency} at a time: {time.monotonic() - began:.1f} s")
    assert [state.state_name for state in states] == ["Completed"] * 10
    # None twice: each began once, and the ledger knows of one image a run.
    assert [Counter(caisson.history(run))["Running"] for run in runs] == [1] * 10
    made = reports(caisson, runs)
    assert [report["outcome"] for report in made] == ["built"] * 10
    urls = [repository.url for repository in repositories]
    with sqlite3.connect(caisson.state_dir / "ledger.sqlite") as ledger:
        rows = ledger.execute("SELECT repository_url, build_id FROM builds WHERE repository_url LIKE '%/tenth%'")
        assert dict(rows.fetchall()) == dict(zip(urls, [report["build_id"] for report in made], strict=True))
    assert [image_id(f"{IMAGES}-{n}:main") for n in range(10)] == [report["image_id"] for report in made]
    assert builders(caisson) == []


def test_a_repository_with_many_builds_lets_another_one_in_between(
    caisson: CaissonHost, git: GitDaemon, capsys: pytest.CaptureFixture[str]
) -> None:
    busy, rare = (git.repository(name, {"Dockerfile": f"{BASE}RUN sleep 1\n"}) for name in ("busy", "rare"))
    many = [build(caisson, busy, f"{IMAGES}-busy-{n}", no_cache=True) for n in range(12)]
    few = [build(caisson, rare, f"{IMAGES}-rare-{n}", no_cache=True) for n in range(2)]
    for run in (*many, *few):
        assert caisson.wait_for_state(run, *FINAL, seconds=180).state_name == "Completed"
    with caisson.api as api:
        came = {run: datetime.fromisoformat(api.get(f"/flow_runs/{run}")["created"]) for run in few}
    # Not when their processes began: on a busy machine one that was taken later may be the first to run.
    taken = {run: caisson.when(run, "Pending") for run in (*many, *few)}
    between = [sum(came[run] < taken[other] < taken[run] for other in many) for run in few]
    with capsys.disabled():
        print(f"\n  before the two builds that came last, of another repository, {between} of the twelve were taken")
    # At most those that were being taken as they came; from then on the repositories take turns. In the order in which
    # they came it would have been all that were left.
    assert between[0] <= caisson.settings.concurrency
    assert between[1] <= caisson.settings.concurrency + 2


def test_the_same_build_twice_at_once_is_no_conflict(caisson: CaissonHost, git: GitDaemon) -> None:
    repository = git.repository("twin", {"Dockerfile": BASE + "RUN sleep 1 && date +%N > /twin\n"})
    with ThreadPoolExecutor(2) as pool:
        runs = list(pool.map(lambda _: build(caisson, repository, f"{IMAGES}-twin"), range(2)))
    states = [caisson.wait_for_state(run, *FINAL, seconds=180) for run in runs]
    assert [state.state_name for state in states] == ["Completed"] * 2
    assert image_id(f"{IMAGES}-twin:main") in {report["image_id"] for report in reports(caisson, runs)}
    assert builders(caisson) == []


def test_50_000_lines_are_complete_and_in_order_in_prefects_log(
    caisson: CaissonHost, git: GitDaemon, capsys: pytest.CaptureFixture[str]
) -> None:
    repository = git.repository("lines", {"Dockerfile": f"{BASE}RUN seq -f 'number %06g' 1 {LINES}\n"})
    began = time.monotonic()
    run = build(caisson, repository, f"{IMAGES}-lines", no_cache=True)
    caisson.wait_for_state(run, *FINAL, seconds=120)
    ended = time.monotonic()
    messages: list[str] = []
    with caisson.api as api:
        while not any(message.startswith("Finished in state") for message in messages[-5:]):
            assert time.monotonic() - ended < 60, len(messages)
            messages = _messages(api, run)
    visible = time.monotonic()
    (report,) = reports(caisson, [run])
    seconds = next(step["seconds"] for step in report["steps"] if step["name"] == "build")
    with capsys.disabled():
        print(
            f"\n  {LINES:,} lines in {len(messages)} messages: build step {seconds:.1f} s, whole run "
            f"{ended - began:.1f} s, the last line in Prefect {visible - ended:.1f} s later"
        )
    numbers = re.findall(r"^number \d{6}$", "\n".join(messages), re.MULTILINE)
    assert numbers == [f"number {number:06}" for number in range(1, LINES + 1)]
    assert ended - began < 60


def _messages(api: Any, run: FlowRunId) -> list[str]:
    """All messages of the run, in Prefect's own order."""
    messages: list[str] = []
    wanted = {"logs": {"flow_run_id": {"any_": [str(run)]}}, "sort": "TIMESTAMP_ASC", "limit": 200}
    while page := api.post("/logs/filter", {**wanted, "offset": len(messages)}):
        messages += [log["message"] for log in page]
    return messages


def test_the_readmes_way_to_trigger_a_build_works_as_it_stands(caisson: CaissonHost, git: GitDaemon) -> None:
    """With this host's address, names and repository in the place of the example's."""
    blocks = re.findall(r"^```console\n(.*?)^```$", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    (example,) = [block for block in blocks if "create_flow_run" in block]
    repository = git.repository("readme", {"Dockerfile": BASE + "LABEL read=me\n"})
    places = {
        "127.0.0.1:4200": f"127.0.0.1:{caisson.settings.server_port}",
        "$(hostname)": caisson.name,
        "https://example.com/team/app.git": repository.url,
        "team/app": f"{IMAGES}-readme",
    }
    for ours, theirs in places.items():
        assert ours in example
        example = example.replace(ours, theirs)
    done = subprocess.run(["bash", "-euo", "pipefail", "-c", example], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert caisson.wait_for_state(FlowRunId(done.stdout.strip()), *FINAL).state_name == "Completed"
    assert image_id(f"{IMAGES}-readme:main")
