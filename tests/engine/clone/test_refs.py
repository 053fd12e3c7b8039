"""Exactly the wanted commit comes into a real builder, whatever kind of ref and of server."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from caisson.errors import (
    RefNotFound,
)
from tests.conftest import EngineHost
from tests.engine.clone.workbench import (
    Builder,
    MakeRepository,
    make_repository,
)
from tests.engine.git_servers import GitHttp, GitSsh, git_ssh
from tests.engine.repositories import GitDaemon, Repository, git, git_daemon


@dataclass(frozen=True)
class Refs:
    """A repository with every kind of ref, and the commits by what names them; no ref names ``hidden``."""

    repository: Repository
    first: str
    hidden: str
    middle: str
    main: str
    feature: str
    pull: str
    tag_object: str


@pytest.fixture(scope="module")
def refs(root: Path) -> Refs:
    repository = make_repository(root, "refs")
    directory = repository.directory
    first = git(directory, "rev-parse", "HEAD")
    git(directory, "tag", "light")
    hidden = repository.commit({"n": "hidden"})
    middle = repository.commit({"n": "2"})
    git(directory, "tag", "-a", "-m", "a release", "v1.0")
    git(directory, "checkout", "--quiet", "-b", "feature/x", first)
    feature = repository.commit({"n": "feature"})
    git(directory, "checkout", "--quiet", "--detach", first)
    pull = repository.commit({"n": "pull"})
    git(directory, "update-ref", "refs/pull/7/head", pull)
    git(directory, "update-ref", "refs/merge-requests/3/head", pull)
    git(directory, "checkout", "--quiet", "main")
    git(directory, "branch", "both", first)
    git(directory, "tag", "both", middle)
    main = repository.commit({"n": "3"})
    git(directory, "update-server-info")
    return Refs(repository, first, hidden, middle, main, feature, pull, git(directory, "rev-parse", "v1.0"))


@pytest.fixture(scope="module")
def daemon(root: Path, host: EngineHost) -> Iterator[GitDaemon]:
    with git_daemon(root, host.gateway) as server:
        yield server


KINDS = {
    "": ("main", "branch", "main", True),
    "HEAD": ("main", "branch", "main", True),
    "main": ("main", "branch", "main", True),
    "feature/x": ("feature", "branch", "feature/x", False),
    "refs/heads/feature/x": ("feature", "branch", "feature/x", False),
    "v1.0": ("middle", "tag", "v1.0", False),
    "refs/tags/v1.0": ("middle", "tag", "v1.0", False),
    "light": ("first", "tag", "light", False),
    "both": ("first", "branch", "both", False),
    "refs/tags/both": ("middle", "tag", "both", False),
    "refs/pull/7/head": ("pull", "pull_request", "7", False),
    "refs/merge-requests/3/head": ("pull", "pull_request", "3", False),
    "{main}": ("main", "commit", "", False),
    "{middle}": ("middle", "commit", "", False),
    "{hidden}": ("hidden", "commit", "", False),
    "{hidden:.8}": ("hidden", "commit", "", False),
    "{tag_object}": ("middle", "commit", "", False),
    "{main:.10}": ("main", "commit", "", False),
    "{middle:.8}": ("middle", "commit", "", False),
    "{pull:.7}": ("pull", "commit", "", False),
}


@pytest.mark.parametrize("ref", KINDS)
def test_every_kind_of_ref_gives_exactly_its_commit(ref: str, builder: Builder, http: GitHttp, refs: Refs) -> None:
    wanted, kind, name, is_default = KINDS[ref]
    source = builder.source(f"{http.url}/smart{refs.repository.url}")
    chosen = builder.resolve(source, ref.format_map(vars(refs)))
    assert (chosen.sha, chosen.kind, chosen.name) == (getattr(refs, wanted), kind, name)
    assert chosen.is_default_branch is is_default
    assert chosen.remote_tags == ("both", "light", "v1.0")
    cloned = builder.clone(source, chosen)
    git_says = "git rev-parse HEAD; git log -1 --format=%ct; git rev-list --count HEAD; git status --porcelain"
    assert builder.run("sh", "-c", git_says).split() == [chosen.sha, f"{cloned.commit_time.timestamp():.0f}", "1"]
    assert cloned.sha == chosen.sha
    assert 4096 <= cloned.size_bytes < 1 << 20


@pytest.mark.parametrize("server", ["old", "dumb"])
@pytest.mark.parametrize("ref", ["main", "v1.0", "refs/pull/7/head", "{hidden}", "{hidden:.8}"])
def test_servers_that_give_no_single_commit_give_the_same(
    server: str, ref: str, builder: Builder, http: GitHttp, refs: Refs
) -> None:
    cloned = builder.get(f"{http.url}/{server}{refs.repository.url}", ref.format_map(vars(refs)))
    assert cloned.sha == builder.run("git", "rev-parse", "HEAD").strip() == getattr(refs, KINDS[ref][0])


@pytest.mark.parametrize("ref", ["", "v1.0", "refs/pull/7/head", "{hidden}", "{hidden:.8}"])
def test_every_kind_of_ref_comes_by_ssh_and_by_the_git_protocol(
    ref: str, builder: Builder, ssh: GitSsh, daemon: GitDaemon, refs: Refs
) -> None:
    text, wanted = ref.format_map(vars(refs)), getattr(refs, KINDS[ref][0])
    assert builder.get(ssh.url(refs.repository.url), text, ssh.key).sha == wanted
    builder.empty()
    assert builder.get(f"git://{daemon.address}:{daemon.port}{refs.repository.url}", text).sha == wanted


def test_a_name_of_a_branch_and_a_tag_is_the_branch_and_the_log_says_so(
    builder: Builder, http: GitHttp, refs: Refs
) -> None:
    builder.get(f"{http.url}/smart{refs.repository.url}", "both")
    assert "both is a branch and a tag: the branch is taken; refs/tags/both means the tag" in builder.lines


def test_a_tag_keeps_its_name_for_builds_that_ask_git_for_their_version(
    builder: Builder, http: GitHttp, refs: Refs
) -> None:
    builder.get(f"{http.url}/smart{refs.repository.url}", "v1.0")
    assert builder.run("git", "describe").strip() == "v1.0"
    assert builder.run("git", "rev-parse", "v1.0").strip() == refs.tag_object


@pytest.mark.parametrize(
    ("ref", "near"), [("mian", "main"), ("MAIN", "main"), ("v1", "v1.0"), ("feature", "feature/x")]
)
def test_a_ref_that_is_not_there_is_named_with_what_is_near(
    ref: str, near: str, builder: Builder, http: GitHttp, refs: Refs
) -> None:
    with pytest.raises(RefNotFound, match=f"'{ref}' is not in the repository") as caught:
        builder.get(f"{http.url}/smart{refs.repository.url}", ref)
    assert near in caught.value.hint


@pytest.mark.parametrize("ref", ["0123456789abcdef0123456789abcdef01234567", "0123456789"])
@pytest.mark.parametrize("server", ["smart", "old", "dumb"])
def test_a_commit_that_is_not_there_is_not_found(
    ref: str, server: str, builder: Builder, http: GitHttp, refs: Refs
) -> None:
    with pytest.raises(RefNotFound):
        builder.get(f"{http.url}/{server}{refs.repository.url}", ref)


def test_an_empty_repository_has_no_commit(builder: Builder, http: GitHttp, root: Path) -> None:
    (root / "empty").mkdir()
    git(root / "empty", "init", "--quiet", "--initial-branch=main")
    with pytest.raises(RefNotFound, match="HEAD has no commit"):
        builder.get(f"{http.url}/smart/empty/.git")


def test_a_sha256_repository_is_cloned(builder: Builder, http: GitHttp, new: MakeRepository) -> None:
    repository = new(object_format="sha256")
    cloned = builder.get(f"{http.url}/smart{repository.url}")
    assert cloned.sha == git(repository.directory, "rev-parse", "HEAD")
    assert len(cloned.sha) == 64


@pytest.mark.parametrize("server", ["smart", "old"])
def test_a_branch_that_moves_meanwhile_does_not_change_what_is_built(
    server: str, builder: Builder, http: GitHttp, new: MakeRepository
) -> None:
    repository = new()
    source = builder.source(f"{http.url}/{server}{repository.url}")
    chosen = builder.resolve(source, "main")
    repository.commit({"a": "two\n"})
    repository.commit({"a": "three\n"})
    assert builder.clone(source, chosen).sha == chosen.sha
    assert builder.run("cat", "/app/a") == "one\n"


@pytest.mark.parametrize(("server", "found"), [("smart", True), ("old", False)])
def test_a_branch_that_is_rewritten_meanwhile_is_built_or_refused_never_replaced(
    server: str, found: bool, builder: Builder, http: GitHttp, new: MakeRepository
) -> None:
    repository = new()
    source = builder.source(f"{http.url}/{server}{repository.url}")
    chosen = builder.resolve(source, "main")
    repository.commit({"a": "two\n"})
    git(repository.directory, "checkout", "--quiet", "--orphan", "new")
    repository.commit({"a": "three\n"})
    git(repository.directory, "branch", "-M", "new", "main")
    if found:
        assert builder.clone(source, chosen).sha == chosen.sha
    else:
        with pytest.raises(RefNotFound, match=chosen.sha[:7]):
            builder.clone(source, chosen)


def test_a_branch_that_is_deleted_meanwhile_is_still_built_from_its_commit(
    builder: Builder, http: GitHttp, new: MakeRepository
) -> None:
    repository = new()
    git(repository.directory, "branch", "gone")
    source = builder.source(f"{http.url}/smart{repository.url}")
    chosen = builder.resolve(source, "gone")
    git(repository.directory, "branch", "-D", "gone")
    assert builder.clone(source, chosen).sha == chosen.sha


@pytest.mark.parametrize(
    "name",
    ["$(touch${IFS}/tmp/pwned)", "`touch${IFS}/tmp/pwned`", "a;touch${IFS}/tmp/pwned", "a'b\"c", "a|b&c", "ünï/$HOME"],
)
def test_no_shell_sees_the_name_of_a_ref(name: str, builder: Builder, http: GitHttp, new: MakeRepository) -> None:
    repository = new()
    git(repository.directory, "branch", name)
    assert builder.get(f"{http.url}/smart{repository.url}", name).sha
    assert not builder.left_by("pwned")


def test_a_server_without_protocol_2_gives_an_old_commit(
    builder: Builder, refs: Refs, root: Path, host: EngineHost, tmp_path: Path
) -> None:
    with git_ssh(root, host.gateway, tmp_path / "ssh", old=True) as ssh:
        assert builder.get(ssh.url(refs.repository.url), refs.hidden, ssh.key).sha == refs.hidden
    assert any("fetching the history" in line for line in builder.lines)
