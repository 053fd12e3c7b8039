"""The Docker engines that tests run on: which there are, and that no builder is left on them.

A test that takes ``engine_host`` runs once on each engine. An engine that doesn't answer fails the test: never a skip.
"""

from __future__ import annotations

import functools
import http.client
import json
import os
import re
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from xdist.scheduler import LoadScopeScheduling

from caisson.unix_http import UnixConnection

SETUP = Path(__file__).parent.parent / "deployments" / "setup"
# How long a builder that is being removed when the last test ends may take to be gone.
REMOVAL_SECONDS = 15


@dataclass(frozen=True)
class EngineHost:
    """One Docker engine, and how its host and its containers reach each other."""

    name: str
    """Its version as a person says it: ``20.10``, ``26.1``."""
    docker_host: str
    """Its address: ``unix:///path``."""
    gateway: str
    """Address of this host on which its containers reach servers that tests start."""

    @property
    def socket(self) -> Path:
        """The engine's socket, as this host sees it."""
        return Path(self.docker_host.removeprefix("unix://"))

    @property
    def root(self) -> Path:
        """Root directory of the engine's own view of files, as this host sees it."""
        path = str(self.socket)
        return Path(path.removesuffix("/run/docker.sock").removesuffix("/var") or "/")

    @property
    def socket_in_engine(self) -> str:
        """What ``CAISSON_ENGINE_SOCKET`` has to be; empty where the engine sees the path that this host sees."""
        return "" if self.root == Path("/") else "/run/docker.sock"

    @property
    def guard_dir(self) -> Path:
        """``CAISSON_GUARD_DIR`` where the engine's containers can mount from."""
        return self.root / "run/caisson-test"

    @property
    def engine_guard_dir(self) -> str:
        """What ``CAISSON_ENGINE_GUARD_DIR`` has to be, likewise."""
        return "" if self.root == Path("/") else "/run/caisson-test"

    @property
    def data_root(self) -> str:
        """What ``CAISSON_DOCKER_DATA_ROOT`` has to be; empty where the engine's own answer is right here."""
        return "" if self.root == Path("/") else str(self.root / "var/lib/docker")


def ask_engine(host: EngineHost, path: str) -> Any:
    """What the engine answers to ``GET path``; raises ``OSError`` when it doesn't answer, or not with 200."""
    connection = UnixConnection(host.socket, timeout=5)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        body = response.read()
    except http.client.HTTPException as error:
        raise OSError(f"{path}: {error!r}") from error
    finally:
        connection.close()
    if response.status != 200:
        raise OSError(f"{path}: {response.status} {body[:200]!r}")
    return json.loads(body) if response.getheader("Content-Type", "").startswith("application/json") else body


def parse_engines(text: str) -> tuple[EngineHost, ...]:
    """Engines from ``NAME=unix:///PATH@GATEWAY;…``; raises ``ValueError`` for anything else."""
    engines = []
    for entry in filter(None, text.strip().split(";")):
        name, named, rest = entry.partition("=")
        docker_host, separator, gateway = rest.rpartition("@")
        if not (name and named and separator and gateway and docker_host.startswith("unix:///")):
            raise ValueError(f"CAISSON_TEST_ENGINES: {entry!r} is not NAME=unix:///PATH@GATEWAY.")
        engines.append(EngineHost(name, docker_host, gateway))
    return tuple(engines)


@functools.cache
def find_engines() -> tuple[EngineHost, ...]:
    """The host's own engine first, then the newer one: from ``CAISSON_TEST_ENGINES``, else from the set-up script."""
    text = os.environ.get("CAISSON_TEST_ENGINES", "")
    if not text:
        command = [str(SETUP / "test-engine.sh"), "engines"]
        text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return parse_engines(text)


@functools.cache
def find_containerd_engine() -> EngineHost:
    """The engine that keeps images in the containerd store, for tests that ask for it; likewise."""
    return _find_engine("CAISSON_TEST_CONTAINERD_ENGINE", "containerd-engine")


@functools.cache
def find_compose_engine() -> EngineHost:
    """The engine on which compose is brought up, and nothing else; likewise."""
    return _find_engine("CAISSON_TEST_COMPOSE_ENGINE", "compose-engine")


