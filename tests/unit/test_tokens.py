"""Tokens: made, kept, limited, and gone when they are revoked or expired."""

from __future__ import annotations

import sqlite3
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from caisson.errors import RequestInvalid, StoreUnusable
from caisson.tokens import Grant, Scope, git_place, is_genuine, make_grant, new_token, parse_lifetime, record_of
from deployments.service_store import ServiceStore
from deployments.token_store import TokenStore

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
READ = make_grant(["read"])


@pytest.fixture
def tokens(tmp_path: Path) -> TokenStore:
    return TokenStore(ServiceStore(tmp_path / "service.sqlite"))


def test_a_token_is_found_by_itself_alone_and_is_nowhere_in_the_file(tokens: TokenStore, tmp_path: Path) -> None:
    token, record = tokens.create("ci", READ, lifetime=None, now=NOW)
    found = tokens.find(token, NOW)
    assert found is not None
    assert (found.id, found.name, found.grant) == (record.id, "ci", READ)
    # A secret may have underscores of its own.
    secret = token.split("_", 2)[2]
    head = token.removesuffix(f"_{secret}")
    for wrong in (
        head,
        secret,
        f"{token}x",
        token[:-1],
        f"{head}_{secret[::-1]}",
        token.replace(record.id, "0" * 12),
        "",
    ):
        assert tokens.find(wrong, NOW) is None
    kept = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert secret.encode() not in kept
    assert record.digest.encode() in kept


def test_the_file_is_its_owners_alone(tokens: TokenStore, tmp_path: Path) -> None:
    tokens.create("ci", READ, lifetime=None)
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o600}


def test_tokens_are_256_random_bits() -> None:
    made = {new_token() for _ in range(100)}
    assert len(made) == 100
    assert all(len(token.split("_", 2)[2]) == 43 for token in made)


def test_a_token_ends_when_it_expires(tokens: TokenStore) -> None:
    token, _ = tokens.create("short", READ, lifetime=timedelta(hours=1), now=NOW)
    assert tokens.find(token, NOW + timedelta(minutes=59)) is not None
    assert tokens.find(token, NOW + timedelta(hours=1)) is None


def test_a_revoked_token_is_none_at_once_by_name_or_id(tokens: TokenStore) -> None:
    first, _ = tokens.create("first", READ, lifetime=None)
    second, record = tokens.create("second", READ, lifetime=None)
    assert tokens.revoke("first") is not None
    assert tokens.revoke(record.id) is not None
    assert tokens.revoke("first") is None
    assert tokens.find(first, NOW) is None
    assert tokens.find(second, NOW) is None
    assert tokens.all() == []


def test_two_tokens_of_one_name_are_refused(tokens: TokenStore) -> None:
    tokens.create("ci", READ, lifetime=None)
    with pytest.raises(RequestInvalid, match="a token 'ci' already"):
        tokens.create("ci", READ, lifetime=None)


def test_last_use_is_remembered_once_a_minute(tokens: TokenStore) -> None:
    token, _ = tokens.create("ci", READ, lifetime=None, now=NOW)
    for seconds in (0, 30, 90):
        tokens.find(token, NOW + timedelta(seconds=seconds))
        (record,) = tokens.all()
        assert record.last_used == NOW + timedelta(seconds=90 if seconds == 90 else 0)


