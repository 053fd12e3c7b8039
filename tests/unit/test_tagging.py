"""Which tags and labels a commit's image gets."""

from __future__ import annotations

import doctest
from dataclasses import replace

import pytest

import caisson.tagging
from caisson.errors import RequestInvalid
from caisson.request import DefaultBranchTag, TagRules
from caisson.tagging import (
    DERIVED_LABELS,
    Commit,
    PlannedTag,
    label_problem,
    oci_labels,
    plan_tags,
    rule_problems,
    sanitise,
)

SHA = "0123456789abcdef0123456789abcdef01234567"
SHA_TAGS = [f"sha-{SHA}", "sha-0123456"]
NO_SHA = {"sha": False, "sha_short": False}
SOURCE = "https://example.com/team/app.git"


def _branch(name: str, *, default: bool = False, remote: tuple[str, ...] = ()) -> Commit:
    return Commit(SHA, "branch", name, default, remote)


def _tag(name: str, *others: str) -> Commit:
    return Commit(SHA, "tag", name, False, (name, *others))


def _tags(commit: Commit, **rules: object) -> list[str]:
    return [str(item.tag) for item in plan_tags(commit, TagRules.model_validate(rules))]


def _by_rule(commit: Commit) -> dict[str, PlannedTag]:
    return {str(item.tag): item for item in plan_tags(commit, TagRules())}


def test_the_examples_in_the_documentation_are_true() -> None:
    assert doctest.testmod(caisson.tagging).failed == 0


def test_a_branch_gets_its_name_and_the_commit() -> None:
    assert _tags(_branch("feature/x")) == ["feature-x", *SHA_TAGS]
    assert _tags(_branch("feature/x"), branch=False) == SHA_TAGS
    assert _tags(_branch("feature/x"), sha=False) == ["feature-x", "sha-0123456"]


def test_the_default_branch_is_latest_until_there_is_a_release_then_edge() -> None:
    assert _tags(_branch("main", default=True)) == ["main", "latest", *SHA_TAGS]
    assert _tags(_branch("main", default=True, remote=("v1.0.0-rc.1", "nightly"))) == ["main", "latest", *SHA_TAGS]
    assert _tags(_branch("main", default=True, remote=("v1.0.0",))) == ["main", "edge", *SHA_TAGS]
    assert _tags(_branch("other", remote=("v1.0.0",))) == ["other", *SHA_TAGS]


@pytest.mark.parametrize(("rule", "extra"), [("latest", ["latest"]), ("edge", ["edge"]), ("none", [])])
def test_the_default_branchs_tag_can_be_chosen(rule: str, extra: list[str]) -> None:
    commit = _branch("main", default=True, remote=("v1.0.0",))
    assert _tags(commit, default_branch=rule, **NO_SHA) == ["main", *extra]


def test_a_pull_request_is_pr_and_its_number() -> None:
    commit = Commit(SHA, "pull_request", "17", False)
    assert _tags(commit) == ["pr-17", *SHA_TAGS]
    assert _tags(commit, pull_request=False) == SHA_TAGS


def test_a_bare_commit_gets_its_sha_and_what_was_asked_for() -> None:
    assert _tags(Commit(SHA, "commit", "", False)) == SHA_TAGS
    assert _tags(Commit(SHA, "commit", "", False), raw=["stable"]) == ["stable", *SHA_TAGS]
    assert _tags(Commit("a" * 64, "commit", "", False)) == [f"sha-{'a' * 64}", "sha-aaaaaaa"]


@pytest.mark.parametrize("name", ["v1.2.3", "1.2.3"])
def test_a_version_tag_gives_the_version_its_lines_and_latest(name: str) -> None:
    assert _tags(_tag(name), **NO_SHA) == ["1.2.3", "1.2", "1", "latest"]
    assert _tags(_tag(name), semver=False) == SHA_TAGS


@pytest.mark.parametrize(
    ("others", "expected"),
    [
        (["v1.2.2", "v1.1.9", "v0.9.0"], ["1.2.3", "1.2", "1", "latest"]),
        (["v1.2.10"], ["1.2.3"]),
        (["v1.3.0"], ["1.2.3", "1.2"]),
        (["v2.0.0"], ["1.2.3", "1.2", "1"]),
        (["v2.0.0", "v1.2.4"], ["1.2.3"]),
        (["v2.0.0-rc.1", "v1.2.4-alpha"], ["1.2.3", "1.2", "1", "latest"]),
        (["1.2.3", "v1.2.3+other"], ["1.2.3", "1.2", "1", "latest"]),
        (["nightly", "v9", "v9.9", "10.0.0.0"], ["1.2.3", "1.2", "1", "latest"]),
    ],
)
def test_a_tag_that_stands_for_several_versions_only_moves_forward(others: list[str], expected: list[str]) -> None:
    assert _tags(_tag("v1.2.3", *others), **NO_SHA) == expected


