"""Bitbucket Cloud's webhooks ``repo:push`` and ``pullrequest:…``. Pure.

Source: Atlassian Support, "Event payloads" of Bitbucket Cloud. No payload lists changed files. Pull requests have no
refs there: one is built from its source branch, and one from a fork is in no branch of the repository.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from caisson.webhooks.event import (
    Event,
    EventKind,
    Ignored,
    Malformed,
    find,
    number,
    ref_name,
    sha,
    some_text,
    text,
)

_MOST_CHANGES = 100


def parse(event: str, payload: Mapping[str, Any]) -> tuple[Event | Ignored, ...]:
    """What a delivery tells, ref by ref; ``event`` is its header ``X-Event-Key``. Raises ``Malformed``."""
    if event == "repo:push":
        return _push(payload)
    if event in ("pullrequest:created", "pullrequest:updated"):
        return (_pull_request(payload),)
    return (Ignored(f"the event {event[:60]!r} builds nothing"),)


def _push(payload: Mapping[str, Any]) -> tuple[Event | Ignored, ...]:
    repository = text(payload, "repository", "full_name")
    changes = find(payload, "push", "changes")
    if not isinstance(changes, list):
        raise Malformed("the payload's push.changes is not a list")
    if len(changes) > _MOST_CHANGES:
        return (Ignored(f"the push is of {len(changes)} refs; more than {_MOST_CHANGES} at once build nothing"),)
    return tuple(_change(repository, change) for change in changes) or (Ignored("nothing was pushed"),)


def _change(repository: str, change: Any) -> Event | Ignored:
    if find(change, "new") is None:
        return Ignored(f"{some_text(change, 'old', 'name')[:120]!r} was deleted")
    name, kind = text(change, "new", "name"), some_text(change, "new", "type")
    commit, message = sha(change, "new", "target", "hash"), some_text(change, "new", "target", "message")
    if kind == "branch":
        branch = ref_name(f"refs/heads/{name}", "refs/heads/")
        return Event(EventKind.PUSH, repository, f"refs/heads/{name}", commit, branch=branch, message=message)
    if kind == "tag":
        tag = ref_name(f"refs/tags/{name}", "refs/tags/")
        return Event(EventKind.TAG, repository, f"refs/tags/{name}", commit, tag=tag, message=message)
    return Ignored(f"{name[:120]!r} is neither a branch nor a tag")


def _pull_request(payload: Mapping[str, Any]) -> Event | Ignored:
    repository, asked = text(payload, "repository", "full_name"), find(payload, "pullrequest")
    source = some_text(asked, "source", "repository", "full_name")
    if source.casefold() != repository.casefold():
        return Ignored("the pull request is from a fork, whose commits Bitbucket keeps in no ref of the repository")
    branch = ref_name(f"refs/heads/{text(asked, 'source', 'branch', 'name')}", "refs/heads/")
    return Event(
        EventKind.PULL_REQUEST,
        repository,
        f"refs/heads/{branch}",
        sha(asked, "source", "commit", "hash"),
        branch=ref_name(f"refs/heads/{text(asked, 'destination', 'branch', 'name')}", "refs/heads/"),
        number=number(asked, "id"),
        message=some_text(asked, "title"),
    )