def _find_engine(variable: str, command: str) -> EngineHost:
    text = os.environ.get(variable, "")
    if not text:
        done = subprocess.run([str(SETUP / "test-engine.sh"), command], check=True, capture_output=True, text=True)
        text = done.stdout
    (engine,) = parse_engines(text)
    return engine


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    # Only for tests that want an engine: unit tests ask for none, and need none.
    if "engine_host" in metafunc.fixturenames:
        engines = find_engines()
        metafunc.parametrize("engine_host", engines, ids=[e.name for e in engines], indirect=True, scope="session")


# What runs beside each other. What looks at all of an engine's containers or images shares a stream with its like, and
# the long ones begin first. Unit and property tests fill the gaps, a file at a time. The browser comes last: its loop
# runs on in the thread in which other tests run theirs.
STREAMS = ("flows", "engine", "faults", "property", "unit", "ui")
REAL = ("flows", "engine", "faults", "ui")
WATCHES_FIRST_ENGINE = ("test_audit_host",)
"""Tests of the service that tell of every container on the host's own engine."""
APART = ("test_fault_matrix",)
"""Tests of the service that share no engine and no Caisson with the others, whose stream is the longest anyway."""


def stream_of(test: str) -> str:
    """The stream of a test, by its ID.

    >>> stream_of("tests/engine/test_push.py::test_tags[http-20.10]"), stream_of("tests/unit/test_disk.py::test_room")
    ('engine 20.10', 'unit test_disk')
    """
    file, _, name = test.partition("::")
    if Path(file).stem in WATCHES_FIRST_ENGINE:
        return "engine 20.10"
    if Path(file).stem in APART:
        return "faults"
    _, kind, *_ = ("", *Path(file).parts[1:-1], "unit")
    engine = re.search(r"[\[-](20\.10|26\.1)[]-]", name) if kind == "engine" else None
    return f"engine {engine[1]}" if engine else kind if kind in ("flows", "ui") else f"{kind} {Path(file).stem}"


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    streams = {item: stream_of(item.nodeid) for item in items}
    items.sort(key=lambda item: (STREAMS.index(streams[item].split()[0]), "test_" in streams[item]))
    for item, stream in streams.items():
        if stream.split()[0] in REAL:
            # A busy machine alone can fail it. What passes only when it is tried again is told, as RERUN.
            item.add_marker(pytest.mark.flaky(reruns=2))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> LoadScopeScheduling:
    return Streams(config, log)


class Streams(LoadScopeScheduling):
    """A stream is one worker's, from its first test to its last."""

    def _split_scope(self, nodeid: str) -> str:
        return stream_of(nodeid)


def _builders(host: EngineHost) -> dict[str, str]:
    label = quote(json.dumps({"label": ["caisson.build"]}))
    containers = ask_engine(host, f"/containers/json?all=1&filters={label}")
    return {
        container["Id"]: name
        for container in containers
        if (name := f"caisson-build-{container['Labels']['caisson.build']}") in {n[1:] for n in container["Names"]}
    }


_BEFORE = pytest.StashKey[dict[EngineHost, frozenset[str]]]()


def pytest_sessionstart(session: pytest.Session) -> None:
    # Once for all streams: one that ends must not take the builders of another for its own.
    if not hasattr(session.config, "workerinput") and os.environ.get("CAISSON_TEST_ENGINES"):
        session.stash[_BEFORE] = {host: frozenset(_builders(host)) for host in find_engines() if _answers(host)}


def pytest_sessionfinish(session: pytest.Session) -> None:
    """No builder may be left on any engine that was not there before."""
    before = session.stash.get(_BEFORE, {})
    deadline = time.monotonic() + REMOVAL_SECONDS
    while left := [
        f"{name} on engine {host.name}"
        for host, known in before.items()
        if _answers(host)
        for container, name in _builders(host).items()
        if container not in known
    ]:
        if time.monotonic() > deadline:
            pytest.exit(f"Builders are left: {', '.join(sorted(left))}", returncode=1)
        time.sleep(0.2)


def _answers(host: EngineHost) -> bool:
    try:
        ask_engine(host, "/_ping")
    except OSError:
        return False
    return True


@pytest.fixture(scope="session")
def engine_host(request: pytest.FixtureRequest) -> EngineHost:
    """One engine after the other."""
    host: EngineHost = request.param
    try:
        ask_engine(host, "/_ping")
    except OSError as error:
        pytest.fail(
            f"Engine {host.name} doesn't answer at {host.docker_host} ({error}). "
            "Start it: deployments/setup/engine.sh, then deployments/setup/test-engine.sh start.",
            pytrace=False,
        )
    return host