def test_a_file_that_is_damaged_or_of_a_newer_caisson_lets_nobody_in(tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.sqlite"
    damaged.write_bytes(b"x" * 8192)
    with pytest.raises(StoreUnusable, match="not a database"):
        ServiceStore(damaged)
    newer = tmp_path / "newer.sqlite"
    with sqlite3.connect(newer) as database:
        database.execute("PRAGMA user_version=99")
    with pytest.raises(StoreUnusable, match="schema version 99 is newer"):
        ServiceStore(newer)


def test_what_is_kept_is_no_token(tokens: TokenStore) -> None:
    token, record = tokens.create("ci", READ, lifetime=None)
    assert is_genuine(token, record)
    assert not is_genuine(record.digest, record)
    with pytest.raises(ValueError, match="is not a token"):
        record_of(record.digest, "x", READ, now=NOW, lifetime=None)


@pytest.mark.parametrize(
    ("scopes", "may"),
    [
        ("read", {"read"}),
        ("build", {"build"}),
        ("read build", {"read", "build"}),
        ("admin", {"read", "build", "admin"}),
    ],
)
def test_scopes_allow_themselves_and_admin_allows_all(scopes: str, may: set[str]) -> None:
    grant = make_grant(scopes.split())
    assert {scope.value for scope in Scope if grant.may(scope)} == may


LIMITED = Grant(
    frozenset({Scope.BUILD}), images=("team/*", "registry.example.com/**"), repositories=("github.com/team/*",)
)


@pytest.mark.parametrize(
    ("image", "url", "covered"),
    [
        ("team/app", "https://github.com/team/app.git", True),
        ("team/app", "https://GitHub.com:443/team/app", True),
        ("team/app", "ssh://git@github.com/team/app.git", True),
        ("team/app", "git@github.com:team/app", True),
        ("docker.io/team/app", "https://github.com/team/app", True),
        ("registry.example.com/a/b", "https://github.com/team/app", True),
        # Another image, another repository.
        ("other/app", "https://github.com/team/app", False),
        ("team/sub/app", "https://github.com/team/app", False),
        ("team/app", "https://github.com/other/app", False),
        ("team/app", "https://github.com/team/sub/app", False),
        ("team/app", "https://github.com.evil.org/team/app", False),
        ("team/app", "https://github.com:8443/team/app", False),
        ("team/app", "https://evil.org/github.com/team/app", False),
        # What clients and servers read in their own ways.
        ("team/app", "https://github.com/team/../other", False),
        ("team/app", "https://github.com/team/.", False),
        ("team/app", "https://github.com/team/%2e%2e%2fother", False),
        ("team/app", "https://github.com//team/app", False),
        ("team/app", "https://github.com/other/app?x=github.com/team/app", False),
        ("team/app", "https://github.com@evil.org/team/app", False),
        # What can't be read.
        ("team/app", "", False),
        ("team/app", "file:///team/app", False),
        ("", "https://github.com/team/app", False),
        ("team/app:1", "https://github.com/team/app", False),
    ],
)
def test_a_limited_token_covers_what_both_its_lists_name(image: str, url: str, covered: bool) -> None:
    assert LIMITED.covers(image, url) is covered


def test_patterns_mean_the_place_of_a_repository() -> None:
    assert git_place("git@example.com:team/app.git") == "example.com/team/app"
    assert git_place("http://[::1]:8080/a/b/c") == "[::1]:8080/a/b/c"


@pytest.mark.parametrize(
    ("scopes", "images", "repositories", "words"),
    [
        ([], [], [], "needs a scope"),
        (["root"], [], [], "'root' is no scope; write read, build or admin"),
        (["admin"], ["team/*"], [], "can't be limited"),
        (["build"], ["team app"], [], "not a pattern of repositories"),
        (["build"], [], ["https://github.com/team/*"], "without a scheme"),
        (["build"], [], ["github.com"], "not a pattern of git repositories"),
        (["build"], [], ["a/" + "*x" * 9], "more than 8 stars"),
    ],
)
def test_a_grant_that_can_not_be_meant_is_refused(
    scopes: list[str], images: list[str], repositories: list[str], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        make_grant(scopes, images, repositories)


@pytest.mark.parametrize("pattern", ["", "a b", "a/b", "*x" * 9])
def test_a_pattern_that_no_secret_has_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match="not a pattern of names of secrets"):
        make_grant(["build"], secret_names=[pattern])


def test_admin_is_not_limited_to_secrets() -> None:
    with pytest.raises(ValueError, match="can't be limited"):
        make_grant(["admin"], secret_names=["npm-token"])


@pytest.mark.parametrize(
    ("grant", "uncovered"),
    [
        # Who may build anything may use anything.
        (make_grant(["build"]), ()),
        # A Dockerfile of the one repository can tell whom it likes.
        (make_grant(["build"], ["team/*"]), ("team-npm", "prod-key")),
        (make_grant(["build"], [], ["github.com/team/*"]), ("team-npm", "prod-key")),
        (make_grant(["build"], ["team/*"], [], ["team-*"]), ("prod-key",)),
        (make_grant(["build"], [], [], ["prod-key"]), ("team-npm",)),
        (make_grant(["build"], ["team/*"], [], ["*"]), ()),
    ],
)
def test_a_limited_tokens_builds_use_the_secrets_that_it_names(grant: Grant, uncovered: tuple[str, ...]) -> None:
    assert grant.uncovered_secrets(["team-npm", "prod-key", "team-npm", ""]) == uncovered


@pytest.mark.parametrize("text", ["", "0s", "99999w", "-1d", "soon"])
def test_a_lifetime_that_can_not_be_meant_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_lifetime(text)
