"""What a request passes before a route sees it, on the real application: no server of Prefect's is asked here."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

from caisson.settings import Settings
from caisson.tokens import make_grant
from deployments.api import metrics
from deployments.api.app import create_app
from deployments.api.gates import MOST_BODY
from deployments.token_store import TokenStore

NOBODY = "http://127.0.0.1:9/api"


def settings_of(tmp_path: Path, **values: Any) -> Settings:
    return Settings(_env_file=None, state_dir=tmp_path, api_url=NOBODY, **values)  # type: ignore[call-arg]


@pytest.fixture(scope="module")
def state_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("state")


@pytest.fixture(scope="module")
def client(state_dir: Path) -> Iterator[TestClient]:
    with TestClient(create_app(settings_of(state_dir)), base_url="http://127.0.0.1:4280") as client:
        yield client


def bearer(state_dir: Path, *scopes: str, name: str = "test", **limits: list[str]) -> dict[str, str]:
    tokens = TokenStore.of(settings_of(state_dir))
    tokens.revoke(name)
    token, _ = tokens.create(name, make_grant(scopes, **limits), lifetime=None)
    return {"Authorization": f"Bearer {token}"}


def problem(answer: httpx.Response, status: int) -> dict[str, Any]:
    """The answer's problem document, whose form RFC 9457 tells."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    document: dict[str, Any] = answer.json()
    assert document["status"] == status
    assert document["type"]
    assert document["title"]
    return document


def test_health_needs_no_token(client: TestClient) -> None:
    assert client.get("/healthz").json() == {"status": "ok"}
    assert "Prefect's API does not answer" in problem(client.get("/readyz"), 503)["detail"]


@pytest.mark.parametrize(("healthy", "status"), [(True, 200), (False, 503)])
def test_readiness_is_looked_at_once_however_many_ask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, healthy: bool, status: int
) -> None:
    looks: list[str] = []

    def look(api_url: str) -> bool:
        looks.append(api_url)
        time.sleep(0.1)
        return healthy

    monkeypatch.setattr("deployments.api.health.is_healthy", look)
    monkeypatch.setattr("deployments.api.health._KEEP_SECONDS", 60.0)
    with (
        TestClient(create_app(settings_of(tmp_path)), base_url="http://127.0.0.1") as client,
        ThreadPoolExecutor(16) as threads,
    ):
        answers = list(threads.map(lambda _: client.get("/readyz").status_code, range(64)))
    assert set(answers) == {status}
    assert looks == [NOBODY]


@pytest.mark.parametrize("path", ["/metrics", "/api/builds", "/api/nothing", "/", "/webhook", "//healthz", "/docs"])
def test_everything_else_needs_one(client: TestClient, path: str) -> None:
    answer = client.get(path)
    problem(answer, 401)
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")


@pytest.mark.parametrize("value", ["", "Bearer", "Bearer x", "Basic dXNlcjpwYXNz", "caisson_000000000000_" + "x" * 43])
def test_what_is_no_token_is_refused(client: TestClient, value: str) -> None:
    problem(client.get("/metrics", headers={"Authorization": value}), 401)


def test_a_cookie_is_no_token(client: TestClient, state_dir: Path) -> None:
    token = bearer(state_dir, "read")["Authorization"].removeprefix("Bearer ")
    client.cookies.set("token", token)
    problem(client.get("/metrics"), 401)
    client.cookies.clear()


def test_no_page_elsewhere_may_read_an_answer(client: TestClient, state_dir: Path) -> None:
    headers = {**bearer(state_dir, "read"), "Origin": "https://evil.example"}
    answer = client.get("/metrics", headers=headers)
    assert answer.status_code == 200
    assert not [name for name in answer.headers if name.startswith("access-control")]
    asked = client.options("/metrics", headers={**headers, "Access-Control-Request-Method": "GET"})
    assert not [name for name in asked.headers if name.startswith("access-control")]


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "[::2]", "10.0.0.1"]
)
def test_the_loopback_is_not_reached_by_another_name(client: TestClient, host: str) -> None:
    problem(client.get("/healthz", headers={"Host": host}), 421)


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:4280", "127.0.0.1:1", "[::1]:4280", "localhost."])
def test_names_of_the_loopback_are_its_own(client: TestClient, host: str) -> None:
    assert client.get("/healthz", headers={"Host": host}).status_code == 200