def test_a_prerelease_gives_its_own_version_only_even_when_it_is_the_highest() -> None:
    assert _tags(_tag("v2.0.0-rc.1", "v1.0.0"), **NO_SHA) == ["2.0.0-rc.1"]
    assert _tags(_tag("v0.1.0-alpha"), **NO_SHA) == ["0.1.0-alpha"]


def test_build_metadata_becomes_a_hyphen_since_a_tag_has_no_plus() -> None:
    assert _tags(_tag("v1.2.3+build.5"), **NO_SHA) == ["1.2.3-build.5", "1.2", "1", "latest"]


def test_below_one_there_is_no_tag_for_the_major_version() -> None:
    assert _tags(_tag("v0.3.1"), **NO_SHA) == ["0.3.1", "0.3", "latest"]


def test_a_git_tag_that_is_no_version_is_tagged_by_its_name() -> None:
    assert _tags(_tag("nightly"), **NO_SHA) == ["nightly"]
    assert _tags(_tag("release/2024#1"), **NO_SHA) == ["release-2024-1"]
    assert _tags(_tag("v1.2"), **NO_SHA) == ["v1.2"]


@pytest.mark.parametrize(
    ("name", "remote", "expected"),
    [
        ("latest", (), "branch-latest"),
        ("edge", (), "branch-edge"),
        ("pr-7", (), "branch-pr-7"),
        ("pr/7", (), "branch-pr-7"),
        (f"sha-{SHA}", (), f"branch-sha-{SHA}"),
        ("sha-0123456", (), "branch-sha-0123456"),
        ("1.2", ("v1.2.0",), "branch-1.2"),
        ("1", ("v1.2.0",), "branch-1"),
        ("1.2.0", ("v1.2.0",), "branch-1.2.0"),
        ("1.3", ("v1.3.0-rc.1",), "branch-1.3"),
        ("1.2", (), "1.2"),
        ("1.3", ("v1.2.0",), "1.3"),
        ("v1.2.0", ("v1.2.0",), "v1.2.0"),
        ("latest-fixes", (), "latest-fixes"),
        ("sha-fix", (), "sha-fix"),
    ],
)
def test_a_branch_cannot_take_a_tag_that_another_rule_gives(name: str, remote: tuple[str, ...], expected: str) -> None:
    assert _tags(_branch(name, remote=remote), **NO_SHA) == [expected]


def test_a_git_tag_cannot_take_a_tag_that_another_rule_gives_either() -> None:
    assert _tags(_tag("latest", "v1.0.0"), **NO_SHA) == ["tag-latest"]
    assert _tags(_tag("1.0", "v1.0.1"), **NO_SHA) == ["tag-1.0"]


def test_duplicates_are_removed_and_the_first_rule_is_told() -> None:
    commit = _branch("main", default=True)
    tags = plan_tags(commit, TagRules(raw=["latest", "main", "extra", "extra"]))
    assert [str(item.tag) for item in tags] == ["main", "latest", "extra", *SHA_TAGS]
    assert [item.rule for item in tags] == ["branch", "default_branch", "raw", "sha", "sha_short"]


def test_each_tag_says_why() -> None:
    planned = _by_rule(_tag("v1.2.3", "v1.0.0"))
    assert planned["1.2.3"].reason == "version v1.2.3"
    assert planned["1"].reason == "1.2.3 is the highest release of 1"
    assert planned["latest"].reason == "1.2.3 is the highest release"


@pytest.mark.parametrize("raw", ["a b", "", "-x", ".x", "x/y", "x:y", "ü", "x" * 129, "x\n"])
def test_a_raw_tag_outside_the_grammar_is_told_by_its_place(raw: str) -> None:
    with pytest.raises(RequestInvalid) as caught:
        plan_tags(_branch("main"), TagRules(raw=["fine", raw]))
    assert [item["field"] for item in caught.value.details["fields"]] == ["tags.raw.1"]


ALL_OFF = TagRules(
    sha=False,
    sha_short=False,
    branch=False,
    pull_request=False,
    semver=False,
    default_branch=DefaultBranchTag.NONE,
)


def test_all_rules_off_is_invalid_before_anything_is_known_of_the_commit() -> None:
    assert [field for field, _ in rule_problems(ALL_OFF)] == ["tags"]
    assert rule_problems(ALL_OFF.model_copy(update={"raw": ["x"]})) == []
    with pytest.raises(RequestInvalid, match="every rule is off"):
        plan_tags(_branch("main", default=True), ALL_OFF)


def test_no_rule_that_fits_the_ref_is_invalid_too() -> None:
    with pytest.raises(RequestInvalid, match="no rule that is on gives a tag for a build of pull request 7"):
        plan_tags(Commit(SHA, "pull_request", "7", False), ALL_OFF.model_copy(update={"branch": True}))


