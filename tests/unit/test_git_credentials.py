"""Credentials from a secret's text, and the environment that git gets: safe, and without what it must not have."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from caisson.errors import RequestInvalid, SettingsInvalid
from caisson.git import parse_repository_url
from caisson.git_credentials import GitCredentials, git_environment

PROTOCOLS = ("https", "http", "ssh", "git")


def _key(directory: Path, *options: str) -> str:
    file = directory / "key"
    file.unlink(missing_ok=True)
    subprocess.run(["ssh-keygen", "-q", "-f", str(file), *options], check=True)
    return file.read_text()


def _config(env: Mapping[str, str]) -> dict[str, str]:
    return {env[f"GIT_CONFIG_KEY_{n}"]: env[f"GIT_CONFIG_VALUE_{n}"] for n in range(int(env["GIT_CONFIG_COUNT"]))}


@pytest.mark.parametrize(
    ("secret", "username", "password"),
    [
        ("ghp_token", "oauth2", "ghp_token"),
        (" ghp_token\n", "oauth2", "ghp_token"),
        ("me:tok:en", "me", "tok:en"),
        ("me@example.com:p@ss/w", "me@example.com", "p@ss/w"),
    ],
)
def test_a_token_may_come_with_a_user(secret: str, username: str, password: str) -> None:
    assert GitCredentials.parse(secret) == GitCredentials(username=username, password=password)


@pytest.mark.parametrize(
    "options", [("-t", "ed25519"), ("-t", "rsa", "-b", "2048"), ("-t", "rsa", "-b", "2048", "-m", "PEM")]
)
def test_a_private_key_is_taken_whole_whatever_its_line_ends(options: tuple[str, ...], tmp_path: Path) -> None:
    key = _key(tmp_path, *options, "-N", "")
    for text in (key, key.strip(), key.replace("\n", "\r\n"), f"\n  {key}\n\n"):
        assert GitCredentials.parse(text).ssh_key == key


@pytest.mark.parametrize(
    "options", [("-t", "ed25519"), ("-t", "rsa", "-b", "2048", "-m", "PEM"), ("-t", "ecdsa", "-m", "PKCS8")]
)
def test_a_key_with_a_passphrase_is_refused(options: tuple[str, ...], tmp_path: Path) -> None:
    with pytest.raises(RequestInvalid, match="git_credentials: the SSH private key has a passphrase"):
        GitCredentials.parse(_key(tmp_path, *options, "-N", "passphrase"))


@pytest.mark.parametrize("secret", ["", " \n", "two words", "two\nlines", "a\x00b", ":token", "user:", "tok\u2028en"])
def test_what_is_no_credential_is_refused_and_not_repeated(secret: str) -> None:
    with pytest.raises(RequestInvalid, match="git_credentials") as caught:
        GitCredentials.parse(secret)
    assert "words" not in str(caught.value)
    assert "token is" not in str(caught.value)


def test_a_key_without_its_end_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestInvalid, match="is not whole"):
        GitCredentials.parse(_key(tmp_path, "-t", "ed25519", "-N", "")[:-10])


def test_credentials_are_not_shown(tmp_path: Path) -> None:
    key = GitCredentials.parse(_key(tmp_path, "-t", "ed25519", "-N", ""))
    assert "OPENSSH" not in repr(key)
    assert repr(GitCredentials.parse("me:s3cr3t")) == "GitCredentials()"
    assert GitCredentials.parse("me:s3cr3t").secrets() == ("s3cr3t",)
    assert key.secrets() == (key.ssh_key,)


@pytest.mark.parametrize(
    ("url", "credentials", "reason"),
    [
        ("git://host/app", GitCredentials("u", "p"), "knows no credentials"),
        ("https://host/app", GitCredentials(ssh_key="k"), "is an SSH key, and the URL is https"),
        ("git@host:app", GitCredentials("u", "p"), "is a token, and the URL is ssh"),
    ],
)
def test_credentials_that_the_url_has_no_use_for_are_refused(
    url: str, credentials: GitCredentials, reason: str
) -> None:
    with pytest.raises(RequestInvalid, match=reason):
        git_environment(parse_repository_url(url, PROTOCOLS), credentials, protocols=PROTOCOLS)


def test_the_environment_allows_nothing_that_a_clone_does_not_need() -> None:
    env = git_environment(parse_repository_url("https://host/app", PROTOCOLS), None, protocols=("https", "ssh"))
    config = _config(env)
    assert env["GIT_ALLOW_PROTOCOL"] == "https:ssh"
    assert {key: value for key, value in config.items() if key.startswith("protocol.")} == {
        "protocol.allow": "never",
        "protocol.https.allow": "always",
        "protocol.ssh.allow": "always",
    }
    assert (env["GIT_CONFIG_NOSYSTEM"], env["GIT_CONFIG_GLOBAL"], env["GIT_TERMINAL_PROMPT"]) == ("1", "/dev/null", "0")
    assert config["core.hooksPath"] == "/dev/null"
    assert config["credential.helper"] == ""
    assert config["core.fsmonitor"] == "false"
    assert config["submodule.recurse"] == "false"
    assert config["fetch.fsckObjects"] == "true"
    assert config["http.followRedirects"] == "initial"
    assert not [key for key in config if key.startswith("filter.")]
    assert not [key for key in env if key.startswith("CAISSON_")]
    assert env["GIT_LFS_SKIP_SMUDGE"] == "1"


def test_git_itself_reads_the_configuration_as_it_is_meant() -> None:
    env = git_environment(parse_repository_url("https://host/app", PROTOCOLS), None, protocols=PROTOCOLS, lfs=True)
    said = subprocess.run(["git", "config", "--list", "-z"], env=env, cwd="/", check=True, capture_output=True).stdout
    read = dict(entry.split("\n", 1) for entry in said.decode().split("\0") if entry)
    assert read == {key.lower(): value for key, value in _config(env).items()}


def test_lfs_needs_its_filter_and_only_the_form_that_no_shell_sees_a_file_name_of() -> None:
    env = git_environment(parse_repository_url("https://host/app", PROTOCOLS), None, protocols=PROTOCOLS, lfs=True)
    filters = {key: value for key, value in _config(env).items() if key.startswith("filter.")}
    assert filters == {"filter.lfs.process": "git-lfs filter-process", "filter.lfs.required": "true"}
    assert "GIT_LFS_SKIP_SMUDGE" not in env


def test_credentials_are_in_no_variable_but_their_own() -> None:
    url = parse_repository_url("https://Host:443/app", PROTOCOLS)
    env = git_environment(url, GitCredentials("me", "s3cr3t"), protocols=PROTOCOLS)
    assert [key for key, value in env.items() if "s3cr3t" in value] == ["CAISSON_GIT_PASSWORD"]
    assert (env["CAISSON_GIT_USERNAME"], env["CAISSON_GIT_CREDENTIAL_URL"]) == ("me", "https://host")
    env = git_environment(
        parse_repository_url("git@host:app", PROTOCOLS), GitCredentials(ssh_key="k3y"), protocols=PROTOCOLS
    )
    assert [key for key, value in env.items() if "k3y" in value] == ["CAISSON_GIT_SSH_KEY"]
    assert env["CAISSON_GIT_CREDENTIAL_URL"] == "ssh://host"


def test_known_hosts_that_do_not_fit_a_variable_are_a_fault_of_the_settings() -> None:
    url = parse_repository_url("git@host:app", PROTOCOLS)
    assert git_environment(url, None, protocols=PROTOCOLS, known_hosts="x")["CAISSON_GIT_KNOWN_HOSTS"] == "x"
    with pytest.raises(SettingsInvalid, match="ssh_known_hosts"):
        git_environment(url, None, protocols=PROTOCOLS, known_hosts="x" * 131_072)
