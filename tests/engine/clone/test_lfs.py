"""LFS files are there when asked for, from allowed places."""

from __future__ import annotations

import pytest

from caisson.errors import (
    LfsFailed,
)
from tests.engine.clone.workbench import (
    LFS_CONTENT,
    TOKEN,
    Builder,
    MakeRepository,
    submodule_of,
    with_submodule,
)
from tests.engine.git_servers import GitHttp, GitSsh, lfs_pointer
from tests.engine.repositories import Repository, git


@pytest.fixture
def repository(new: MakeRepository, http: GitHttp) -> Repository:
    attributes = "*.bin filter=lfs diff=lfs merge=lfs -text\n"
    return new({".gitattributes": attributes, "big.bin": lfs_pointer(http, LFS_CONTENT)})


def test_they_are_pointers_unless_asked_for(builder: Builder, http: GitHttp, repository: Repository) -> None:
    assert builder.get(f"{http.url}/smart{repository.url}").lfs_files == 0
    assert builder.run("head", "-c", "7", "/app/big.bin") == "version"


@pytest.mark.parametrize(("server", "secret"), [("smart", ""), ("private", TOKEN)])
def test_they_are_fetched_and_kept_once(
    server: str, secret: str, builder: Builder, http: GitHttp, repository: Repository
) -> None:
    cloned = builder.get(f"{http.url}/{server}{repository.url}", secret=secret, lfs=True)
    assert cloned.lfs_files == 1
    assert builder.run("cat", "/app/big.bin") == LFS_CONTENT.decode()
    assert builder.run("find", "/app/.git", "-size", f"{len(LFS_CONTENT)}c") == ""


def test_they_come_with_a_repository_that_is_had_by_ssh(builder: Builder, ssh: GitSsh, repository: Repository) -> None:
    assert builder.get(ssh.url(repository.url), secret=ssh.key, lfs=True).lfs_files == 1
    assert builder.run("cat", "/app/big.bin") == LFS_CONTENT.decode()


def test_they_come_in_submodules(builder: Builder, http: GitHttp, new: MakeRepository) -> None:
    outer = with_submodule(new, f"{http.url}/smart{{inner}}")
    inner = submodule_of(outer)
    sha = inner.commit({".gitattributes": "*.bin filter=lfs\n", "big.bin": lfs_pointer(http, LFS_CONTENT)})
    git(outer.directory, "update-index", "--cacheinfo", f"160000,{sha},lib")
    git(outer.directory, "commit", "--quiet", "-m", "newer")
    builder.get(f"{http.url}/smart{outer.url}", lfs=True, submodules=True)
    assert builder.run("cat", "/app/lib/big.bin") == LFS_CONTENT.decode()


def test_a_missing_object_is_a_failure_of_lfs(builder: Builder, http: GitHttp, repository: Repository) -> None:
    http.objects.clear()
    with pytest.raises(LfsFailed, match="Object does not exist"):
        builder.get(f"{http.url}/smart{repository.url}", lfs=True)


def test_an_lfs_server_elsewhere_does_not_get_the_credentials(
    builder: Builder, http: GitHttp, other: GitHttp, repository: Repository
) -> None:
    other.asked.clear()
    repository.commit({".lfsconfig": f"[lfs]\nurl = {other.url}/private{repository.url}/info/lfs\n"})
    with pytest.raises(LfsFailed):
        builder.get(f"{http.url}/private{repository.url}", secret=TOKEN, lfs=True)
    assert other.asked
    assert other.authorizations() == set()
