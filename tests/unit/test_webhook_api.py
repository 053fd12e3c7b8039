"""``POST /webhooks/NAME`` on the real application and the real store: what is answered, and what is remembered.

Prefect is a small stand-in that keeps runs in memory; the git host is one that remembers what it was told.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from caisson.settings import Settings
from caisson.webhooks.event import Provider
from caisson.webhooks.status import BuildState
from deployments.api.app import create_app
from deployments.service_store import ServiceStore, store_file
from deployments.webhook_store import WebhookStore
from tests.webhook_deliveries import DATA, SECRET, payload, signed_headers
from tests.webhook_peers import SECRET_BLOCKS, Peer, peer

TOKEN = "st4tus-t0ken-canary"
RULES = """
link = "https://caisson.example.com/runs/flow-run/{{run}}"
[[hook]]
name = "app"
provider = "github"
secret = "app-hook"
repository = "https://github.com/team/app.git"
status = {{ token = "status", api = "{api}" }}
[[hook.rule]]
on = "push"
branches = ["main"]
priority = "high"
build = {{ image = "team/app" }}
[[hook]]
name = "other"
provider = "gitea"
secret = "other-hook"
repository = "https://git.example.com/gitea/webhooks.git"
[[hook.rule]]
on = "push"
host = "any"
build = {{ image = "team/other" }}
"""


@dataclass
class Gateway:
    client: TestClient
    prefect: Peer
    host: Peer
    settings: Settings
    file: Path

    def deliver(
        self, body: bytes, *, hook: str = "app", delivery: str = "1", secret: str = SECRET, event: str = "push"
    ) -> Any:
        provider = Provider.GITHUB if hook != "other" else Provider.GITEA
        headers = signed_headers(provider, event, body, secret, delivery=delivery, now=datetime.now(UTC))
        return self.client.post(f"/webhooks/{hook}", content=body, headers=headers)

    def store(self) -> WebhookStore:
        return WebhookStore(ServiceStore(store_file(self.settings)))

    def wait_for(self, probe: Any) -> None:
        deadline = time.monotonic() + 10
        while not probe():
            assert time.monotonic() < deadline, (self.prefect.got, self.host.got)
            time.sleep(0.01)


@pytest.fixture
def peers() -> Iterator[tuple[Peer, Peer]]:
    with peer() as prefect, peer() as host:
        yield prefect, host


@pytest.fixture
def gateway(tmp_path: Path, peers: tuple[Peer, Peer], monkeypatch: pytest.MonkeyPatch) -> Iterator[Gateway]:
    prefect, host = peers
    file = tmp_path / "webhooks.toml"
    file.write_text(RULES.format(api=host.url))
    for name in ("APP_HOOK", "OTHER_HOOK"):
        monkeypatch.setenv(f"CAISSON_SECRET_{name}", SECRET)
    monkeypatch.setenv("CAISSON_SECRET_STATUS", TOKEN)
    monkeypatch.setattr("deployments.api.statuses.LOOK_SECONDS", 0.02)
    settings = Settings(
        _env_file=None,
        state_dir=tmp_path,
        host_name="b1",
        webhooks_file=str(file),
        api_url=f"{prefect.url}/api",
    )
    with TestClient(create_app(settings), base_url="http://127.0.0.1") as client:
        yield Gateway(client, prefect, host, settings, file)


PUSH = (DATA / "github-push.json").read_bytes()


def push(**changes: Any) -> bytes:
    return json.dumps({**payload("github-push"), **changes}).encode()


def problem(answer: Any, status: int) -> str:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    return str(answer.json()["detail"])


def test_a_push_is_put_into_the_queue_and_its_states_are_told(gateway: Gateway) -> None:
    answer = gateway.deliver(PUSH)
    assert answer.status_code == 202
    assert answer.json() == {
        "builds": [
            {
                "image": "team/app",
                "ref": "refs/heads/main",
                "commit": "6113728f27ae82c7b1a177c8d03f9e96e0adf246",
                "flow_run_id": "run-1",
            }
        ],
        "reasons": [],
    }
    (request,) = [body for path, _, body in gateway.prefect.got if path.endswith("/create_flow_run")]
    assert request["parameters"]["request"]["repository_url"] == "https://github.com/team/app.git"
    assert {"caisson:origin=webhook/app", "caisson:priority=high"} < set(request["tags"])
    for state, words in (("RUNNING", 2), ("COMPLETED", 3)):
        gateway.wait_for(lambda count=words: len(gateway.host.told()) == count - 1)
        gateway.prefect.runs["run-1"] = state
    gateway.wait_for(lambda: gateway.host.told() == ["pending", "pending", "success"])
    path, headers, body = gateway.host.got[-1]
    assert path == "/repos/team/app/statuses/6113728f27ae82c7b1a177c8d03f9e96e0adf246"
    assert headers["authorization"] == f"Bearer {TOKEN}"
    assert body["target_url"] == "https://caisson.example.com/runs/flow-run/run-1"
    gateway.wait_for(gateway.store().is_idle)


def test_the_same_delivery_again_begins_nothing(gateway: Gateway) -> None:
    assert gateway.deliver(PUSH).status_code == 202
    again = gateway.deliver(PUSH)
    assert again.status_code == 200
    assert "taken before" in again.json()["reasons"][0]
    assert again.json()["builds"] == []
    assert len(gateway.prefect.keys) == 1


def test_a_payload_that_was_overheard_is_refused_under_another_id(gateway: Gateway) -> None:
    """GitHub's signature does not cover the delivery's ID."""
    assert gateway.deliver(PUSH).status_code == 202
    assert "under another ID" in problem(gateway.deliver(PUSH, delivery="2"), 409)
    assert gateway.deliver(push(after="b" * 40), delivery="2").status_code == 202
    assert len(gateway.prefect.keys) == 2


def test_another_hooks_deliveries_are_its_own(gateway: Gateway) -> None:
    assert gateway.deliver(PUSH).status_code == 202
    other = (DATA / "gitea-push.json").read_bytes()
    assert gateway.deliver(other, hook="other").status_code == 202
    assert gateway.deliver(other, hook="other").status_code == 200
    asked = [path for path, _, _ in gateway.prefect.got if "/deployments/name/" in path]
    assert asked == ["/api/deployments/name/build-image/b1", "/api/deployments/name/build-image/any"]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (push(ref="refs/heads/next"), "'next' is not among its branches"),
        (push(head_commit={"message": "x [skip ci]"}), "the message has '[skip ci]'"),
        (push(deleted=True), "was deleted"),
        (push(repository={"full_name": "team/secret"}), "this hook is for 'team/app'"),
    ],
)
def test_what_builds_nothing_is_answered_with_the_reason(gateway: Gateway, body: bytes, reason: str) -> None:
    answer = gateway.deliver(body)
    assert answer.status_code == 200
    assert reason in answer.json()["reasons"][0]
    assert gateway.prefect.keys == {}


def test_what_is_not_authentic_is_refused_and_not_remembered(gateway: Gateway) -> None:
    detail = problem(gateway.deliver(PUSH, secret="wrong"), 401)
    assert "x-hub-signature-256 does not match" in detail
    assert SECRET not in detail
    assert "is missing" in problem(gateway.client.post("/webhooks/app", content=PUSH), 401)
    assert gateway.deliver(PUSH).status_code == 202


def test_problems(gateway: Gateway) -> None:
    assert "no webhook of that name" in problem(gateway.deliver(PUSH, hook="nope"), 404)
    assert "not JSON" in problem(gateway.deliver(b"payload=%7B%7D"), 400)
    assert "ref" in problem(gateway.deliver(b"{}"), 400)
    assert gateway.client.get("/webhooks/app").status_code == 405
    problem(gateway.client.post("/webhooks/app", content=PUSH, headers={"content-length": str(26 << 20)}), 413)
    # None of them was remembered as a delivery.
    assert gateway.deliver(PUSH).status_code == 202


def test_a_secret_that_is_not_set_lets_nobody_in(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAISSON_SECRET_APP_HOOK", "")
    assert "secret is not set" in problem(gateway.deliver(PUSH, secret=""), 503)


def test_a_secret_may_be_a_block_of_prefect(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("APP_HOOK", "STATUS"):
        monkeypatch.delenv(f"CAISSON_SECRET_{name}")
    gateway.prefect.blocks = {"app-hook": SECRET, "status": TOKEN}
    assert gateway.deliver(PUSH, secret="wrong").status_code == 401
    assert gateway.deliver(PUSH).status_code == 202
    gateway.wait_for(lambda: gateway.host.told() == ["pending"])
    assert gateway.host.got[-1][1]["authorization"] == f"Bearer {TOKEN}"
    # By many deliveries Prefect is asked once.
    for number in range(5):
        gateway.deliver(PUSH, secret="wrong", delivery=f"wrong-{number}")
    assert [path for path, _, _ in gateway.prefect.got if "/app-hook" in path] == [
        f"/api{SECRET_BLOCKS}app-hook?include_secrets=true"
    ]


def test_the_file_counts_as_it_is_now_and_one_that_is_wrong_lets_nobody_in(gateway: Gateway) -> None:
    right = gateway.file.read_text()
    gateway.file.write_text(right.replace('branches = ["main"]', 'branches = ["next"]'))
    assert gateway.deliver(PUSH).status_code == 200
    gateway.file.write_text("[[hook")
    assert "not valid" in problem(gateway.deliver(push(after="b" * 40), delivery="2"), 503)
    gateway.file.unlink()
    assert "not valid" in problem(gateway.deliver(push(after="b" * 40), delivery="2"), 503)
    gateway.file.write_text(right)
    assert gateway.deliver(push(after="b" * 40), delivery="2").status_code == 202


def test_a_delivery_while_prefect_is_away_is_built_when_it_is_back(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deployments.api.webhooks.WAIT_SECONDS", 0.1)
    monkeypatch.setattr("deployments.api.statuses.pause_after", lambda _: timedelta(milliseconds=20))
    gateway.prefect.is_up = False
    answer = gateway.deliver(PUSH)
    assert answer.status_code == 202
    assert answer.json()["builds"][0]["flow_run_id"] == ""
    gateway.prefect.is_up = True
    gateway.wait_for(lambda: gateway.host.told() == ["pending"])
    assert len(gateway.prefect.keys) == 1


def test_a_delivery_is_answered_at_once_although_prefect_takes_its_time(gateway: Gateway) -> None:
    gateway.prefect.seconds = 3
    began = time.monotonic()
    answer = gateway.deliver(PUSH)
    assert time.monotonic() - began < gateway.prefect.seconds
    assert answer.status_code == 202
    assert answer.json()["builds"][0]["flow_run_id"] == ""
    gateway.prefect.seconds = 0
    gateway.wait_for(lambda: gateway.host.told() == ["pending"])
    assert len(gateway.prefect.keys) == 1


def test_a_status_is_tried_again_and_given_up_where_it_is_refused(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("deployments.api.statuses.pause_after", lambda _: timedelta(milliseconds=20))
    gateway.host.statuses = [502, 429, 201]
    gateway.deliver(PUSH)
    gateway.wait_for(lambda: len(gateway.host.told()) == 3)
    gateway.host.statuses = [403]
    gateway.prefect.runs["run-1"] = "FAILED"
    gateway.wait_for(gateway.store().is_idle)
    assert gateway.host.told() == ["pending", "pending", "pending", "failure"]
    assert "does not take the status failure of the webhook app (HTTP 403)" in caplog.text
    assert TOKEN not in caplog.text


def test_a_build_that_ends_while_the_api_is_down_is_told_after_its_start(gateway: Gateway) -> None:
    gateway.deliver(PUSH)
    gateway.wait_for(lambda: gateway.host.told() == ["pending"])
    gateway.client.__exit__(None, None, None)
    gateway.prefect.runs["run-1"] = "CANCELLED"
    with TestClient(create_app(gateway.settings), base_url="http://127.0.0.1"):
        gateway.wait_for(lambda: gateway.host.told() == ["pending", "error"])


def test_a_run_that_was_deleted_is_told_as_cancelled(gateway: Gateway) -> None:
    gateway.deliver(PUSH)
    gateway.wait_for(lambda: gateway.host.told() == ["pending"])
    gateway.prefect.runs.clear()
    gateway.wait_for(lambda: gateway.host.told() == ["pending", "error"])


def test_old_deliveries_and_what_is_told_are_forgotten(gateway: Gateway) -> None:
    gateway.deliver(PUSH)
    gateway.prefect.runs["run-1"] = "COMPLETED"
    gateway.wait_for(gateway.store().is_idle)
    store = gateway.store()
    keys = list(gateway.prefect.keys)
    store.forget(datetime.now(UTC) + timedelta(days=6))
    assert [build.state for build in store.builds(keys)] == [BuildState.SUCCESS]
    store.forget(datetime.now(UTC) + timedelta(days=8))
    assert store.builds(keys) == []
    assert gateway.deliver(PUSH).status_code == 200
    store.forget(datetime.now(UTC) + timedelta(days=91))
    assert gateway.deliver(PUSH).status_code == 202
