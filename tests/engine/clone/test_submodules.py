"""Submodules come from allowed places, and get the credentials only where they belong."""

from __future__ import annotations

from pathlib import Path

import pytest

from caisson.errors import (
    SubmoduleDenied,
)
from tests.conftest import EngineHost
from tests.engine.clone.workbench import (
    TOKEN,
    Builder,
    MakeRepository,
    submodule_of,
    with_submodule,
)
from tests.engine.git_servers import GitHttp, GitSsh, git_ssh
from tests.engine.repositories import git


def test_they_are_left_out_unless_asked_for(builder: Builder, http: GitHttp, new: MakeRepository) -> None:
    outer = with_submodule(new, f"{http.url}/smart{{inner}}")
    assert builder.get(f"{http.url}/smart{outer.url}").submodules == ()
    assert builder.run("ls", "-A", "/app/lib") == ""


@pytest.mark.parametrize("url", ["{base}/smart{{inner}}", "../../{{name}}/.git"])
def test_absolute_and_relative_ones_are_cloned(url: str, builder: Builder, http: GitHttp, new: MakeRepository) -> None:
    outer = with_submodule(new, url.format(base=http.url))
    cloned = builder.get(f"{http.url}/smart{outer.url}", submodules=True)
    assert cloned.submodules == ("lib",)
    assert builder.run("cat", "/app/lib/inner") == "x\n"


def test_submodules_of_submodules_are_cloned(builder: Builder, http: GitHttp, new: MakeRepository) -> None:
    middle = with_submodule(new, f"{http.url}/smart{{inner}}")
    sha = git(middle.directory, "rev-parse", "HEAD")
    outer = with_submodule(new, f"{http.url}/smart{middle.url}", commit=sha)
    cloned = builder.get(f"{http.url}/smart{outer.url}", submodules=True)
    assert cloned.submodules == ("lib", "lib/lib")


@pytest.mark.parametrize("server", ["smart", "old", "dumb"])
def test_an_old_commit_of_a_submodule_is_found(
    server: str, builder: Builder, http: GitHttp, new: MakeRepository
) -> None:
    outer = with_submodule(new, f"{http.url}/{server}{{inner}}")
    inner = submodule_of(outer)
    inner.commit({"inner": "newer\n"})
    git(inner.directory, "update-server-info")
    builder.get(f"{http.url}/smart{outer.url}", submodules=True)
    assert builder.run("cat", "/app/lib/inner") == "x\n"


def test_a_private_one_on_the_same_server_gets_the_credentials(
    builder: Builder, http: GitHttp, new: MakeRepository
) -> None:
    outer = with_submodule(new, "../../{name}/.git")
    assert builder.get(f"{http.url}/private{outer.url}", secret=TOKEN, submodules=True).submodules == ("lib",)


def test_one_on_another_server_does_not_get_the_credentials(
    builder: Builder, http: GitHttp, other: GitHttp, new: MakeRepository
) -> None:
    other.asked.clear()
    outer = with_submodule(new, f"{other.url}/private{{inner}}")
    with pytest.raises(SubmoduleDenied, match="'lib'"):
        builder.get(f"{http.url}/private{outer.url}", secret=TOKEN, submodules=True)
    assert other.asked
    assert other.authorizations() == set()


def test_a_relative_one_comes_by_ssh_with_the_same_key_and_not_from_another_host(
    builder: Builder,
    ssh: GitSsh,
    root: Path,
    host: EngineHost,
    tmp_path: Path,
    new: MakeRepository,
) -> None:
    outer = with_submodule(new, "../../{name}/.git")
    assert builder.get(ssh.url(outer.url), secret=ssh.key, submodules=True).submodules == ("lib",)
    builder.empty()
    with git_ssh(root, host.gateway, tmp_path / "ssh") as elsewhere:
        (tmp_path / "ssh" / "user.pub").write_text((ssh.log.parent / "user.pub").read_text())
        outer = with_submodule(new, elsewhere.url("{inner}"))
        with pytest.raises(SubmoduleDenied):
            builder.get(ssh.url(outer.url), secret=ssh.key, submodules=True)
        assert "Accepted" not in elsewhere.log.read_text()
        assert "Postponed" not in elsewhere.log.read_text()


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("file:///app/.git", "protocol 'file'"),
        ("/app/.git", "protocol 'file'"),
        ("ext::sh -c touch% /tmp/pwned", "protocol 'ext'"),
        ("ext::/usr/bin/touch /tmp/pwned", "protocol 'ext'"),
        ("https://host.invalid/a.git", "protocol 'https'"),
        ("ssh://-oProxyCommand=touch%20/tmp/pwned/x", "'lib'"),
        ("-u./payload", "gitmodulesUrl"),
    ],
)
def test_other_protocols_and_options_are_refused(
    url: str, reason: str, builder: Builder, http: GitHttp, new: MakeRepository
) -> None:
    outer = with_submodule(new, url)
    with pytest.raises(SubmoduleDenied, match=reason):
        builder.get(f"{http.url}/smart{outer.url}", submodules=True)
    assert not builder.left_by("pwned")


def test_a_command_in_gitmodules_is_not_run(builder: Builder, http: GitHttp, new: MakeRepository) -> None:
    outer = with_submodule(new, f"{http.url}/smart{{inner}}", "update = !touch /tmp/pwned")
    with pytest.raises(SubmoduleDenied):
        builder.get(f"{http.url}/smart{outer.url}", submodules=True)
    assert not builder.left_by("pwned")
