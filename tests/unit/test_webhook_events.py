"""What the providers' documented payloads tell, in the same words for all of them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from caisson.webhooks.event import (
    MAX_PATHS,
    Event,
    EventKind,
    Ignored,
    Malformed,
    Provider,
    read_payload,
    skip_marker,
)
from caisson.webhooks.providers import parse_events
from tests.webhook_deliveries import changed, events, one_event, payload

HEAD = "6113728f27ae82c7b1a177c8d03f9e96e0adf246"
OTHER = "bffeb74224043ba2feb48d137756c8a9331c449a"
PUSH, TAG, PULL_REQUEST = EventKind.PUSH, EventKind.TAG, EventKind.PULL_REQUEST
GITHUB, GITLAB, GITEA, BITBUCKET = Provider.GITHUB, Provider.GITLAB, Provider.GITEA, Provider.BITBUCKET


@pytest.mark.parametrize(
    ("provider", "event", "name", "expected"),
    [
        (
            GITHUB,
            "push",
            "github-push",
            Event(
                PUSH,
                "team/app",
                "refs/heads/main",
                HEAD,
                branch="main",
                message="Mend the greeting\n\nIt was cold.",
                paths=("src/hello.py", "docs/hello.md", "old.txt"),
            ),
        ),
        (
            GITHUB,
            "push",
            "github-push-tag",
            Event(TAG, "team/app", "refs/tags/v1.2.0", HEAD, tag="v1.2.0", message="Mend the greeting\n\nIt was cold."),
        ),
        (
            GITHUB,
            "pull_request",
            "github-pull-request",
            Event(
                PULL_REQUEST,
                "team/app",
                "refs/pull/7/head",
                OTHER,
                branch="main",
                number=7,
                message="Greet everybody",
            ),
        ),
        (
            GITLAB,
            "Push Hook",
            "gitlab-push",
            Event(
                PUSH,
                "team/backend/app",
                "refs/heads/main",
                HEAD,
                branch="main",
                message="Mend the greeting\n",
                paths=("CHANGELOG", "app/hello.rb"),
            ),
        ),
        (
            GITLAB,
            "Tag Push Hook",
            "gitlab-tag",
            Event(TAG, "team/backend/app", "refs/tags/v1.0.0", HEAD, tag="v1.0.0"),
        ),
        (
            GITLAB,
            "Merge Request Hook",
            "gitlab-merge-request",
            Event(
                PULL_REQUEST,
                "team/backend/app",
                "refs/merge-requests/1/head",
                OTHER,
                branch="main",
                number=1,
                message="Greet everybody\nSay hello to all\n",
            ),
        ),
        (
            GITEA,
            "push",
            "gitea-push",
            Event(
                PUSH,
                "gitea/webhooks",
                "refs/heads/develop",
                OTHER,
                branch="develop",
                message="Webhooks Yay!",
                paths=("README.md",),
            ),
        ),
        (
            GITEA,
            "push",
            "gitea-tag",
            Event(TAG, "gitea/webhooks", "refs/tags/v2.0.0", OTHER, tag="v2.0.0", message="Webhooks Yay!"),
        ),
        (
            GITEA,
            "pull_request",
            "gitea-pull-request",
            Event(
                PULL_REQUEST,
                "gitea/webhooks",
                "refs/pull/3/head",
                OTHER,
                branch="develop",
                number=3,
                message="Greet everybody",
            ),
        ),
        (
            BITBUCKET,
            "repo:push",
            "bitbucket-push",
            Event(PUSH, "team/app", "refs/heads/main", HEAD, branch="main", message="Mend the greeting\n"),
        ),
        (
            BITBUCKET,
            "pullrequest:created",
            "bitbucket-pull-request",
            Event(
                PULL_REQUEST,
                "team/app",
                "refs/heads/changes",
                OTHER[:12],
                branch="main",
                number=12,
                message="Greet everybody",
            ),
        ),
    ],
)
def test_documented_payloads(provider: Provider, event: str, name: str, expected: Event) -> None:
    assert one_event(provider, event, name) == expected


def test_a_push_of_several_refs_is_several_events() -> None:
    tag, gone, branch = events(BITBUCKET, "repo:push", "bitbucket-push-many")
    assert isinstance(tag, Event)
    assert (tag.kind, tag.tag, tag.commit) == (TAG, "v1.0.0", HEAD)
    assert gone == Ignored("'gone' was deleted")
    assert isinstance(branch, Event)
    assert (branch.kind, branch.branch) == (PUSH, "next")


def test_a_short_sha_is_told_and_never_built_by() -> None:
    event = one_event(BITBUCKET, "pullrequest:updated", "bitbucket-pull-request")
    assert (event.sha, event.commit) == (OTHER[:12], "")


@pytest.mark.parametrize(
    ("provider", "event", "name", "reason"),
    [
        (GITHUB, "push", "github-push-deleted", "was deleted"),
        (GITLAB, "Push Hook", "gitlab-push-deleted", "was deleted"),
        (GITEA, "push", "gitea-push-deleted", "was deleted"),
        (GITHUB, "ping", "github-ping", "'ping' builds nothing"),
        (GITHUB, "pull_request", "github-pull-request-closed", "'closed', which builds nothing"),
        (GITLAB, "Merge Request Hook", "gitlab-merge-request-title", "brings no commit"),
        (BITBUCKET, "pullrequest:created", "bitbucket-pull-request-fork", "from a fork"),
        (GITEA, "create", "gitea-tag", "'create' builds nothing"),
        (GITLAB, "Note Hook", "gitlab-push", "'Note Hook' builds nothing"),
        (BITBUCKET, "repo:fork", "bitbucket-push", "'repo:fork' builds nothing"),
    ],
)
def test_what_builds_nothing_has_a_reason(provider: Provider, event: str, name: str, reason: str) -> None:
    (found,) = events(provider, event, name)
    assert isinstance(found, Ignored)
    assert reason in found.reason


@pytest.mark.parametrize(
    ("provider", "event", "name"),
    [
        (GITHUB, "pull_request", "github-pull-request-fork"),
        (GITLAB, "Merge Request Hook", "gitlab-merge-request-fork"),
        (GITEA, "pull_request", "gitea-pull-request-fork"),
        # Since a push to a pull request is an event of its own there.
        (GITEA, "pull_request_sync", "gitea-pull-request-fork"),
    ],
)
def test_a_pull_request_from_a_fork_is_known_as_one(provider: Provider, event: str, name: str) -> None:
    assert one_event(provider, event, name).from_fork


def test_a_pull_request_whose_repository_is_gone_is_a_forks() -> None:
    (event,) = changed(
        GITHUB, "pull_request", "github-pull-request", lambda value: value["pull_request"]["head"].update(repo=None)
    )
    assert isinstance(event, Event)
    assert event.from_fork


def _of_each(commits: list[Any], **fields: Any) -> Any:
    for commit in commits:
        commit.update(fields)


@pytest.mark.parametrize(
    ("provider", "event", "name", "change"),
    [
        (GITHUB, "push", "github-push", lambda v: v.update(created=True)),
        (GITHUB, "push", "github-push", lambda v: v.update(forced=True)),
        (GITHUB, "push", "github-push", lambda v: v.update(commits=[])),
        (GITHUB, "push", "github-push", lambda v: v.update(commits=v["commits"] * 1024)),
        (GITHUB, "push", "github-push", lambda v: v["commits"][0].update(added=[f"f{i}" for i in range(3000)])),
        (GITHUB, "push", "github-push", lambda v: v["commits"][0].update(added=[f"f{i}" for i in range(MAX_PATHS)])),
        (GITHUB, "push", "github-push", lambda v: v["commits"][0].update(added=["a" * 200_001])),
        (GITLAB, "Push Hook", "gitlab-push", lambda v: v.update(total_commits_count=21)),
        (GITLAB, "Push Hook", "gitlab-push", lambda v: v.update(before="0" * 40)),
        (GITLAB, "Push Hook", "gitlab-push", lambda v: v.pop("total_commits_count")),
        (GITEA, "push", "gitea-push", lambda v: v.update(total_commits=2)),
        (GITEA, "push", "gitea-push", lambda v: v.update(before="0" * 40)),
        (GITEA, "push", "gitea-push", lambda v: _of_each(v["commits"], added=None, modified=None, removed=None)),
        (GITEA, "push", "gitea-push", lambda v: _of_each(v["commits"], modified=[])),
    ],
)
def test_a_list_of_files_that_is_not_whole_is_none(provider: Provider, event: str, name: str, change: Any) -> None:
    (found,) = changed(provider, event, name, change)
    assert isinstance(found, Event)
    assert found.paths is None


@pytest.mark.parametrize(
    ("provider", "event", "name", "change", "field"),
    [
        (GITHUB, "push", "github-push", lambda v: v.pop("ref"), "ref"),
        (GITHUB, "push", "github-push", lambda v: v.update(ref="refs/heads/a..b"), "ref"),
        (GITHUB, "push", "github-push", lambda v: v.update(ref="refs/heads/--upload-pack=x"), "ref"),
        (GITHUB, "push", "github-push", lambda v: v.update(ref="refs/heads/a\nb"), "ref"),
        (GITHUB, "push", "github-push", lambda v: v.update(after="main"), "after"),
        (GITHUB, "push", "github-push", lambda v: v.update(after=["a"]), "after"),
        (GITHUB, "push", "github-push", lambda v: v.update(repository=None), "repository.full_name"),
        (GITHUB, "pull_request", "github-pull-request", lambda v: v.update(number=-1), "number"),
        (GITHUB, "pull_request", "github-pull-request", lambda v: v.update(number=True), "number"),
        (GITHUB, "pull_request", "github-pull-request", lambda v: v["pull_request"]["base"].pop("repo"), "base.repo"),
        (GITLAB, "Merge Request Hook", "gitlab-merge-request", lambda v: v["object_attributes"].pop("iid"), "iid"),
        (BITBUCKET, "repo:push", "bitbucket-push", lambda v: v.update(push=[]), "push.changes"),
        (BITBUCKET, "repo:push", "bitbucket-push", lambda v: v["push"].update(changes=[{"new": 1}]), "new.name"),
    ],
)
def test_what_no_provider_sends_is_refused_by_its_field(
    provider: Provider, event: str, name: str, change: Any, field: str
) -> None:
    with pytest.raises(Malformed, match=field):
        changed(provider, event, name, change)


def test_a_push_of_countless_refs_builds_nothing() -> None:
    (found,) = changed(
        BITBUCKET, "repo:push", "bitbucket-push", lambda v: v["push"].update(changes=v["push"]["changes"] * 101)
    )
    assert isinstance(found, Ignored)


def test_notes_and_other_refs_build_nothing() -> None:
    (found,) = changed(GITHUB, "push", "github-push", lambda v: v.update(ref="refs/notes/commits"))
    assert isinstance(found, Ignored)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"null",
        b'"text"',
        b"{",
        b"payload=%7B%7D",
        b'{"a": "\xff"}',
        b"[" * 100_000,
        b'{"a":' * 65 + b"1" + b"}" * 65,
        b'{"a": 1' + b"1" * 5000 + b"}",
    ],
)
def test_only_a_json_object_of_some_depth_is_read(body: bytes) -> None:
    with pytest.raises(Malformed):
        read_payload(body)


def test_brackets_in_texts_are_no_depth() -> None:
    assert read_payload(json.dumps({"message": "[" * 1000 + '\\"{' * 1000}).encode())


def test_a_form_is_told_how_to_become_json() -> None:
    with pytest.raises(Malformed, match="application/json"):
        read_payload(b"payload=%7B%7D")


@pytest.mark.parametrize(
    "message",
    [
        "x [skip ci]",
        "[ci skip] x",
        "[no ci]",
        "[skip actions]",
        "[actions skip]",
        "[Skip CI]",
        "[skip-ci]",
        "Title\n\n\nskip-checks: true",
        "Title\n\n\nskip-checks:true",
    ],
)
def test_the_providers_words_for_no_build(message: str) -> None:
    assert skip_marker(message)


@pytest.mark.parametrize("message", ["", "skip ci", "[skipci]", "see [skip] ci", "x skip-checks: true y"])
def test_other_words_are_no_wish_to_skip(message: str) -> None:
    assert not skip_marker(message)


def test_payloads_of_one_provider_are_not_anothers() -> None:
    body = json.dumps(payload("github-push")).encode()
    with pytest.raises(Malformed):
        parse_events(GITLAB, "Push Hook", body)
