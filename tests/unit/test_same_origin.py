"""Pages of other sites can't use the server through a browser; programs and its own pages can."""

from __future__ import annotations

import asyncio
import json
from collections.abc import MutableMapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.same_origin import Origins, Refusal, SameOrigin

OURS = Origins.of(server_host="127.0.0.1", server_names=("caisson.example.com",), host_name="Build-1")
ANY = Origins.of(server_host="0.0.0.0", server_names=(), host_name="build-1")


def _ask(
    origins: Origins = OURS,
    *,
    method: str = "POST",
    is_websocket: bool = False,
    host: str = "127.0.0.1:4200",
    origin: str = "",
    fetch_site: str = "",
) -> int:
    refusal = origins.refusal(method, is_websocket=is_websocket, host=host, origin=origin, fetch_site=fetch_site)
    return refusal.status if refusal is not None else 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),  # a program
        ({"fetch_site": "same-origin", "origin": "http://127.0.0.1:4200"}, 200),
        ({"fetch_site": "none"}, 200),  # typed by a person
        ({"fetch_site": "cross-site", "origin": "https://evil.example"}, 403),
        ({"fetch_site": "same-site", "origin": "http://127.0.0.1:8080"}, 403),  # another port of this host
        ({"fetch_site": "anything"}, 403),
        ({"origin": "http://127.0.0.1:4200"}, 200),  # a browser without fetch metadata
        ({"origin": "http://127.0.0.1:8080"}, 403),
        ({"origin": "null"}, 403),  # a sandboxed frame
        ({"origin": "https://evil.example"}, 403),
        # Behind a proxy with TLS.
        ({"host": "caisson.example.com", "origin": "https://caisson.example.com"}, 200),
    ],
)
def test_what_changes_something_comes_from_a_program_or_a_page_of_ours(headers: dict[str, str], status: int) -> None:
    assert _ask(**headers) == status  # type: ignore[arg-type]
    assert _ask(**headers, method="DELETE") == status  # type: ignore[arg-type]
    assert _ask(**headers, method="GET", is_websocket=True) == status  # type: ignore[arg-type]
    # Reading is CORS's to deny.
    assert _ask(**headers, method="GET") == 200  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:4200", 200),
        ("[::1]:4200", 200),
        ("10.0.0.7", 200),
        ("localhost:4200", 200),
        ("build-1:4200", 200),
        ("BUILD-1.:4200", 200),
        ("Caisson.example.com", 200),
        ("evil.example:4200", 421),
        ("127.0.0.1.evil.example:4200", 421),
        ("", 421),
        ("[::1", 421),
    ],
)
def test_on_loopback_a_name_that_is_not_ours_is_refused_for_reading_too(host: str, status: int) -> None:
    same = {"origin": f"http://{host}", "fetch_site": "same-origin"}
    assert _ask(host=host, method="GET") == status
    assert _ask(host=host, **same) == status  # type: ignore[arg-type]


def test_beyond_loopback_any_name_is_taken_until_names_are_set() -> None:
    assert _ask(ANY, host="whatever.example") == 200
    assert _ask(ANY, host="whatever.example", origin="https://evil.example") == 403
    named = Origins.of(server_host="0.0.0.0", server_names=("caisson.example.com",), host_name="build-1")
    assert _ask(named, host="whatever.example") == 421
    assert _ask(named, host="caisson.example.com:4200") == 200


@given(origin=st.text(max_size=40), host=st.text(max_size=40))
def test_no_header_makes_it_fail_and_another_origin_is_never_ours(origin: str, host: str) -> None:
    refusal = ANY.refusal("POST", is_websocket=False, host=host, origin=f"https://evil.example/{origin}", fetch_site="")
    assert refusal == Refusal(403, "A page of another origin must not use this server.") or host == "evil.example"
    OURS.refusal("POST", is_websocket=False, host=host, origin=origin, fetch_site="")


def _through(scope: MutableMapping[str, Any]) -> list[MutableMapping[str, Any]]:
    sent: list[MutableMapping[str, Any]] = []

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "reached"})

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    async def receive() -> MutableMapping[str, Any]:
        return {}

    # A browser that other tests have opened may have left a loop in this thread.
    with ThreadPoolExecutor(1) as pool:
        pool.submit(asyncio.run, SameOrigin(app, OURS)(scope, receive, send)).result()
    return sent


def test_what_is_refused_does_not_reach_the_app_and_says_why() -> None:
    ours = [(b"Host", b"127.0.0.1:4200")]
    theirs = [*ours, (b"Origin", b"https://evil.example")]
    assert _through({"type": "http", "method": "POST", "headers": ours}) == [{"type": "reached"}]
    assert _through({"type": "lifespan"}) == [{"type": "reached"}]
    start, body = _through({"type": "http", "method": "POST", "headers": theirs})
    assert start["status"] == 403
    assert "another origin" in json.loads(body["body"])["detail"]
    (closed,) = _through({"type": "websocket", "headers": theirs})
    assert (closed["type"], closed["code"]) == ("websocket.close", 1008)
