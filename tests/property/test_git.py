"""What holds for any text that is given as a URL or as a ref."""

from __future__ import annotations

import re
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from caisson.errors import RefNotFound
from caisson.git import RepositoryURL, check_ref, choose_commit, parse_ls_remote, parse_repository_url

_ALL = ("https", "http", "ssh", "git")
_PIECES = st.sampled_from(
    [
        *("https", "ssh", "git", "ext", "file", "://", "::", ":", "/", "//", "@", "-", "--upload-pack=x", "..", "."),
        *("%2e", "%0a", "host", "example.com", "[::1]", "443", "22", "a", "app.git", "user", "s3cr3t"),
        *("\\", " ", "\n", "\x00", "~", "?", "#"),
    ]
)
_URLS = st.lists(_PIECES, max_size=10).map("".join) | st.text(max_size=40)
_REFS = st.lists(
    st.sampled_from([*"ab/.-@{}~^:?*[\\ \n\x00", "..", ".lock", "refs/heads/", "@{", "ü"]), max_size=8
).map("".join)


def _parsed(text: str) -> RepositoryURL | None:
    try:
        return parse_repository_url(text, _ALL)
    except ValueError:
        return None


@given(_URLS)
def test_what_is_taken_is_given_to_git_with_no_way_to_be_an_option_or_a_helper(text: str) -> None:
    url = _parsed(text)
    if url is None:
        return
    given = str(url)
    assert not given.startswith("-")
    assert not url.host.startswith("-")
    # git's own reading (transport.c): characters of a scheme at the very start, then "::", name a helper.
    assert not re.match(r"[A-Za-z0-9+.-]*::", given)
    assert url.scheme in _ALL
    assert given.isprintable()
    assert " " not in given
    assert ".." not in url.path.split("/")


@given(_URLS)
def test_what_is_taken_means_the_same_when_it_is_parsed_again(text: str) -> None:
    url = _parsed(text)
    if url is not None:
        assert parse_repository_url(str(url), _ALL) == url


@given(_URLS)
def test_no_refusal_repeats_what_may_be_a_secret(text: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        parse_repository_url(f"https://user:s3cr3t@{text}", _ALL)
    assert "s3cr3t" not in str(caught.value)


@given(st.lists(_REFS | st.text(max_size=20), min_size=1, max_size=20))
def test_every_ref_that_is_taken_is_one_that_git_takes(texts: list[str]) -> None:
    for text in texts:
        try:
            ref = check_ref(text)
        except ValueError:
            continue
        command = ["git", "check-ref-format", "--allow-onelevel", ref]
        assert subprocess.run(command, check=False).returncode == 0, ref


@given(st.binary(max_size=200), _REFS)
def test_nothing_that_a_remote_says_is_more_than_not_found(output: bytes, ref: str) -> None:
    remote = parse_ls_remote(output)
    try:
        chosen = choose_commit(remote, ref)
    except RefNotFound:
        return
    assert chosen.sha == "" or chosen.sha in remote.refs.values() or chosen.sha == ref.lower() or remote.head


_NAMES = st.text("abc/", min_size=1, max_size=5).filter(lambda name: not name.startswith("/"))
_SHAS = st.text("0123456789abcdef", min_size=40, max_size=40)


@given(st.dictionaries(_NAMES, _SHAS, max_size=6), st.dictionaries(_NAMES, st.tuples(_SHAS, _SHAS), max_size=6))
def test_a_branch_and_a_tag_are_found_by_name_the_branch_first(
    branches: dict[str, str], tags: dict[str, tuple[str, str]]
) -> None:
    lines = [f"{sha}\trefs/heads/{name}" for name, sha in branches.items()]
    for name, (own, commit) in tags.items():
        lines += [f"{own}\trefs/tags/{name}", f"{commit}\trefs/tags/{name}^{{}}"]
    remote = parse_ls_remote("\n".join(lines).encode())
    for name, sha in branches.items():
        assert choose_commit(remote, name).sha == sha
        assert choose_commit(remote, name).kind == "branch"
    for name, (own, commit) in tags.items():
        chosen = choose_commit(remote, f"refs/tags/{name}")
        assert (chosen.sha, chosen.fetch_object, chosen.kind) == (commit, own, "tag")
        if name not in branches:
            assert choose_commit(remote, name) == chosen
