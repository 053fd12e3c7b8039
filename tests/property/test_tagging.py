"""Tags of a commit's image, by the sentences that promise something of them."""

from __future__ import annotations

import re
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from caisson.errors import RequestInvalid
from caisson.request import DefaultBranchTag, TagRules
from caisson.semver import Version
from caisson.tagging import DERIVED_LABELS, Commit, PlannedTag, label_problem, oci_labels, plan_tags, sanitise
from tests.property.test_semver import versions

version_names = st.builds(lambda v, version: f"{v}{version}", st.sampled_from(["", "v"]), versions)
odd_names = st.sampled_from(["latest", "edge", "1.2", "1", "0", "pr-1", "sha-0123456", "main", "-", "日本", "x" * 300])
names = version_names | odd_names | st.text(min_size=1, max_size=150)
remote_tags = st.lists(version_names | odd_names, max_size=8).map(tuple)
shas = st.text("0123456789abcdef", min_size=40, max_size=40)
commits = st.builds(
    Commit, shas, st.sampled_from(["branch", "tag", "commit"]), names, st.booleans(), remote_tags
) | st.builds(Commit, shas, st.just("pull_request"), st.integers(1, 10**9).map(str), st.just(False), remote_tags)
raw = st.lists(st.from_regex(re.compile(r"raw\w[\w.-]{0,20}", re.ASCII), fullmatch=True), max_size=3)
rules = st.builds(
    TagRules,
    sha=st.booleans(),
    sha_short=st.booleans(),
    branch=st.booleans(),
    pull_request=st.booleans(),
    semver=st.booleans(),
    default_branch=st.sampled_from(DefaultBranchTag),
    raw=raw,
)


def _plan(commit: Commit, chosen: TagRules) -> tuple[PlannedTag, ...]:
    try:
        return plan_tags(commit, chosen)
    except RequestInvalid:
        return ()


def _by_tag(commit: Commit, chosen: TagRules) -> dict[str, PlannedTag]:
    return {str(item.tag): item for item in _plan(commit, chosen)}


def _versions(commit: Commit) -> list[Version]:
    return [version for version in map(Version.parse, {*commit.remote_tags, commit.ref_name}) if version]


@given(commits, rules)
def test_every_tag_is_within_the_grammar(commit: Commit, chosen: TagRules) -> None:
    """ "<reference> as a tag MUST be at most 128 characters in length and MUST match the following regular expression:
    [a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}" (OCI distribution spec)
    """
    for item in _plan(commit, chosen):
        assert re.fullmatch(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}", str(item.tag))
        assert item.rule
        assert item.reason


@given(commits, rules)
def test_the_plan_is_never_empty_has_no_tag_twice_and_is_the_same_every_time(commit: Commit, chosen: TagRules) -> None:
    plan = _plan(commit, chosen)
    assert plan == _plan(commit, chosen)
    assert len({item.tag for item in plan}) == len(plan)
    if chosen.sha or chosen.sha_short or chosen.raw:
        assert plan


@given(commits, rules, st.randoms(use_true_random=False))
def test_the_order_in_which_a_remote_lists_its_tags_decides_nothing(
    commit: Commit, chosen: TagRules, random: Random
) -> None:
    shuffled = list(commit.remote_tags)
    random.shuffle(shuffled)
    other = Commit(commit.sha, commit.ref_kind, commit.ref_name, commit.is_default_branch, tuple(shuffled))
    assert _plan(commit, chosen) == _plan(other, chosen)


@given(commits, rules)
def test_latest_is_the_highest_release_or_the_default_branch(commit: Commit, chosen: TagRules) -> None:
    """ "latest for the highest release only, never for a pre-release"."""
    latest = _by_tag(commit, chosen).get("latest")
    if latest is None:
        return
    if latest.rule == "semver":
        built = Version.parse(commit.ref_name)
        assert built is not None
        assert not built.is_prerelease
        releases = [version for version in _versions(commit) if not version.is_prerelease]
        assert built.precedence == max(version.precedence for version in releases)
    else:
        assert latest.rule == "default_branch"
        assert commit.is_default_branch
        assert chosen.default_branch is not DefaultBranchTag.EDGE


@given(commits, rules)
def test_a_prerelease_gives_only_its_full_version(commit: Commit, chosen: TagRules) -> None:
    built = Version.parse(commit.ref_name)
    if commit.ref_kind == "tag" and built and built.is_prerelease:
        given_by_version = [str(item.tag) for item in _plan(commit, chosen) if item.rule == "semver"]
        assert given_by_version in ([built.tag], [])


@given(st.lists(versions, min_size=1, max_size=8))
def test_whatever_the_order_of_builds_a_line_ends_at_its_highest_release(released: list[Version]) -> None:
    """ "A tag that stands for several versions only moves forward"."""
    remote = tuple(f"v{version}" for version in released)
    pointing: dict[str, Version] = {}
    for version in released:
        commit = Commit("0" * 40, "tag", f"v{version}", False, remote)
        for item in plan_tags(commit, TagRules()):
            if item.rule == "semver" and str(item.tag) != version.tag:
                pointing[str(item.tag)] = version
    for name, version in pointing.items():
        line = [v for v in released if not v.is_prerelease and (name == "latest" or name in v.lines())]
        assert version.precedence == max(v.precedence for v in line)


@given(commits, rules)
def test_no_branch_takes_the_tag_of_a_version(commit: Commit, chosen: TagRules) -> None:
    """ "whoever may push a branch must not thereby publish a release"."""
    if commit.ref_kind != "branch":
        return
    versions_there = [version for version in map(Version.parse, commit.remote_tags) if version]
    taken = {"latest"} | {name for version in versions_there for name in (version.tag, *version.lines())}
    assert not taken & {str(item.tag) for item in _plan(commit, chosen) if item.rule == "branch"}


@given(st.text(max_size=400), st.text(max_size=400))
def test_what_cannot_be_told_apart_by_its_letters_is_told_apart_by_its_digest(one: str, other: str) -> None:
    if not one.isascii() and not other.isascii() and one != other:
        assert sanitise(one) != sanitise(other)


@given(
    commits,
    rules.filter(lambda chosen: chosen.sha),
    st.dictionaries(st.text(max_size=20) | st.sampled_from(sorted(DERIVED_LABELS)), st.text(max_size=20), max_size=4),
)
def test_no_label_of_a_request_changes_what_caisson_derives(
    commit: Commit, chosen: TagRules, labels: dict[str, str]
) -> None:
    tags = plan_tags(commit, chosen)
    if any(map(label_problem, labels.items())):
        with pytest.raises(RequestInvalid, match="labels: "):
            oci_labels(commit, source="https://example.com/a", tags=tags, labels=labels)
        return
    made = oci_labels(commit, source="https://example.com/a", tags=tags, labels=labels)
    assert made.items() >= labels.items()
    assert made["org.opencontainers.image.revision"] == commit.sha
