"""GitHub's webhooks ``push`` and ``pull_request``. Pure.

Source: GitHub Docs, "Webhook events and payloads".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from caisson.webhooks.event import (
    Event,
    EventKind,
    Ignored,
    Malformed,
    changed_paths,
    find,
    number,
    ref_name,
    sha,
    some_text,
    text,
)

# With these the head has new commits, or had none of ours built.
_ACTIONS = frozenset({"opened", "reopened", "synchronize", "synchronized"})
# Of what GitHub's lists hold at the most, the smaller bounds that it has named.
_MOST_COMMITS = 2_048
_MOST_FILES = 3_000


def parse(event: str, payload: Mapping[str, Any]) -> tuple[Event | Ignored, ...]:
    """What a delivery tells; ``event`` is its header ``X-GitHub-Event``. Raises ``Malformed``."""
    if event == "push":
        return (_push(payload),)
    if event == "pull_request":
        return (_pull_request(payload),)
    return (Ignored(f"the event {event[:60]!r} builds nothing"),)


def _push(payload: Mapping[str, Any]) -> Event | Ignored:
    ref = text(payload, "ref")
    if find(payload, "deleted") is True:
        return Ignored(f"{ref[:120]!r} was deleted")
    return push_event(payload, ref, _paths(payload))


def push_event(payload: Mapping[str, Any], ref: str, paths: tuple[str, ...] | None) -> Event | Ignored:
    """The push of a branch or tag, in the form that GitHub and Gitea share."""
    repository = text(payload, "repository", "full_name")
    message = some_text(payload, "head_commit", "message")
    if ref.startswith("refs/tags/"):
        # For an annotated tag "after" is the tag's own object.
        commit = ("head_commit", "id") if find(payload, "head_commit", "id") else ("after",)
        name = ref_name(ref, "refs/tags/")
        return Event(EventKind.TAG, repository, ref, sha(payload, *commit), tag=name, message=message)
    if ref.startswith("refs/heads/"):
        branch = ref_name(ref, "refs/heads/")
        commit_sha = sha(payload, "after")
        return Event(EventKind.PUSH, repository, ref, commit_sha, branch=branch, message=message, paths=paths)
    return Ignored(f"{ref[:120]!r} is neither a branch nor a tag")


def _paths(payload: Mapping[str, Any]) -> tuple[str, ...] | None:
    commits = find(payload, "commits")
    # A new branch lists what no other has, and a forced push not what it dropped.
    if find(payload, "created") is True or find(payload, "forced") is True:
        return None
    if isinstance(commits, list) and len(commits) >= _MOST_COMMITS:
        return None
    return changed_paths(commits, most_files=_MOST_FILES)


def _pull_request(payload: Mapping[str, Any]) -> Event | Ignored:
    action = text(payload, "action")
    if action not in _ACTIONS:
        return Ignored(f"the pull request was {action[:60]!r}, which builds nothing")
    return pull_request_event(payload)


def pull_request_event(payload: Mapping[str, Any]) -> Event:
    """A pull request whose head is to be built, in the form that GitHub and Gitea share."""
    index = number(payload, "number")
    return Event(
        EventKind.PULL_REQUEST,
        text(payload, "repository", "full_name"),
        f"refs/pull/{index}/head",
        sha(payload, "pull_request", "head", "sha"),
        branch=ref_name(text(payload, "pull_request", "base", "ref"), "refs/heads/"),
        number=index,
        message=some_text(payload, "pull_request", "title"),
        from_fork=_is_from_fork(payload),
    )


def _is_from_fork(payload: Mapping[str, Any]) -> bool:
    head, base = (find(payload, "pull_request", side, "repo") for side in ("head", "base"))
    if base is None:
        raise Malformed("the payload's pull_request.base.repo is not there")
    # A head whose repository is gone was a fork's; so was one that can't be told to be ours.
    return find(head, "id") is None or find(head, "id") != find(base, "id")
