"""URLs, refs and the choice of a commit: what is taken, what is refused, and what a ref means."""

from __future__ import annotations

import doctest
import time
from contextlib import suppress

import pytest

import caisson.git
from caisson.errors import RefNotFound
from caisson.git import (
    RemoteRefs,
    check_commit,
    check_ref,
    choose_commit,
    parse_ls_remote,
    parse_repository_url,
    pin_commit,
)

ALL = ("https", "http", "ssh", "git")
A, B, C, D = ("a" * 40, "b" * 40, "c" * 40, "d" * 40)


def test_the_examples_in_the_module_hold() -> None:
    assert doctest.testmod(caisson.git).failed == 0


@pytest.mark.parametrize(
    ("text", "scheme", "user", "host", "port", "path"),
    [
        ("https://example.com/team/app.git", "https", "", "example.com", None, "/team/app.git"),
        ("HTTPS://Example.com:8443/team/app", "https", "", "Example.com", 8443, "/team/app"),
        ("http://[::1]:3000/a/b.git/", "http", "", "[::1]", 3000, "/a/b.git/"),
        ("ssh://git@example.com:2222/~user/app.git", "ssh", "git", "example.com", 2222, "/~user/app.git"),
        ("git://host/app", "git", "", "host", None, "/app"),
        ("git@example.com:team/app.git", "ssh", "git", "example.com", None, "team/app.git"),
        ("example.com:/srv/app.git", "ssh", "", "example.com", None, "/srv/app.git"),
        ("git@[fe80::1]:app", "ssh", "git", "[fe80::1]", None, "app"),
        ("https://example.com/ünï%20x/a+b@c.git", "https", "", "example.com", None, "/ünï%20x/a+b@c.git"),
    ],
)
def test_urls_are_taken_apart_and_given_to_git_as_they_were(
    text: str, scheme: str, user: str, host: str, port: int | None, path: str
) -> None:
    url = parse_repository_url(text, ALL)
    assert (url.scheme, url.user, url.host, url.port, url.path) == (scheme, user, host, port, path)
    assert str(url) == url.display() == text.replace("HTTPS", "https")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "is empty"),
        ("--upload-pack=touch", "like an option"),
        ("-oProxyCommand=x", "like an option"),
        ("ssh://-oProxyCommand=x/app", "no valid host"),
        ("ssh://-host/app", "no valid host"),
        ("-host:app", "like an option"),
        ("git@-oProxyCommand=x:app", "no valid host"),
        ("ssh://host/-app", "path that begins with '-'"),
        ("git@host:-app", "path that begins with '-'"),
        ("ssh://host/%2d-app", "path that begins with '-'"),
        ("ssh://-u@host/app", "login name"),
        ("ext::sh -c id", "a space"),
        ("ext::id", "remote helper 'ext'"),
        ("fd::17", "remote helper 'fd'"),
        ("ext::https://host/app", "remote helper 'ext'"),
        ("::https://host/app", "remote helper ''"),
        ("file:///etc", "'file', which is not allowed"),
        ("ftp://host/app", "'ftp', which is not allowed"),
        ("git+ssh://host/app", r"'git\+ssh', which is not allowed"),
        ("/srv/app", "is not a URL"),
        ("./app", "is not a URL"),
        ("../app:x", "is not a URL"),
        ("~/app", "is not a URL"),
        ("app", "is not a URL"),
        ("dir/app:x", "is not a URL"),
        ("https:/host/app", "is not a URL"),
        ("file:/etc", "is not a URL"),
        ("https://", "no path|no host"),
        ("https:///app", "no host"),
        ("https://host", "no path"),
        ("https://host//", "no path"),
        ("https://host:0/app", "port"),
        ("https://host:70000/app", "port"),
        ("https://host:/app", "is not a URL"),
        ("https://host/a b", "a space"),
        ("https://host/a\nb", "control character"),
        ("https://host/a\x00b", "control character"),
        ("https://host/a\tb", "control character"),
        ("https://host/a\u2028b", "control character"),
        ("https://host/a\u202eb", "control character"),
        ("https://host/a\ud800b", "control character"),
        ("https://host/a%0ab", "control character"),
        ("https://host/a%00b", "control character"),
        ("https://host\\@evil/a", "backslash"),
        ("https://host/a%5cb", "backslash"),
        ("https://host/../a", r"'\.\.'"),
        ("https://host/a/%2e%2e/b", r"'\.\.'"),
        ("git@host:../a", r"'\.\.'"),
        ("https://host/a?x=1", "query"),
        ("https://host/a#main", "fragment"),
        ("https://ho_st%41/a", "no valid host"),
        ("https://höst/a", "no valid host"),
    ],
)
def test_what_is_no_git_url_is_refused_with_the_reason(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_repository_url(text, ALL)


@pytest.mark.parametrize(
    "text",
    [
        "https://user:s3cr3t@host/app",
        "https://s3cr3t@host/app",
        "https://:s3cr3t@host/app",
        "ssh://git:s3cr3t@host/app",
        "git://s3cr3t@host/app",
        "user:s3cr3t@host/app",
        "user:s3cr3t@host:app",
        "user:s3cr3t@host",
        "s3cr3t@host/app",
    ],
)
def test_credentials_in_a_url_are_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        parse_repository_url(text, ALL)
    assert "s3cr3t" not in str(caught.value)


def test_only_allowed_protocols_are_taken() -> None:
    with pytest.raises(ValueError, match="allowed: https, ssh"):
        parse_repository_url("http://host/app", ("ssh", "https"))
    with pytest.raises(ValueError, match="'ssh', which is not allowed"):
        parse_repository_url("git@host:app", ("https",))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("https://example.com/team/app", "HTTPS://Example.COM:443/team/app.git/"),
        ("ssh://git@host/team/app.git", "git@host:team/app"),
        ("ssh://git@host:22/team/app", "ssh://git@HOST/team/app"),
        ("git://host:9418/app", "git://host/app"),
    ],
)
def test_spellings_of_the_same_repository_have_one_canonical_form(one: str, other: str) -> None:
    assert parse_repository_url(one, ALL).canonical() == parse_repository_url(other, ALL).canonical()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("https://host/team/app", "https://host/team/App"),
        ("https://host/app", "http://host/app"),
        ("https://host/app", "https://host:8443/app"),
        ("ssh://a@host/app", "ssh://b@host/app"),
        ("https://host/app.git/x", "https://host/app/x"),
    ],
)
def test_different_repositories_have_different_canonical_forms(one: str, other: str) -> None:
    assert parse_repository_url(one, ALL).canonical() != parse_repository_url(other, ALL).canonical()


