"""Who may have a repository, who gets the credentials, and what a failure tells."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from caisson.errors import (
    CaissonError,
    RepositoryDenied,
    RepositoryUnreachable,
    RequestInvalid,
)
from tests.conftest import EngineHost
from tests.engine.clone.workbench import (
    TOKEN,
    Builder,
    MakeRepository,
)
from tests.engine.git_servers import GitHttp, GitSsh, git_ssh


def test_a_private_repository_is_cloned_with_a_token(builder: Builder, http: GitHttp, new: MakeRepository) -> None:
    http.asked.clear()
    builder.get(f"{http.url}/private{new().url}", secret=TOKEN)
    assert http.authorizations() == {f"oauth2:{TOKEN}"}


def test_without_credentials_the_failure_tells_to_name_a_secret(
    builder: Builder, http: GitHttp, new: MakeRepository
) -> None:
    with pytest.raises(RepositoryDenied, match="name a secret in git_credentials"):
        builder.get(f"{http.url}/private{new().url}")


def test_with_wrong_credentials_the_failure_tells_to_check_them(
    builder: Builder, http: GitHttp, new: MakeRepository
) -> None:
    with pytest.raises(RepositoryDenied, match="Check the credentials") as caught:
        builder.get(f"{http.url}/private{new().url}", secret="oauth2:wrong-token-1234")
    assert "wrong-token" not in f"{caught.value} {caught.value.details} {builder.lines}"


@pytest.mark.parametrize(
    ("path", "failure"),
    [
        ("/smart/none/.git", RepositoryDenied),
        ("/status/404/x.git", RepositoryDenied),
        ("/status/403/x.git", RepositoryDenied),
        ("/status/503/x.git", RepositoryUnreachable),
        ("/status/429/x.git", RepositoryUnreachable),
    ],
)
def test_what_a_server_answers_decides_whether_it_is_worth_another_try(
    path: str, failure: type[CaissonError], builder: Builder, http: GitHttp
) -> None:
    with pytest.raises(failure) as caught:
        builder.get(f"{http.url}{path}")
    assert caught.value.retryable is (failure is RepositoryUnreachable)
    assert path in caught.value.message


@pytest.mark.parametrize("scheme", ["http", "git", "ssh"])
def test_a_server_that_is_not_there_is_unreachable(scheme: str, builder: Builder, host: EngineHost) -> None:
    with socket.socket() as unused:
        unused.bind((host.gateway, 0))
        with pytest.raises(RepositoryUnreachable):
            builder.get(f"{scheme}://{host.gateway}:{unused.getsockname()[1]}/a.git")


@pytest.mark.parametrize("scheme", ["http", "git", "ssh"])
def test_a_host_that_has_no_address_is_unreachable(scheme: str, builder: Builder) -> None:
    with pytest.raises(RepositoryUnreachable, match=r"host\.invalid"):
        builder.get(f"{scheme}://host.invalid/a.git")


@pytest.mark.parametrize("path", ["away", "private-away"])
def test_a_redirect_to_another_server_does_not_take_the_credentials_along(
    path: str, builder: Builder, http: GitHttp, other: GitHttp, new: MakeRepository
) -> None:
    other.asked.clear()
    target = f"{other.address}:{other.port}/private{new().url}"
    with pytest.raises(RepositoryDenied):
        builder.get(f"{http.url}/{path}/{target}", secret=TOKEN)
    assert other.asked
    assert other.authorizations() == set()


def test_a_redirect_to_a_public_repository_is_followed(
    builder: Builder, http: GitHttp, other: GitHttp, new: MakeRepository
) -> None:
    assert builder.get(f"{http.url}/away/{other.address}:{other.port}/smart{new().url}").sha


def test_ssh_lets_in_who_has_the_key_on_a_known_host(builder: Builder, ssh: GitSsh, new: MakeRepository) -> None:
    source = builder.source(ssh.url(new().url), ssh.key, known_hosts=ssh.known_hosts)
    assert builder.clone(source, builder.resolve(source)).sha


@pytest.mark.parametrize("key_type", ["rsa", "ecdsa"])
def test_keys_of_other_types_do_as_well(
    key_type: str,
    builder: Builder,
    root: Path,
    host: EngineHost,
    tmp_path: Path,
    new: MakeRepository,
) -> None:
    with git_ssh(root, host.gateway, tmp_path / "ssh", key_type=key_type) as ssh:
        assert builder.get(ssh.url(new().url), secret=ssh.key).sha


def test_ssh_refuses_another_key(
    builder: Builder,
    ssh: GitSsh,
    root: Path,
    host: EngineHost,
    tmp_path: Path,
    new: MakeRepository,
) -> None:
    with git_ssh(root, host.gateway, tmp_path / "ssh") as stranger:
        key = stranger.key
    with pytest.raises(RepositoryDenied, match="Check the credentials"):
        builder.get(ssh.url(new().url), secret=key)


def test_a_host_key_that_is_not_the_known_one_is_refused(
    builder: Builder,
    ssh: GitSsh,
    root: Path,
    host: EngineHost,
    tmp_path: Path,
    new: MakeRepository,
) -> None:
    with git_ssh(root, host.gateway, tmp_path / "ssh") as stranger:
        wrong = ssh.known_hosts.split()[0] + " " + stranger.known_hosts.split(" ", 1)[1]
        for known_hosts in (wrong, stranger.known_hosts):
            source = builder.source(ssh.url(new().url), ssh.key, known_hosts=known_hosts)
            with pytest.raises(RepositoryDenied, match="host key"):
                builder.resolve(source)


def test_a_key_that_is_none_is_the_fault_of_the_secret(builder: Builder, ssh: GitSsh, new: MakeRepository) -> None:
    broken = ssh.key.replace("b3BlbnNzaC1rZXk", "b3BlbnNzaC1rZXg")
    with pytest.raises(RequestInvalid, match="git_credentials"):
        builder.get(ssh.url(new().url), secret=broken)
