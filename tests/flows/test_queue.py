"""Builds wait as Prefect's scheduled runs: equal ones join, newer pushes supersede. No worker serves the queue here."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import pytest

from caisson.errors import RequestInvalid, ServiceUnreachable
from caisson.queueing import Priority, Supersede, priority_of
from deployments.names import BUILD_FLOW
from deployments.prefect_api import PrefectApi
from deployments.queue import Enqueued, enqueue, withdraw
from deployments.queue_places import places
from deployments.server import client_environment
from deployments.state import StateDir
from deployments.trigger import FlowRunId, run_state
from tests.flows.caisson_host import ROOT, CaissonHost

DEPLOYMENT = f"{BUILD_FLOW}/nobody"
APPLY = """
from caisson.settings import load_settings
from deployments.apply import apply_flow, ensure_work_pool
from flows.build_image import build_image
ensure_work_pool(load_settings())
apply_flow(build_image, load_settings(), host="nobody", queue="nobody")
"""
SHA = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def deployed(caisson: CaissonHost) -> CaissonHost:
    """The Caisson that is up, with a deployment whose queue nobody serves."""
    env = client_environment(caisson.settings, StateDir(caisson.state_dir), caisson.env)
    subprocess.run([sys.executable, "-c", APPLY], env=env, cwd=ROOT, check=True)
    return caisson


@pytest.fixture
def api(deployed: CaissonHost) -> Iterator[PrefectApi]:
    with deployed.api as api:
        yield api


@pytest.fixture
def image(request: pytest.FixtureRequest) -> str:
    return f"queue/{request.node.name.split('[')[0].replace('_', '-')}"


def wanted(image: str, **fields: Any) -> dict[str, Any]:
    return {"repository_url": "https://git.example.com/team/app.git", "ref": "main", "image": image, **fields}


def ask(api: PrefectApi, request: dict[str, Any], **options: Any) -> Enqueued:
    return enqueue(api, request, deployment=DEPLOYMENT, **options)


def set_state(api: PrefectApi, run: FlowRunId, kind: str) -> None:
    api.post(f"/flow_runs/{run}/set_state", {"state": {"type": kind}, "force": True})


def test_an_equal_request_joins_the_one_that_waits(api: PrefectApi, image: str) -> None:
    first = ask(api, wanted(image))
    assert (first.created, first.joined) == (True, False)
    # Defaults written out are the same request; another tag is another one.
    second = ask(api, wanted(image, push=False, tags={"raw": []}))
    assert second == Enqueued(first.flow_run_id, created=False, joined=True)
    other = ask(api, wanted(image, tags={"raw": ["x"]}))
    assert other.created
    assert other.flow_run_id != first.flow_run_id


def test_a_branch_that_is_being_built_is_built_once_more(api: PrefectApi, image: str) -> None:
    first = ask(api, wanted(image))
    set_state(api, first.flow_run_id, "RUNNING")
    # The branch may mean another commit by now.
    second = ask(api, wanted(image))
    assert second.created
    assert ask(api, wanted(image)).flow_run_id == second.flow_run_id


@pytest.mark.parametrize("fields", [{"commit": SHA}, {"ref": SHA}])
def test_a_whole_commit_joins_the_build_that_runs(api: PrefectApi, image: str, fields: dict[str, str]) -> None:
    first = ask(api, wanted(image, **fields))
    for kind in ("PENDING", "RUNNING"):
        set_state(api, first.flow_run_id, kind)
        assert ask(api, wanted(image, **fields)) == Enqueued(first.flow_run_id, created=False, joined=True)
    set_state(api, first.flow_run_id, "COMPLETED")
    assert ask(api, wanted(image, **fields)).created


def test_those_who_ask_at_the_same_moment_get_one_run(deployed: CaissonHost, image: str) -> None:
    def one(_: int) -> Enqueued:
        with deployed.api as api:
            return ask(api, wanted(image))

    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(one, range(16)))
    assert len({answer.flow_run_id for answer in answers}) == 1
    assert sum(answer.created for answer in answers) == 1


def test_an_idempotency_key_means_one_run_for_ever(api: PrefectApi, image: str) -> None:
    first = ask(api, wanted(image), idempotency_key=f"{image}/1")
    set_state(api, first.flow_run_id, "COMPLETED")
    assert ask(api, wanted(image), idempotency_key=f"{image}/1") == Enqueued(first.flow_run_id, created=False)
    second = ask(api, wanted(image), idempotency_key=f"{image}/2")
    assert second.created
    # Who joined by a key gets that run by it also when it has ended.
    assert ask(api, wanted(image), idempotency_key=f"{image}/3").joined
    set_state(api, second.flow_run_id, "COMPLETED")
    assert ask(api, wanted(image), idempotency_key=f"{image}/3") == Enqueued(second.flow_run_id, created=False)


def test_the_higher_priority_of_those_who_joined_counts(api: PrefectApi, image: str) -> None:
    def priority(run: FlowRunId) -> Priority:
        return priority_of(api.get(f"/flow_runs/{run}")["tags"])

    run = ask(api, wanted(image), priority=Priority.LOW, tags=["caisson:origin=webhook/app"]).flow_run_id
    assert priority(run) is Priority.LOW
    ask(api, wanted(image), priority=Priority.HIGH)
    assert priority(run) is Priority.HIGH
    ask(api, wanted(image))
    assert priority(run) is Priority.HIGH
    run = api.get(f"/flow_runs/{run}")
    assert "caisson:origin=webhook/app" in run["tags"]
    assert run["parameters"]["request"]["image"] == image


def test_the_command_line_names_a_priority(deployed: CaissonHost, api: PrefectApi, image: str) -> None:
    request = ["https://git.example.com/team/app.git", "--image", image, "--detach", "--host", "nobody"]
    made = json.loads(deployed.cli("build", *request, "--priority", "high", "--json"))
    assert priority_of(api.get(f"/flow_runs/{made['flow_run_id']}")["tags"]) is Priority.HIGH


@pytest.mark.parametrize("superseding", ["queued", "running", "off"])
def test_a_newer_push_supersedes_older_ones(api: PrefectApi, image: str, superseding: Supersede) -> None:
    name = f"{image}-{superseding}"

    def push(commit: str, **fields: Any) -> FlowRunId:
        request = wanted(name, commit=commit * 40, **fields)
        return ask(api, request, supersede=True, superseding=superseding).flow_run_id

    running = push("a")
    set_state(api, running, "RUNNING")
    waiting, branch, by_hand = push("b"), push("c", ref="dev"), ask(api, wanted(name)).flow_run_id
    newest = ask(api, wanted(name, commit="d" * 40), supersede=True, superseding=superseding)
    # In the mode "running" the second push has cancelled the first already.
    assert newest.superseded == (() if superseding == "off" else (waiting,))
    state = run_state(api, waiting)
    if superseding == "off":
        assert state.state_type == "SCHEDULED"
    else:
        assert (state.state_type, newest.flow_run_id in state.message) == ("CANCELLED", True)
    state = run_state(api, running)
    assert state.state_type == ("CANCELLING" if superseding == "running" else "RUNNING")
    assert (waiting in state.message) is (superseding == "running")
    for other in (branch, by_hand, newest.flow_run_id):
        assert run_state(api, other).state_type == "SCHEDULED"


def push(api: PrefectApi, image: str, commit: str, asker: str = "webhook/app", **options: Any) -> Enqueued:
    return ask(api, wanted(image, commit=commit * 40), supersede=True, asker=asker, **options)


def test_a_push_that_comes_late_does_not_supersede_a_newer_one(api: PrefectApi, image: str) -> None:
    asked = datetime.now(UTC)
    newer = push(api, image, "b")
    late = push(api, image, "a", asked=asked)
    assert (late.created, late.superseded) == (True, ())
    assert push(api, image, "c").superseded == (late.flow_run_id, newer.flow_run_id)


def test_a_push_back_to_the_commit_that_runs_supersedes_what_waits_behind_it(api: PrefectApi, image: str) -> None:
    running = push(api, image, "a").flow_run_id
    set_state(api, running, "RUNNING")
    waiting = push(api, image, "b").flow_run_id
    assert push(api, image, "a") == Enqueued(running, created=False, joined=True, superseded=(waiting,))
    assert run_state(api, waiting).state_type == "CANCELLED"
    # Once another has begun behind it, the branch's tags are that one's, and a run of its own has to take them back.
    second = push(api, image, "c").flow_run_id
    set_state(api, second, "RUNNING")
    assert push(api, image, "a").created


def test_what_others_asked_for_too_is_superseded_by_no_push(api: PrefectApi, image: str) -> None:
    waiting = push(api, image, "a").flow_run_id
    assert ask(api, wanted(image, commit="a" * 40), asker="token/1").joined
    assert push(api, image, "b").superseded == ()
    assert withdraw(api, waiting, asker="token/1") is False
    assert len(push(api, image, "c").superseded) == 2


def test_a_build_ends_with_the_last_of_those_who_asked_for_it(api: PrefectApi, image: str) -> None:
    run = ask(api, wanted(image), asker="token/1").flow_run_id
    assert ask(api, wanted(image), asker="token/2").flow_run_id == run
    for _ in range(2):
        assert withdraw(api, run, asker="token/1") is False
    assert run_state(api, run).state_type == "SCHEDULED"
    assert withdraw(api, run, asker="token/2") is True
    assert run_state(api, run).state_type == "CANCELLED"


def test_what_can_not_be_asked_for_is_refused(api: PrefectApi, image: str) -> None:
    with pytest.raises(RequestInvalid, match="imag: "):
        ask(api, wanted(image, imag="x"))
    with pytest.raises(ServiceUnreachable, match="has no deployment build-image/no-host"):
        enqueue(api, wanted(image), deployment=f"{BUILD_FLOW}/no-host")


def test_the_place_and_why_a_build_waits_are_told(api: PrefectApi, deployed: CaissonHost, image: str) -> None:
    asked = {
        priority: ask(api, wanted(f"{image}-{priority}"), priority=priority).flow_run_id
        for priority in (Priority.LOW, Priority.NORMAL, Priority.HIGH)
    }
    told = {place.flow_run_id: place for place in places(api, deployed.settings)}
    ahead = [told[asked[priority]].ahead for priority in (Priority.HIGH, Priority.NORMAL, Priority.LOW)]
    assert ahead == sorted(ahead)
    assert len(set(ahead)) == 3
    assert {told[run].reason for run in asked.values()} == {"waits: host nobody is offline"}