@pytest.mark.parametrize("text", ["https://Host:443/a", "https://host/b"])
def test_credentials_are_for_one_scheme_host_and_port(text: str) -> None:
    assert parse_repository_url(text, ALL).origin() == "https://host"


@pytest.mark.parametrize(
    "ref",
    [
        "main",
        "feature/x",
        "v1.2.3",
        "refs/heads/a",
        "refs/pull/7/head",
        "HEAD",
        A,
        "0123abc",
        "a'b\"c",
        "$(x)",
        "ünï",
        "a@b",
        "feature/-x",
    ],
)
def test_what_git_allows_as_a_ref_is_taken(ref: str) -> None:
    assert check_ref(ref) == ref


@pytest.mark.parametrize(
    "ref",
    [
        *(
            "",
            "-x",
            "--upload-pack=x",
            "refs/heads/-x",
            "refs/tags/--x",
            "a..b",
            "a b",
            "a~1",
            "a^",
            "a:b",
            "a?b",
            "a*",
        ),
        *("a[b", "a\\b", "a//b", "/a", "a/", "a.", ".a", "a/.b", "a.lock", "a.lock/b", "a@{1}", "@", "a\nb", "a\x00b"),
        *("a\x7fb", "a\u2028b", "a\u202eb", "a\ud800b", "x" * 256),
    ],
)
def test_what_git_does_not_allow_as_a_ref_is_refused(ref: str) -> None:
    with pytest.raises(ValueError, match=r"is empty|like an option|not a ref that git allows"):
        check_ref(ref)


