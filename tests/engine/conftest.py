"""What the tests on real engines share: settings for one engine, repositories that its builders reach, one build."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from caisson.builder import find_builders
from caisson.docker_engine import DockerEngine
from caisson.engine import ContainerInfo, Engine
from caisson.plan import LABEL_HOST
from caisson.report import BuildReport
from caisson.settings import Settings, load_settings
from caisson.spec import parse_request
from flows.build_image import as_function, run_build
from tests.conftest import EngineHost
from tests.engine.buildx import copy_buildx
from tests.engine.own_disks import STORES, Disk, disk_of, engine_of
from tests.engine.repositories import GitDaemon, Repository, git_daemon
from tests.own_engine import OwnEngine

CAISSON = str(Path(sys.executable).with_name("caisson"))
COMMAND_SECONDS = 180
Run = Callable[..., subprocess.CompletedProcess[str]]
Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture(scope="session")
def buildx(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ...]:
    target = copy_buildx(tmp_path_factory.mktemp("buildx") / "docker-buildx")
    return (target, *(Path(path) for path in os.environ.get("CAISSON_TEST_BUILDX", "").split(":") if path))


@pytest.fixture(scope="module")
def git_root(tmp_path_factory: pytest.TempPathFactory, engine_host: EngineHost) -> Iterator[GitDaemon]:
    with git_daemon(tmp_path_factory.mktemp("git"), engine_host.gateway) as daemon:
        yield daemon


@pytest.fixture
def engine(engine_host: EngineHost) -> Iterator[Engine]:
    with DockerEngine(engine_host.docker_host) as docker:
        yield docker


@pytest.fixture(scope="module", params=STORES)
def store(request: pytest.FixtureRequest) -> Iterator[OwnEngine]:
    """An engine of the tests' own on a disk of its own, for each way to keep images."""
    with engine_of(STORES[request.param]) as own:
        yield own


@pytest.fixture
def disk(store: OwnEngine, tmp_path: Path) -> Iterator[Disk]:
    """That one without any image, as a prune sees it."""
    with disk_of(store, tmp_path) as disk:
        yield disk


@pytest.fixture
def settings(engine_host: EngineHost, tmp_path: Path) -> Settings:
    return load_settings(
        _env_file=None,
        state_dir=tmp_path / "state",
        docker_host=engine_host.docker_host,
        engine_socket=engine_host.socket_in_engine,
        guard_dir=engine_host.guard_dir,
        engine_guard_dir=engine_host.engine_guard_dir,
        docker_data_root=engine_host.data_root,
        min_free_bytes=64 << 20,
        timeout_minutes=3,
        deadline_grace_seconds=5,
    )


@dataclass
class Builds:
    """Runs builds in this process on one engine, and cleans their images up."""

    settings: Settings
    engine: Engine
    git: GitDaemon

    def __call__(self, repository: Repository | str, **request: Any) -> BuildReport:
        """Build and return the report; raises what the build raises."""
        url = repository if isinstance(repository, str) else repository.url
        request.setdefault("image", "caisson-test/app")
        return run_build(parse_request({"repository_url": url, **request}), self.settings, call=as_function)

    def with_settings(self, **changes: Any) -> Builds:
        return Builds(self.settings.model_copy(update=changes), self.engine, self.git)

    def repository(self, dockerfile: str, name: str = "app", **files: str) -> Repository:
        return self.git.repository(name, {"Dockerfile": dockerfile, **files})


@pytest.fixture
def builds(settings: Settings, engine: Engine, git_root: GitDaemon) -> Iterator[Builds]:
    yield Builds(settings, engine, git_root)
    for image in engine.list_images():
        for tag in image.tags:
            if tag.startswith(("caisson-test/", "caisson.local/")):
                engine.untag_image(tag)


def own_builders(engine: Engine, settings: Settings) -> list[ContainerInfo]:
    """Those on the engine now, in any state, less what other tests' Caissons have there."""
    return [item for item in find_builders(engine) if item.labels.get(LABEL_HOST) == settings.host_name]


@pytest.fixture
def leftovers(engine: Engine, settings: Settings) -> Callable[[], list[str]]:
    """Names of the builders of these tests that are on the engine now, in any state."""
    return lambda: [container.name for container in own_builders(engine, settings)]


@pytest.fixture
def environment(settings: Settings, tmp_path: Path) -> Mapping[str, str]:
    """The settings of the test, as variables of a command in a directory of its own."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("CAISSON_", "PREFECT_"))}
    own = ("state_dir", "docker_host", "engine_socket", "guard_dir", "engine_guard_dir", "docker_data_root")
    return {
        **inherited,
        **{f"CAISSON_{name.upper()}": str(getattr(settings, name)) for name in (*own, "min_free_bytes")},
    }


@pytest.fixture
def run(environment: Mapping[str, str], tmp_path: Path) -> Run:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [CAISSON, *arguments],
            env=dict(environment),
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
            check=False,
        )

    return run


@pytest.fixture
def start(environment: Mapping[str, str], tmp_path: Path) -> Iterator[Start]:
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [CAISSON, *arguments],
            env=dict(environment),
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        # Not SIGKILL: that would leave the builder to its deadline.
        process.terminate()
        process.communicate(timeout=60)
