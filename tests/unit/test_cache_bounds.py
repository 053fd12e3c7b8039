"""The three bounds of build cache, from the policy to the words on the engine's socket."""

from __future__ import annotations

import http.server
import json
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from caisson.cache_bounds import cache_bounds
from caisson.docker_engine import DockerEngine
from caisson.retention.prune_plan import PruneBuildCache
from caisson.snapshot import CacheEntry
from tests.prune_hosts import MIB, host, image, plan, policy, stack

# What API 1.48 documents for POST /build/prune.
DOCUMENTED = {"reserved-space", "max-used-space", "min-free-space"}


@contextmanager
def engine_of(directory: Path, api: str) -> Iterator[tuple[DockerEngine, list[str]]]:
    """An engine of that API that has no build cache, and what was posted to it."""
    posted: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer({"ApiVersion": api, "MinAPIVersion": "1.24"})

        def do_POST(self) -> None:
            posted.append(self.path)
            self._answer({"SpaceReclaimed": 7})

        def _answer(self, document: object) -> None:
            body = json.dumps(document).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def address_string(self) -> str:
            return ""

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    path = directory / "engine.sock"
    with socketserver.ThreadingUnixStreamServer(str(path), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with DockerEngine(f"unix://{path}") as engine:
            yield engine, posted
        server.shutdown()


@pytest.mark.parametrize(
    ("api", "bounds"),
    [
        ("1.41", {"keep-storage": ["40"]}),
        ("1.47", {"keep-storage": ["40"]}),
        ("1.48", {"max-used-space": ["40"], "reserved-space": ["30"], "min-free-space": ["900"]}),
        ("1.51", {"max-used-space": ["40"], "reserved-space": ["30"], "min-free-space": ["900"]}),
    ],
)
def test_an_engine_is_told_the_bounds_that_its_api_has_words_for(
    tmp_path: Path, api: str, bounds: dict[str, list[str]]
) -> None:
    with engine_of(tmp_path, api) as (engine, posted):
        assert engine.prune_build_cache(keep_bytes=40, reserved_bytes=30, min_free_bytes=900, timeout=10) == 7
    (asked,) = [urlsplit(path) for path in posted]
    assert asked.path.endswith("/build/prune")
    assert parse_qs(asked.query) == bounds
    assert set(bounds) in (DOCUMENTED, {"keep-storage"})


def test_where_all_is_to_go_nothing_that_would_keep_some_is_said() -> None:
    """``calculateKeepBytes``: a ceiling of 0 is none, and what is to be free would then be the only bound."""
    assert set(cache_bounds((1, 48), keep=0, reserved=0, min_free=5).values()) == {0}


def cache_item(chosen: dict[str, str]) -> PruneBuildCache:
    entries = (CacheEntry("a", "regular", 100 * MIB),)
    (item,) = plan(host(build_cache=entries), policy(build_cache=chosen)).items
    assert isinstance(item, PruneBuildCache)
    return item


def test_a_plan_has_all_three_bounds_of_the_policy() -> None:
    item = cache_item({"max_used_space": "40m", "reserved_space": "30m", "min_free_space": "110m"})
    assert (item.keep_bytes, item.reserved_bytes, item.min_free_bytes) == (40 * MIB, 30 * MIB, 110 * MIB)
    item = cache_item({"max_used_space": "40m", "reserved_space": "30m", "min_free_space": ""})
    assert (item.keep_bytes, item.reserved_bytes, item.min_free_bytes) == (40 * MIB, 30 * MIB, 0)


def test_under_pressure_the_reserve_is_less_what_images_hold_of_it_and_the_goal_is_the_pressures() -> None:
    entries = (CacheEntry("a", "regular", 100 * MIB), CacheEntry("b", "regular", 20 * MIB, shared=True))
    chosen = policy(build_cache={"max_used_space": "", "reserved_space": "30m", "min_free_space": "1m"})
    (item,) = plan(host(build_cache=entries), chosen, free_mib=900).items
    assert isinstance(item, PruneBuildCache)
    assert (item.keep_bytes, item.reserved_bytes, item.min_free_bytes) == (10 * MIB, 10 * MIB, 0)


def test_cache_does_not_go_for_want_of_what_goes_after_it() -> None:
    """Expired images go after the cache: the engine must not take what they will free for missing."""
    entries = (CacheEntry("a", "regular", 100 * MIB),)
    old = image("old", "team/app:1", idle=400, layers=stack(("old", 50)))
    chosen = {"max_used_space": "90m", "reserved_space": "0", "min_free_space": "120m"}
    found = plan(host(old, build_cache=entries), policy(build_cache=chosen)).items
    (cache,) = [item for item in found if isinstance(item, PruneBuildCache)]
    (gone,) = [item for item in found if item is not cache]
    assert gone.marginal_bytes == 50 * MIB
    assert (cache.keep_bytes, cache.min_free_bytes) == (90 * MIB, 70 * MIB)
