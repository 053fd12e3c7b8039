"""Caisson's own API on a real Caisson: builds asked for, followed, limited, cancelled, and what a crash leaves."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from caisson.docker_engine import DockerEngine
from caisson.queueing import Priority, priority_of
from caisson.tokens import make_grant
from deployments.gateway import answers, gateway_url
from deployments.token_store import TokenStore
from tests.conftest import find_engines
from tests.engine.repositories import GitDaemon, Repository, git_daemon
from tests.flows.caisson_host import ROOT, CaissonHost, wait_for
from tests.flows.log_events import events, lines, never

BASE = "FROM debian:trixie-slim\n"
IMAGES = "caisson-flow/api"
SECONDS = 120.0
Connect = Callable[..., httpx.Client]


@pytest.fixture(scope="module")
def git(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GitDaemon]:
    with git_daemon(tmp_path_factory.mktemp("git"), find_engines()[0].gateway) as daemon:
        yield daemon
    with DockerEngine(find_engines()[0].docker_host) as engine:
        for tag in [tag for image in engine.list_images() for tag in image.tags if tag.startswith(IMAGES)]:
            engine.untag_image(tag)


@pytest.fixture(scope="module")
def connect(caisson: CaissonHost) -> Iterator[Connect]:
    """Makes a client with a token of its own: its scopes, and limits by ``images=`` and ``repositories=``."""
    wait_for("the API answers", lambda: answers(gateway_url(caisson.settings)))
    clients = []

    def connected(*scopes: str, **limits: list[str]) -> httpx.Client:
        name = f"test {len(clients)}"
        token, _ = TokenStore.of(caisson.settings).create(name, make_grant(scopes, **limits), lifetime=None)
        headers = {"Authorization": f"Bearer {token}", "X-Test-Token-Name": name}
        clients.append(httpx.Client(base_url=gateway_url(caisson.settings), headers=headers, timeout=60))
        return clients[-1]

    yield connected
    for client in clients:
        client.close()


@pytest.fixture(scope="module")
def client(connect: Connect) -> httpx.Client:
    return connect("build", "read")


def ask(client: httpx.Client, repository: Repository | str, image: str, **more: Any) -> httpx.Response:
    headers, params = more.pop("headers", {}), more.pop("params", {})
    url = repository if isinstance(repository, str) else repository.url
    body = {"repository_url": url, "image": f"{IMAGES}/{image}", "limits": {"memory": "256m"}, **more}
    return client.post("/api/builds", json=body, headers=headers, params=params)


def build_of(answer: httpx.Response, status: int = 202) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    build: dict[str, Any] = answer.json()
    return build


def wait_until(client: httpx.Client, build: str, *states: str, seconds: float = SECONDS) -> dict[str, Any]:
    def probe() -> dict[str, Any] | None:
        found: dict[str, Any] = client.get(f"/api/builds/{build}").json()
        return found if found["state"] in states else None

    found = wait_for(f"the build is {states}", probe, seconds=seconds)
    assert found is not None
    return found


def test_a_build_is_asked_for_and_followed_through_a_broken_connection(client: httpx.Client, git: GitDaemon) -> None:
    steps = "RUN for i in 1 2 3 4 5 6 7 8 9 10 11 12; do echo number-$i; sleep 0.3; done\n"
    repository = git.repository("api-follow", {"Dockerfile": BASE + steps})
    answer = ask(client, repository, "follow")
    build = build_of(answer)
    assert answer.headers["Location"] == f"/api/builds/{build['id']}"
    assert build["state"] in ("queued", "starting", "running")
    assert build["joined"] is False
    first = events(client, build["id"], until=lambda seen: "number-3" in lines(seen))
    assert "number-12" not in lines(first)
    position = [event["id"] for event in first if event["id"]][-1]
    # Where the connection broke in the midst of the build, the rest comes, and nothing twice.
    rest = events(client, build["id"], position, until=never)
    text = client.get(f"/api/builds/{build['id']}/log", headers={"Accept": "text/plain"})
    assert text.headers["content-type"].startswith("text/plain")
    assert lines(first) + lines(rest) == text.text
    assert text.text.count("number-12") >= 1
    states = [json.loads(event["data"]) for event in first + rest if event["event"] == "state"]
    assert "build" in {state["step"] for state in states}
    end = json.loads(rest[-1]["data"])
    assert (rest[-1]["event"], rest[-1]["id"], end["state"]) == ("end", "end", "succeeded")
    assert end["report"]["outcome"] == "built"
    over = client.get(f"/api/builds/{build['id']}/log", headers={"Accept": "text/event-stream", "Last-Event-ID": "end"})
    assert over.status_code == 204
    told = client.get(f"/api/builds/{build['id']}").json()
    assert (told["state"], told["report"]["image"], told["failure"]) == ("succeeded", f"{IMAGES}/follow", None)


def test_a_build_that_was_refused_has_its_log_and_its_failure(client: httpx.Client, git: GitDaemon) -> None:
    build = build_of(ask(client, git.repository("api-ref", {"Dockerfile": BASE}), "ref", ref="not-there"))
    seen = events(client, build["id"], until=never)
    end = json.loads(seen[-1]["data"])
    assert (end["state"], end["failure"]["kind"]) == ("failed", "ref-not-found")


def test_the_same_key_is_the_same_build(connect: Connect, git: GitDaemon) -> None:
    one, other = connect("build"), connect("build")
    repository = git.repository("api-key", {"Dockerfile": BASE + "LABEL key=1\n"})
    headers = {"Idempotency-Key": "commit-4711"}
    first = build_of(ask(one, repository, "key", headers=headers))
    again = build_of(ask(one, repository, "key", headers=headers))
    assert (first["joined"], again["joined"]) == (False, True)
    assert first["id"] == again["id"]
    reused = ask(one, repository, "another", headers=headers)
    assert reused.status_code == 422
    assert reused.json()["type"] == "urn:caisson:problem:key-reused"
    elsewhere = ask(one, repository, "key", headers=headers, params={"host": "any"})
    assert elsewhere.status_code == 422
    assert elsewhere.json()["detail"] == "Idempotency-Key: it was used before, for another host; take a new one."
    # Another caller's word is another's.
    foreign = build_of(ask(other, repository, "key-other", headers=headers))
    assert (foreign["joined"], foreign["id"] == first["id"]) == (False, False)
    for build in (first, foreign):
        wait_until(one, build["id"], "succeeded")


def test_a_build_goes_on_for_those_who_did_not_cancel_it(connect: Connect, git: GitDaemon) -> None:
    one, other = connect("build"), connect("build")
    repository = git.repository("api-shared")
    commit = {"commit": repository.commit({"Dockerfile": BASE + "RUN sleep 300\n"})}
    build = build_of(ask(one, repository, "shared", **commit))["id"]
    assert build_of(ask(other, repository, "shared", **commit))["id"] == build
    assert one.delete(f"/api/builds/{build}").json()["state"] not in ("cancelling", "cancelled")
    assert other.delete(f"/api/builds/{build}").status_code == 202
    wait_until(other, build, "cancelled")
    again = build_of(ask(one, repository, "shared", **commit))["id"]
    assert build_of(ask(other, repository, "shared", **commit))["id"] == again
    assert one.delete(f"/api/builds/{again}", params={"everyone": "true"}).status_code == 202
    wait_until(one, again, "cancelled")


def test_a_priority_is_the_runs(client: httpx.Client, caisson: CaissonHost, git: GitDaemon) -> None:
    repository = git.repository("api-priority", {"Dockerfile": BASE + "LABEL priority=1\n"})
    build = build_of(ask(client, repository, "priority", params={"priority": "low"}))
    with caisson.api as api:
        assert priority_of(api.get(f"/flow_runs/{build['id']}")["tags"]) is Priority.LOW
    assert ask(client, repository, "priority", params={"priority": "now"}).status_code == 422
    wait_until(client, build["id"], "succeeded")


def test_a_limited_token_starts_and_sees_its_own_alone(
    connect: Connect, client: httpx.Client, caisson: CaissonHost, git: GitDaemon
) -> None:
    place = f"{git.address}:{git.port}"
    mine = connect("build", images=[f"{IMAGES}/mine"], repositories=[f"{place}/api-mine"])
    reader = connect("read", images=[f"{IMAGES}/mine"])
    trusted = connect("build", images=[f"{IMAGES}/mine"], secret_names=["team-*"])
    repositories = {name: git.repository(name, {"Dockerfile": BASE}) for name in ("api-mine", "api-other")}
    refused = [
        ask(mine, repositories["api-other"], "mine"),
        ask(mine, repositories["api-mine"], "other"),
        ask(mine, repositories["api-mine"], "mine", secrets=["team-npm"]),
        ask(trusted, repositories["api-mine"], "mine", secrets=["team-npm"], git_credentials="prod-key"),
        ask(reader, repositories["api-mine"], "mine"),
    ]
    assert [(answer.status_code, answer.json()["type"].rpartition(":")[2]) for answer in refused] == [
        *[(403, "token-limited")] * 4,
        (403, "scope-missing"),
    ]
    own = build_of(ask(mine, repositories["api-mine"], "mine"))["id"]
    other = build_of(ask(client, repositories["api-other"], "other"))["id"]
    for limited in (mine, reader):
        assert limited.get(f"/api/builds/{own}").status_code == 200
        for path in (f"/api/builds/{other}", f"/api/builds/{other}/log"):
            assert limited.get(path).status_code == 404
        assert [build["id"] for build in limited.get("/api/builds").json()["builds"]] == [own]
        assert limited.get("/api/images").status_code == 403
    assert mine.delete(f"/api/builds/{other}").status_code == 404
    assert reader.delete(f"/api/builds/{own}").status_code == 403
    assert {own, other} <= {build["id"] for build in client.get("/api/builds").json()["builds"]}
    for build in (own, other):
        wait_until(client, build, "succeeded")
    assert TokenStore.of(caisson.settings).revoke(mine.headers["X-Test-Token-Name"]) is not None
    assert mine.get("/api/builds").status_code == 401


def test_cancel_ends_a_build_and_its_builder(client: httpx.Client, caisson: CaissonHost, git: GitDaemon) -> None:
    repository = git.repository("api-cancel", {"Dockerfile": BASE + "RUN echo begun; sleep 300\n"})
    build = build_of(ask(client, repository, "cancel"))["id"]
    events(client, build, until=lambda seen: "begun" in lines(seen))
    began = time.monotonic()
    assert build_of(client.delete(f"/api/builds/{build}"))["state"] in ("cancelling", "cancelled")
    found = wait_until(client, build, "cancelled")
    print(f"\n  from DELETE to cancelled: {time.monotonic() - began:.1f} s")
    assert found["failure"]["kind"] == "cancelled"
    with DockerEngine(find_engines()[0].docker_host) as engine:
        left = [each for each in engine.list_containers({"caisson.host": caisson.name}) if build in str(each.labels)]
    assert left == []
    # Once more changes nothing.
    assert build_of(client.delete(f"/api/builds/{build}"))["state"] == "cancelled"


def test_pages_go_through_all_builds_once(client: httpx.Client) -> None:
    everything = [build["id"] for build in client.get("/api/builds", params={"limit": 200}).json()["builds"]]
    assert len(everything) > 3
    seen: list[str] = []
    cursor = ""
    while True:
        page = client.get("/api/builds", params={"limit": 2, "cursor": cursor}).json()
        seen += [build["id"] for build in page["builds"]]
        if not (cursor := page["next"]):
            break
    assert seen == everything
    ended = client.get("/api/builds", params={"state": ["failed", "cancelled"], "limit": 200}).json()["builds"]
    assert {build["state"] for build in ended} == {"failed", "cancelled"}
    one = client.get("/api/builds", params={"image": f"{IMAGES}/follow"}).json()["builds"]
    assert {build["image"] for build in one} == {f"{IMAGES}/follow"}


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        (b"{", 400, None),
        (b"[]", 422, "body"),
        (b'{"image": "a/b"}', 422, "repository_url"),
        (b'{"repository_url": "https://example.com/a", "image": "a/b", "push": "yes"}', 422, "push"),
        (b'{"repository_url": "https://example.com/a", "image": "a/b", "more": 1}', 422, "more"),
        (b'{"repository_url": "https://u:s3cret@example.com/a", "image": "a/b"}', 422, "repository_url"),
        (b'{"repository_url": "https://example.com/a", "image": "A B"}', 422, "image"),
    ],
)
def test_a_request_that_can_not_be_meant_is_refused_by_its_field(
    client: httpx.Client, body: bytes, status: int, field: str | None
) -> None:
    answer = client.post("/api/builds", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert [error["field"] for error in answer.json().get("errors", [])] == ([field] if field else [])
    assert "s3cret" not in answer.text


def test_a_host_that_was_never_up_is_told(client: httpx.Client) -> None:
    answer = client.post("/api/builds?host=nowhere", json={"repository_url": "https://example.com/a", "image": "a/b"})
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "host")


def test_a_run_that_is_no_build_is_not_there(client: httpx.Client, caisson: CaissonHost) -> None:
    run = caisson.trigger("sample-hello")
    assert client.get(f"/api/builds/{run}").status_code == 404
    assert client.delete(f"/api/builds/{run}").status_code == 404


def test_the_hosts_images_and_disk_are_told(client: httpx.Client) -> None:
    page = client.get("/api/images", params={"limit": 1, "repository": "**"}).json()
    assert len(page["images"]) == 1
    assert client.get("/api/disk").json()["file_systems"]
    assert client.get("/readyz").json() == {"status": "ok"}


def test_a_killed_api_comes_back_and_has_no_secrets_of_builds(caisson: CaissonHost, client: httpx.Client) -> None:
    pid = caisson.pid_of("deployments.api.main")
    environment = Path(f"/proc/{pid}/environ").read_bytes()
    assert b"CAISSON_STATE_DIR=" in environment
    for name in (b"CAISSON_SECRET_", b"CAISSON_REGISTRY_PASSWORD", b"CAISSON_DATABASE_URL", b"PREFECT_HOME"):
        assert name not in environment
    os.kill(pid, signal.SIGKILL)
    wait_for("the launcher says so", lambda: "The API ended (killed by SIGKILL)" in caisson.output)
    wait_for("the API is back", lambda: answers(gateway_url(caisson.settings)))
    assert client.get("/api/builds").status_code == 200


def test_the_readmes_way_over_caissons_api_works_as_it_stands(
    caisson: CaissonHost, git: GitDaemon, tmp_path: Path
) -> None:
    """With this host's address and repository in the place of the example's."""
    blocks = re.findall(r"^```console\n(.*?)^```$", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    (example,) = [block for block in blocks if "/api/builds" in block]
    repository = git.repository("api-readme", {"Dockerfile": BASE + "LABEL read=me\n"})
    places = {
        "http://127.0.0.1:4280": gateway_url(caisson.settings),
        "https://example.com/team/app.git": repository.url,
        "example.com/team/*": f"{git.address}:{git.port}/*",
        "team/app": f"{IMAGES}/readme",
        "team/*": f"{IMAGES}/*",
    }
    for ours, theirs in places.items():
        assert ours in example
        example = example.replace(ours, theirs)
    env = caisson.env | {"PATH": f"{ROOT}/.venv/bin:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", example], capture_output=True, text=True, check=False, env=env, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert "event: end" in done.stdout
    state, image = done.stdout.splitlines()[-2:]
    assert state == "succeeded"
    assert image.startswith("sha256:")
    assert (tmp_path / "caisson.token").stat().st_mode & 0o077 == 0


def test_metrics_tell_of_the_queue(connect: Connect, caisson: CaissonHost) -> None:
    text = connect("read").get("/metrics").text
    assert "caisson_prefect_up 1.0" in text
    for name in ("waiting", "running", "oldest_seconds"):
        assert re.search(rf'^caisson_queue_{name}{{queue="{caisson.name}"}} \d', text, re.MULTILINE), text
