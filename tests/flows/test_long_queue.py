"""A queue that no host can serve: builds are asked for by many at once, and all are accepted, each once.

A thousand are the bench's (tests/bench_api.py). The worker is up and its engine is down, so that builds wait as they do
then: nothing is paused for the test's sake.
"""

from __future__ import annotations

import time
import uuid
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from caisson.tokens import make_grant
from deployments.gateway import answers, gateway_url
from deployments.token_store import TokenStore
from tests.flows.caisson_host import CaissonHost, free_port, wait_for

BUILDS, CALLERS = 300, 6
READ_SECONDS = 10.0


@pytest.fixture(scope="module")
def stuck(tmp_path_factory: pytest.TempPathFactory, caisson: CaissonHost) -> Iterator[CaissonHost]:
    """A Caisson that takes no build."""
    directory = tmp_path_factory.mktemp("long")
    variables = {
        "CAISSON_DOCKER_HOST": f"unix://{directory}/no-engine.sock",
        "CAISSON_GATEWAY_PORT": str(free_port()),
        "CAISSON_GATEWAY_RATE": "10000",
        "CAISSON_POLL_SECONDS": "2",
    }
    host = CaissonHost(directory / "state", "stuck", variables)
    host.copy_database(caisson)
    try:
        host.up()
        wait_for("the API answers", lambda: answers(gateway_url(host.settings)))
        yield host
    finally:
        host.stop()


@pytest.fixture(scope="module")
def client(stuck: CaissonHost) -> Iterator[httpx.Client]:
    name = f"many-{uuid.uuid4().hex[:8]}"
    token, _ = TokenStore.of(stuck.settings).create(name, make_grant(["build", "read"]), lifetime=None)
    headers = {"Authorization": f"Bearer {token}"}
    with httpx.Client(base_url=gateway_url(stuck.settings), headers=headers, timeout=60) as client:
        yield client


def ask(client: httpx.Client, name: str) -> httpx.Response:
    body = {"repository_url": f"https://example.com/team/{name}.git", "image": "team/app"}
    return client.post("/api/builds", json=body, headers={"Idempotency-Key": name})


def all_builds(client: httpx.Client) -> list[dict[str, str]]:
    found: list[dict[str, str]] = []
    cursor = ""
    while True:
        page = client.get("/api/builds", params={"limit": 200, "cursor": cursor}).json()
        found += page["builds"]
        if not (cursor := page["next"]):
            return found


@pytest.mark.timeout(400)
def test_hundreds_of_builds_are_accepted_at_once_each_once(
    stuck: CaissonHost, client: httpx.Client, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [f"app-{uuid.uuid4().hex}" for _ in range(BUILDS)]
    began = time.monotonic()
    with ThreadPoolExecutor(CALLERS) as callers:
        told = list(callers.map(lambda name: ask(client, name), names))
    seconds = time.monotonic() - began
    with capsys.disabled():
        print(f"\n  {BUILDS} builds accepted in {seconds:.0f} s, {BUILDS / seconds:.0f} a second", end="")
    assert Counter(answer.status_code for answer in told) == {202: BUILDS}
    asked = [answer.json() for answer in told]
    assert [build for build in asked if build["joined"]] == []
    began = time.monotonic()
    client.get("/api/builds").raise_for_status()
    assert time.monotonic() - began < READ_SECONDS
    with stuck.api as api:
        late = {"flow_runs": {"state": {"name": {"any_": ["Late"]}}}}
        assert api.post("/flow_runs/count", late) == 0
    ids = {build["id"] for build in asked}
    listed = [build for build in all_builds(client) if build["id"] in ids]
    assert len(listed) == len(ids) == BUILDS
    assert Counter(build["state"] for build in listed) == {"queued": BUILDS}
    # Who asks again, because an answer was lost, gets the same build.
    again = [ask(client, name).json() for name in names[:10]]
    assert [build["id"] for build in again] == [build["id"] for build in asked[:10]]
    assert all(build["joined"] for build in again)
