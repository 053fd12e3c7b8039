"""Gitea's and Forgejo's webhooks ``push`` and ``pull_request``. Pure.

Sources: Gitea's and Forgejo's documentation, "Webhooks"; what a payload holds, ``modules/structs/hook.go`` of both.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from caisson.webhooks.event import Event, Ignored, changed_paths, find, is_zeros, some_text, text
from caisson.webhooks.github import pull_request_event, push_event

# "synchronized" is the payload's word, in events of their own also the header's.
_ACTIONS = frozenset({"opened", "reopened", "synchronized"})
_PULL_REQUESTS = frozenset({"pull_request", "pull_request_sync"})


def parse(event: str, payload: Mapping[str, Any]) -> tuple[Event | Ignored, ...]:
    """What a delivery tells; ``event`` is its header ``X-Gitea-Event``. Raises ``Malformed``."""
    if event == "push":
        return (_push(payload),)
    if event in _PULL_REQUESTS:
        action = text(payload, "action")
        if action not in _ACTIONS:
            return (Ignored(f"the pull request was {action[:60]!r}, which builds nothing"),)
        return (pull_request_event(payload),)
    return (Ignored(f"the event {event[:60]!r} builds nothing"),)


def _push(payload: Mapping[str, Any]) -> Event | Ignored:
    ref = text(payload, "ref")
    if is_zeros(some_text(payload, "after")):
        return Ignored(f"{ref[:120]!r} was deleted")
    return push_event(payload, ref, _paths(payload))


def _paths(payload: Mapping[str, Any]) -> tuple[str, ...] | None:
    commits, total = find(payload, "commits"), find(payload, "total_commits")
    if is_zeros(some_text(payload, "before")):
        return None
    if isinstance(commits, list) and isinstance(total, int) and total > len(commits):
        return None
    return changed_paths(commits)