LS_REMOTE = f"""\
warning: something else
ref: refs/heads/main\tHEAD
{A}\tHEAD
{A}\trefs/heads/main
{B}\trefs/heads/feature/x
{C}\trefs/merge-requests/3/head
{C}\trefs/pull/7/head
{C}\trefs/pull/7/merge
{D}\trefs/tags/v1.0
{B}\trefs/tags/v1.0^{{}}
{A}\trefs/tags/light
{C}\trefs/tags/main
{C}\trefs/notes/commits
""".encode()


def test_what_a_remote_says_is_read_with_tags_as_commits() -> None:
    remote = parse_ls_remote(LS_REMOTE)
    assert (remote.default_branch, remote.head) == ("main", A)
    assert remote.refs["refs/tags/v1.0"] == B
    assert remote.tag_objects == {"refs/tags/v1.0": D}
    assert remote.tags() == ("light", "main", "v1.0")
    assert remote.branches() == ("feature/x", "main")


@pytest.mark.parametrize(
    ("ref", "sha", "kind", "name", "default", "fetch_ref", "fetch_object"),
    [
        ("", A, "branch", "main", True, "refs/heads/main", ""),
        ("HEAD", A, "branch", "main", True, "refs/heads/main", ""),
        ("main", A, "branch", "main", True, "refs/heads/main", ""),
        ("refs/heads/main", A, "branch", "main", True, "refs/heads/main", ""),
        ("heads/feature/x", B, "branch", "feature/x", False, "refs/heads/feature/x", ""),
        ("refs/tags/main", C, "tag", "main", False, "refs/tags/main", ""),
        ("v1.0", B, "tag", "v1.0", False, "refs/tags/v1.0", D),
        ("light", A, "tag", "light", False, "refs/tags/light", ""),
        ("refs/pull/7/head", C, "pull_request", "7", False, "refs/pull/7/head", ""),
        ("pull/7/merge", C, "pull_request", "7", False, "refs/pull/7/merge", ""),
        ("refs/merge-requests/3/head", C, "pull_request", "3", False, "refs/merge-requests/3/head", ""),
        ("refs/notes/commits", C, "commit", "refs/notes/commits", False, "refs/notes/commits", ""),
        (B.upper(), B, "commit", "", False, "refs/heads/feature/x", ""),
        (D, B, "commit", "", False, "refs/tags/v1.0", D),
        ("e" * 40, "e" * 40, "commit", "", False, "", ""),
        ("f" * 64, "f" * 64, "commit", "", False, "", ""),
        ("bbbbbbb", B, "commit", "", False, "refs/tags/v1.0", ""),
        ("eeeeeee", "", "commit", "", False, "", ""),
    ],
)
def test_each_kind_of_ref_means_one_commit(
    ref: str, sha: str, kind: str, name: str, default: bool, fetch_ref: str, fetch_object: str
) -> None:
    chosen = choose_commit(parse_ls_remote(LS_REMOTE), ref)
    assert (chosen.sha, chosen.kind, chosen.name, chosen.is_default_branch) == (sha, kind, name, default)
    assert (chosen.fetch_ref, chosen.fetch_object) == (fetch_ref, fetch_object)
    assert chosen.remote_tags == ("light", "main", "v1.0")
    assert ("is a branch and a tag" in chosen.note) is (ref == "main")


def test_a_branch_that_looks_like_a_sha_is_the_branch() -> None:
    name = "deadbee"
    remote = RemoteRefs({f"refs/heads/{name}": A, "refs/heads/x": "deadbee" + "0" * 33})
    assert choose_commit(remote, name).sha == A
    remote = RemoteRefs({f"refs/heads/{B}": A})
    assert choose_commit(remote, B).sha == A


def test_a_short_sha_that_two_commits_begin_with_is_ambiguous() -> None:
    one, two = "abcdef0" + "0" * 33, "abcdef0" + "1" * 33
    with pytest.raises(RefNotFound, match="ambiguous: 2 commits") as caught:
        choose_commit(RemoteRefs({"refs/heads/a": one, "refs/heads/b": two, "refs/heads/c": two}), "abcdef0")
    assert caught.value.details["near"] == [one, two]