def test_more_names_are_a_setting_and_an_address_has_any(tmp_path: Path) -> None:
    named = TestClient(create_app(settings_of(tmp_path, gateway_names=("Caisson.example.com",))))
    assert named.get("/healthz", headers={"Host": "caisson.example.com"}).status_code == 200
    assert named.get("/healthz", headers={"Host": "other.example.com"}).status_code == 421
    public = TestClient(create_app(settings_of(tmp_path, gateway_host="0.0.0.0")))
    assert public.get("/healthz", headers={"Host": "other.example.com"}).status_code == 200


def test_errors_of_routing_are_problems_too(client: TestClient, state_dir: Path) -> None:
    headers = bearer(state_dir, "admin")
    problem(client.get("/nothing", headers=headers), 404)
    refused = client.delete("/metrics", headers=headers)
    problem(refused, 405)
    assert refused.headers["Allow"] == "GET"


def test_a_scope_that_is_missing_is_named(client: TestClient, state_dir: Path) -> None:
    document = problem(client.get("/metrics", headers=bearer(state_dir, "build")), 403)
    assert document["type"] == "urn:caisson:problem:scope-missing"
    assert "'test' has not the scope read" in document["detail"]


def test_a_limited_token_does_not_read_what_tells_of_all(client: TestClient, state_dir: Path) -> None:
    headers = bearer(state_dir, "read", images=["team/*"])
    assert problem(client.get("/metrics", headers=headers), 403)["type"] == "urn:caisson:problem:token-limited"


def test_a_token_may_ask_so_often_and_another_is_not_held_up(tmp_path: Path) -> None:
    client = TestClient(create_app(settings_of(tmp_path, gateway_rate=1)), base_url="http://127.0.0.1")
    first, second = bearer(tmp_path, "read", name="first"), bearer(tmp_path, "read", name="second")
    answers = [client.get("/metrics", headers=first) for _ in range(6)]
    assert [answer.status_code for answer in answers].count(200) in (2, 3)
    problem(answers[-1], 429)
    assert int(answers[-1].headers["Retry-After"]) >= 1
    assert client.get("/metrics", headers=second).status_code == 200


def test_who_guesses_tokens_is_slowed_down_and_locks_nobody_out(tmp_path: Path) -> None:
    client = TestClient(create_app(settings_of(tmp_path)), base_url="http://127.0.0.1")
    answers = [client.get("/metrics", headers={"Authorization": "Bearer x"}).status_code for _ in range(60)]
    assert set(answers[:20]) == {401}
    assert 429 in answers[20:]
    # Behind a proxy all callers have one address.
    assert client.get("/metrics", headers=bearer(tmp_path, "read")).status_code == 200


def test_a_body_that_is_too_large_is_refused_before_it_is_read(client: TestClient, state_dir: Path) -> None:
    headers = {**bearer(state_dir, "build"), "Content-Type": "application/json"}
    announced = client.post("/api/builds", content=b"{}", headers={**headers, "Content-Length": str(MOST_BODY + 1)})
    problem(announced, 413)
    flowing = client.post("/api/builds", content=iter([b"x" * 65536] * 8), headers=headers)
    problem(flowing, 413)
    for length in ("-1", "x"):
        problem(client.post("/api/builds", content=b"{}", headers={**headers, "Content-Length": length}), 413)


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
def test_a_body_that_a_form_can_send_is_refused(client: TestClient, state_dir: Path, kind: str) -> None:
    headers = {**bearer(state_dir, "build"), "Content-Type": kind}
    problem(client.post("/api/builds", content=b"{}", headers=headers), 415)


def test_of_many_who_ask_for_metrics_at_once_one_reads_the_queue(
    state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[datetime] = []
    monkeypatch.setattr(metrics, "_QUEUE_SECONDS", 60.0)
    monkeypatch.setattr(metrics, "read_queue_metrics", lambda api, queues, now: asked.append(now) or [])
    app = TestClient(create_app(settings_of(state_dir)), base_url="http://127.0.0.1:4280")
    headers = bearer(state_dir, "read")
    assert [app.get("/metrics", headers=headers).status_code for _ in range(5)] == [200] * 5
    assert len(asked) == 1
