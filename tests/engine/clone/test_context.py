"""The context and the Dockerfile are in the repository, whatever symlinks say."""

from __future__ import annotations

import os

import pytest

from caisson.errors import (
    CaissonError,
    ContextInvalid,
    DockerfileInvalid,
    WorkspaceFull,
)
from tests.conftest import EngineHost
from tests.engine.clone.workbench import (
    Builder,
    MakeRepository,
    running_builder,
)
from tests.engine.git_servers import GitHttp
from tests.engine.repositories import Repository


def _get(builder: Builder, http: GitHttp, repository: Repository, context: str = "", dockerfile: str = "") -> None:
    source = builder.source(f"{http.url}/smart{repository.url}")
    builder.clone(source, builder.resolve(source), context=context, dockerfile=dockerfile)


def _link(repository: Repository, name: str, target: str) -> None:
    (repository.directory / name).parent.mkdir(parents=True, exist_ok=True)
    (repository.directory / name).symlink_to(target)
    repository.commit({})


@pytest.mark.parametrize(
    ("context", "dockerfile"),
    [
        ("", ""),
        ("sub", "other.Dockerfile"),
        ("sub/deep", "../other.Dockerfile"),
        ("inside", "other.Dockerfile"),
        ("sub", "linked"),
    ],
)
def test_what_is_in_the_repository_passes(
    context: str, dockerfile: str, builder: Builder, http: GitHttp, new: MakeRepository
) -> None:
    repository = new({"sub/other.Dockerfile": "FROM scratch\n", "sub/deep/x": ""})
    _link(repository, "inside", "sub")
    _link(repository, "sub/linked", "../Dockerfile")
    _get(builder, http, repository, context, dockerfile)


@pytest.mark.parametrize(
    ("name", "target", "failure"),
    [
        ("ctx", "/etc", ContextInvalid),
        ("ctx", "..", ContextInvalid),
        ("ctx", "/proc/self/root/app", DockerfileInvalid),
        ("ctx/Dockerfile", "/etc/passwd", DockerfileInvalid),
        ("ctx/Dockerfile", "/proc/self/environ", DockerfileInvalid),
        ("ctx/Dockerfile", "../../etc/passwd", DockerfileInvalid),
        ("ctx/Dockerfile", "/none", DockerfileInvalid),
    ],
)
def test_a_symlink_that_leads_out_is_refused(
    name: str,
    target: str,
    failure: type[CaissonError],
    builder: Builder,
    http: GitHttp,
    new: MakeRepository,
) -> None:
    repository = new()
    _link(repository, name, target)
    if target == "/proc/self/root/app":
        # It is the workspace again, by another way: what counts is where it leads.
        _get(builder, http, repository, "ctx")
        return
    with pytest.raises(failure, match="symlink"):
        _get(builder, http, repository, "ctx")


@pytest.mark.parametrize("name", [".dockerignore", "Dockerfile.dockerignore"])
def test_a_dockerignore_that_leads_out_is_refused(
    name: str, builder: Builder, http: GitHttp, new: MakeRepository
) -> None:
    repository = new()
    _link(repository, name, "/proc/self/environ")
    with pytest.raises(ContextInvalid, match="dockerignore"):
        _get(builder, http, repository)


@pytest.mark.parametrize(
    ("context", "dockerfile", "failure", "hint"),
    [
        ("none", "", ContextInvalid, "There is Dockerfile, docker/web.Dockerfile"),
        ("Dockerfile", "", ContextInvalid, "There is"),
        ("docker", "", DockerfileInvalid, "Set dockerfile to web.Dockerfile"),
        ("", "dockerfile.web", DockerfileInvalid, "docker/web.Dockerfile"),
        ("", "docker", DockerfileInvalid, "docker/web.Dockerfile"),
        (";;", "", ContextInvalid, ""),
        ("$(touch${IFS}/tmp/pwned)", "", ContextInvalid, ""),
    ],
)
def test_what_is_missing_is_named_with_what_there_is(
    context: str,
    dockerfile: str,
    failure: type[CaissonError],
    hint: str,
    builder: Builder,
    http: GitHttp,
    new: MakeRepository,
) -> None:
    repository = new({"docker/web.Dockerfile": "FROM scratch\n"})
    with pytest.raises(failure) as caught:
        _get(builder, http, repository, context, dockerfile)
    assert hint in caught.value.hint
    assert not builder.left_by("pwned")


def test_a_repository_that_does_not_fit_fills_the_workspace(
    host: EngineHost, http: GitHttp, new: MakeRepository
) -> None:
    repository = new({"random": os.urandom(3 << 20)})
    with (
        running_builder(host.docker_host, "caisson-test-clone-small", "1m") as small,
        pytest.raises(WorkspaceFull, match=r"limits\.workspace"),
    ):
        small.get(f"{http.url}/smart{repository.url}")
