"""GitLab's webhooks: push, tag push and merge request events. Pure.

Source: GitLab Docs, "Webhook events".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from caisson.webhooks.event import (
    Event,
    EventKind,
    Ignored,
    changed_paths,
    find,
    is_zeros,
    number,
    ref_name,
    sha,
    some_text,
    text,
)

_ACTIONS = frozenset({"open", "reopen", "update"})


def parse(event: str, payload: Mapping[str, Any]) -> tuple[Event | Ignored, ...]:
    """What a delivery tells; ``event`` is its header ``X-Gitlab-Event``. Raises ``Malformed``."""
    if event in ("Push Hook", "Tag Push Hook"):
        return (_push(payload),)
    if event == "Merge Request Hook":
        return (_merge_request(payload),)
    return (Ignored(f"the event {event[:60]!r} builds nothing"),)


def _push(payload: Mapping[str, Any]) -> Event | Ignored:
    ref = text(payload, "ref")
    if is_zeros(some_text(payload, "after")):
        return Ignored(f"{ref[:120]!r} was deleted")
    repository = text(payload, "project", "path_with_namespace")
    message = _message(payload)
    # For an annotated tag "after" is the tag's own object.
    commit = sha(payload, "checkout_sha" if some_text(payload, "checkout_sha") else "after")
    if ref.startswith("refs/tags/"):
        return Event(EventKind.TAG, repository, ref, commit, tag=ref_name(ref, "refs/tags/"), message=message)
    if ref.startswith("refs/heads/"):
        branch = ref_name(ref, "refs/heads/")
        return Event(EventKind.PUSH, repository, ref, commit, branch=branch, message=message, paths=_paths(payload))
    return Ignored(f"{ref[:120]!r} is neither a branch nor a tag")


def _message(payload: Mapping[str, Any]) -> str:
    commits, after = find(payload, "commits"), some_text(payload, "checkout_sha") or some_text(payload, "after")
    listed = commits if isinstance(commits, list) else []
    return next((some_text(commit, "message") for commit in listed if find(commit, "id") == after), "")


def _paths(payload: Mapping[str, Any]) -> tuple[str, ...] | None:
    commits, total = find(payload, "commits"), find(payload, "total_commits_count")
    # The newest 20 commits are listed; the files of commits are there since GitLab 8.
    if is_zeros(some_text(payload, "before")) or not isinstance(commits, list) or not isinstance(total, int):
        return None
    return None if total > len(commits) else changed_paths(commits)


def _merge_request(payload: Mapping[str, Any]) -> Event | Ignored:
    asked = find(payload, "object_attributes")
    action = text(payload, "object_attributes", "action")
    # An update without oldrev has changed a title or a label.
    if action not in _ACTIONS or (action == "update" and not some_text(asked, "oldrev")):
        return Ignored(f"the merge request's {action[:60]!r} brings no commit, so it builds nothing")
    index = number(asked, "iid")
    source, target = find(asked, "source_project_id"), find(asked, "target_project_id")
    words = (some_text(asked, "title"), some_text(asked, "last_commit", "message"))
    return Event(
        EventKind.PULL_REQUEST,
        text(payload, "project", "path_with_namespace"),
        f"refs/merge-requests/{index}/head",
        sha(asked, "last_commit", "id"),
        branch=ref_name(text(asked, "target_branch"), "refs/heads/"),
        number=index,
        message="\n".join(words),
        from_fork=source is None or source != target,
    )
