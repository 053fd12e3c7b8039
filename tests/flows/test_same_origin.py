"""The real server refuses what a browser sends for another site's page; its own clients never notice."""

from __future__ import annotations

import http.client
import json

import pytest

from tests.flows.caisson_host import CaissonHost

FILTER = "/api/flow_runs/filter"
UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Protocol": "prefect",
}


def _ask(caisson: CaissonHost, method: str, path: str, headers: dict[str, str]) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", caisson.settings.server_port, timeout=20)
    try:
        body = "{}" if method == "POST" else None
        connection.request(method, path, body, {"Content-Type": "application/json", **headers})
        answer = connection.getresponse()
        return answer.status, b"" if answer.status == 101 else answer.read()
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
        ({"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"}, 403),
        ({"Origin": "https://evil.example"}, 403),
        ({"Host": "evil.example"}, 421),
    ],
)
def test_a_request(caisson: CaissonHost, headers: dict[str, str], status: int) -> None:
    answered, body = _ask(caisson, "POST", FILTER, headers)
    assert answered == status
    if status != 200:
        assert json.loads(body)["status"] == status


@pytest.mark.parametrize(
    ("headers", "status"), [({}, 101), ({"Origin": "https://evil.example"}, 403), ({"Host": "evil.example"}, 403)]
)
def test_a_websocket(caisson: CaissonHost, headers: dict[str, str], status: int) -> None:
    assert _ask(caisson, "GET", "/api/events/out", {**UPGRADE, **headers})[0] == status
