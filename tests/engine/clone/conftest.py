"""Builders and git servers for the tests of clones: on the host's own engine, since git knows nothing of engines."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.conftest import EngineHost, find_engines
from tests.engine.clone.workbench import TOKEN, Builder, MakeRepository, make_repository, running_builder
from tests.engine.git_servers import GitHttp, GitSsh, git_http, git_ssh
from tests.engine.repositories import Repository


@pytest.fixture(scope="session")
def host() -> EngineHost:
    return find_engines()[0]


@pytest.fixture(scope="package")
def package_builder(host: EngineHost) -> Iterator[Builder]:
    with running_builder(host.docker_host, "caisson-test-clone") as builder:
        yield builder


@pytest.fixture
def builder(package_builder: Builder) -> Builder:
    """One that is as good as new."""
    package_builder.empty()
    return package_builder


@pytest.fixture(scope="package")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("repositories")


@pytest.fixture(scope="package")
def http(root: Path, host: EngineHost) -> Iterator[GitHttp]:
    with git_http(root, host.gateway, {"oauth2": TOKEN}) as server:
        yield server


@pytest.fixture(scope="package")
def other(root: Path, host: EngineHost) -> Iterator[GitHttp]:
    """Another server with the same repositories: elsewhere, for those that have credentials for the first."""
    with git_http(root, host.gateway, {"oauth2": TOKEN}) as server:
        yield server


@pytest.fixture(scope="package")
def ssh(root: Path, http: GitHttp, host: EngineHost, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GitSsh]:
    with git_ssh(root, host.gateway, tmp_path_factory.mktemp("ssh"), lfs_url=f"{http.url}/smart") as server:
        yield server


_numbers = itertools.count()


@pytest.fixture
def new(root: Path) -> MakeRepository:
    def make(files: Mapping[str, str | bytes] | None = None, *, object_format: str = "sha1") -> Repository:
        return make_repository(root, f"r{next(_numbers)}", files, object_format=object_format)

    return make