@pytest.mark.parametrize(
    ("ref", "near"),
    [
        ("mian", ["main"]),
        ("MAIN", ["main", "main"]),
        ("feature", ["feature/x"]),
        ("v1", ["v1.0"]),
        ("zzz", []),
        ("abc", []),
    ],
)
def test_a_ref_that_is_not_there_is_told_with_the_nearest_names(ref: str, near: list[str]) -> None:
    with pytest.raises(RefNotFound, match=f"'{ref}' is not in the repository") as caught:
        choose_commit(parse_ls_remote(LS_REMOTE), ref)
    assert caught.value.details["near"][: len(near)] == near
    assert all(name in caught.value.hint for name in near)


def test_a_remote_without_a_commit_at_head_tells_which_branches_there_are() -> None:
    with pytest.raises(RefNotFound, match="such as other"):
        choose_commit(RemoteRefs({"refs/heads/other": A}, default_branch="main"), "")
    with pytest.raises(RefNotFound, match="Push a branch first"):
        choose_commit(RemoteRefs({}), "")


def test_a_detached_head_is_a_commit_of_no_branch() -> None:
    chosen = choose_commit(parse_ls_remote(f"{A}\tHEAD\n{A}\trefs/heads/main\n".encode()), "")
    assert (chosen.sha, chosen.kind, chosen.is_default_branch, chosen.fetch_ref) == (A, "commit", False, "HEAD")


def test_a_ref_with_a_line_separator_in_its_name_is_one_ref() -> None:
    remote = parse_ls_remote(f"{A}\trefs/heads/x\u2028{B}\nrubbish\n{B}\tother/main\n\xff\t\n".encode())
    assert list(remote.refs) == [f"refs/heads/x\u2028{B}"]


def test_a_hundred_thousand_refs_are_read_and_searched_in_seconds() -> None:
    output = "".join(f"{number:040x}\trefs/heads/team/branch-{number}\n" for number in range(100_000)).encode()
    begin = time.process_time()
    remote = parse_ls_remote(output)
    assert len(remote.refs) == 100_000
    with pytest.raises(RefNotFound):
        choose_commit(remote, "something-else")
    assert choose_commit(remote, "team/branch-99999").sha == f"{99_999:040x}"
    assert time.process_time() - begin < 5


def test_no_pattern_takes_long_on_a_hostile_url() -> None:
    begin = time.process_time()
    for text in ("https://" + "a@" * 1000, "a" * 2000 + ":", "[" + ":" * 2000, "https://h/" + "%2e%2e" * 300):
        with suppress(ValueError):
            parse_repository_url(text, ALL)
    assert time.process_time() - begin < 0.5


@pytest.mark.parametrize("text", ["main", "abcdef0", "g" * 40, "a" * 41, f"-{'a' * 39}", f"{'a' * 40}\n"])
def test_a_commit_is_a_full_sha(text: str) -> None:
    with pytest.raises(ValueError, match="is not a full commit SHA"):
        check_commit(text, "main")


def test_a_commit_and_a_ref_that_is_another_contradict_each_other() -> None:
    assert check_commit("B" * 40, "b" * 40) == "b" * 40
    with pytest.raises(ValueError, match="is another than the ref"):
        check_commit("b" * 40, "a" * 40)


def test_a_pinned_commit_is_built_as_what_its_ref_is() -> None:
    tag = choose_commit(parse_ls_remote(LS_REMOTE), "v1.0")
    pinned = pin_commit(tag, "c" * 40)
    assert (pinned.sha, pinned.kind, pinned.name, pinned.fetch_ref) == ("c" * 40, "tag", "v1.0", tag.fetch_ref)
    # The tag's own object would bring the commit that the tag means now.
    assert tag.fetch_object
    assert not pinned.fetch_object
    assert pin_commit(tag, "") is tag
    assert pin_commit(tag, tag.sha) is tag