def test_names_that_lose_what_tells_them_apart_get_a_digest() -> None:
    names = ["功能", "修复", "feature/功能", "feature/修复", "x" * 200, "x" * 201, "größe", "grüße", "@", "#"]
    tags = [sanitise(name) for name in names[:-2]]
    assert len(set(tags)) == len(tags)
    assert all(len(tag) <= 128 for tag in tags)
    assert sanitise("x" * 128) == "x" * 128


def _labels(commit: Commit, source: str = SOURCE, **labels: str) -> dict[str, str]:
    return oci_labels(commit, source=source, tags=plan_tags(commit, TagRules()), labels=labels)


def test_labels_say_where_the_image_comes_from() -> None:
    assert _labels(_tag("v1.2.3+b.1")) == {
        "org.opencontainers.image.source": SOURCE,
        "org.opencontainers.image.url": "https://example.com/team/app",
        "org.opencontainers.image.revision": SHA,
        "org.opencontainers.image.version": "1.2.3+b.1",
        "org.opencontainers.image.ref.name": "v1.2.3+b.1",
        "org.opencontainers.image.title": "app",
    }


@pytest.mark.parametrize(
    ("commit", "version", "ref_name"),
    [
        (_branch("feature/x"), "feature-x", "feature/x"),
        (_branch("main", default=True), "main", "main"),
        (Commit(SHA, "pull_request", "7", False), "pr-7", "pr-7"),
        (Commit(SHA, "commit", "", False), f"sha-{SHA}", SHA),
    ],
)
def test_version_and_ref_name_follow_what_was_built(commit: Commit, version: str, ref_name: str) -> None:
    labels = _labels(commit)
    assert labels["org.opencontainers.image.version"] == version
    assert labels["org.opencontainers.image.ref.name"] == ref_name


def test_a_release_elsewhere_does_not_change_the_labels_of_a_branch() -> None:
    # Else the next build of the same commit would not find the image that it has already.
    commit = _branch("main", default=True)
    assert _labels(commit) == _labels(replace(commit, remote_tags=("v1.0.0",)))


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("https://alice:hunter2@example.com/a.git", "https://example.com/a.git"),
        ("https://hunter2@example.com/a.git", "https://example.com/a.git"),
        ("https://a@b:hunter2@example.com/a.git", "https://example.com/a.git"),
        ("HTTPS://alice:hunter2@example.com:8443/a", "HTTPS://example.com:8443/a"),
        ("https://example.com/a.git?private_token=hunter2#hunter2", "https://example.com/a.git"),
        ("ssh://git@example.com:22/a.git", "ssh://git@example.com:22/a.git"),
        ("ssh://git:hunter2@example.com/a.git", "ssh://git@example.com/a.git"),
        ("git@example.com:team/a.git", "git@example.com:team/a.git"),
        ("git:hunter2@example.com:team/a.git", "example.com:team/a.git"),
    ],
)
def test_no_credentials_are_in_the_source(source: str, shown: str) -> None:
    labels = _labels(_branch("main"), source)
    assert labels["org.opencontainers.image.source"] == shown
    assert labels["org.opencontainers.image.title"] == "a"
    assert "hunter2" not in "".join(labels.values())


def test_only_a_web_address_is_a_url_to_visit() -> None:
    assert "org.opencontainers.image.url" not in _labels(_branch("main"), "git@example.com:team/a.git")


def test_the_requests_own_labels_stand_beside_caissons() -> None:
    own = {"org.opencontainers.image.description": "My äpp 👍", "team": "blue"}
    labels = oci_labels(_branch("main"), source=SOURCE, tags=plan_tags(_branch("main"), TagRules()), labels=own)
    assert labels.items() >= own.items()
    with pytest.raises(RequestInvalid, match=r"'caisson\.spec' is reserved"):
        oci_labels(_branch("main"), source=SOURCE, tags=(), labels={"team": "x", "caisson.spec": "forged"})


def test_every_label_that_caisson_derives_is_refused_in_a_request() -> None:
    made = _labels(_branch("main"), "https://example.com/team/app.git")
    assert set(made) | {"org.opencontainers.image.created"} == DERIVED_LABELS
    for key in DERIVED_LABELS:
        assert f"{key!r} is derived from the commit; leave it out (so are " in label_problem((key, "x"))


@pytest.mark.parametrize(
    "bad", ["\x00", "\x1b[31m", "a\nb", "\x85", "a\u202eb", "\u2066", "\u200f", "\u2028", "\u061c"]
)
def test_a_label_that_a_terminal_would_obey_is_refused(bad: str) -> None:
    assert "control character U+" in label_problem(("team", bad))
