"""What an event builds by a hook's rules, and why not where it builds nothing. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from caisson.queueing import Priority
from caisson.request import BuildRequest, DefaultBranchTag
from caisson.webhooks.event import Event, EventKind, Ignored, Provider, skip_marker
from caisson.webhooks.patterns import matches_any
from caisson.webhooks.rules import Hook, Rule


@dataclass(frozen=True)
class WantedBuild:
    """One build that an event asks for: a ``BuildRequest`` as JSON, and how it goes into the queue.

    ``sha`` is the commit that statuses are told of, ``ref`` and ``context`` are theirs, ``rule`` is the rule's place
    in the file, ``host`` where to build; empty: where the delivery came in.
    """

    request: dict[str, Any]
    rule: int
    event: str
    sha: str
    ref: str
    context: str
    host: str
    priority: Priority
    supersede: bool


@dataclass(frozen=True)
class Decision:
    """What is built, and the reasons for what is not."""

    builds: tuple[WantedBuild, ...] = ()
    reasons: tuple[str, ...] = ()


def decide(hook: Hook, events: Iterable[Event | Ignored]) -> Decision:
    """What a hook's rules make of a delivery's events; of several rules that match each builds."""
    builds: list[WantedBuild] = []
    reasons: list[str] = []
    for event in events:
        if isinstance(event, Ignored):
            reasons.append(event.reason)
        elif event.repository.casefold() != hook.expected_name.casefold():
            reasons.append(f"the event is of {event.repository[:120]!r}, and this hook is for {hook.expected_name!r}")
        else:
            for index, rule in enumerate(hook.rule):
                reason = reason_against(rule, event)
                if reason:
                    reasons.append(f"rule {index + 1}: {reason}")
                else:
                    builds.append(_wanted(hook, index, rule, event))
    return Decision(tuple(builds), tuple(dict.fromkeys(reasons)))


def reason_against(rule: Rule, event: Event) -> str:
    """Why the rule does not build the event; empty: it does."""
    if rule.on is not event.kind:
        return f"it is for {rule.on.replace('_', ' ')} events"
    marker = skip_marker(event.message) if rule.skip_ci else ""
    if marker:
        return f"the message has {marker!r}"
    if event.from_fork and not rule.forks:
        return "pull requests from forks are not built; forks = true would allow them"
    if rule.branches and not matches_any(rule.branches, event.branch):
        return f"{event.branch[:120]!r} is not among its branches"
    if rule.tags and not matches_any(rule.tags, event.tag):
        return f"{event.tag[:120]!r} is not among its tags"
    if event.paths is not None and not _touches(rule, event.paths):
        return f"none of the {len(event.paths)} changed files is among its paths"
    return ""


def _touches(rule: Rule, paths: tuple[str, ...]) -> bool:
    if not rule.paths and not rule.paths_ignore:
        return True
    return any(
        (not rule.paths or matches_any(rule.paths, path)) and not matches_any(rule.paths_ignore, path) for path in paths
    )


def _wanted(hook: Hook, index: int, rule: Rule, event: Event) -> WantedBuild:
    request = hook.request(rule)
    changes: dict[str, Any] = {}
    if event.from_fork:
        changes = _without_trust(request)
    elif event.kind is EventKind.PULL_REQUEST and hook.provider is Provider.BITBUCKET:
        changes = _as_pull_request(request, event)
    body = request.model_copy(update=changes).model_dump(mode="json", exclude_defaults=True)
    body["ref"] = event.ref
    if event.commit:
        body["commit"] = event.commit
    name = rule.name or request.image
    kind = " (pull request)" if event.kind is EventKind.PULL_REQUEST else ""
    return WantedBuild(
        request=body,
        rule=index + 1,
        event=str(event),
        sha=event.sha,
        ref=event.ref,
        context=f"{hook.status.context if hook.status else 'caisson'}/{name}{kind}",
        host=rule.host or "",
        priority=rule.priority,
        supersede=rule.supersedes,
    )


def _without_trust(request: BuildRequest) -> dict[str, Any]:
    """A stranger wrote the Dockerfile and ``.gitmodules``: they get no secret, push nothing, and move only their tags.

    Submodules would be fetched with the git credential, and a Dockerfile could send on what is in them.
    """
    tags = request.tags.model_copy(update={"raw": [], "default_branch": DefaultBranchTag.NONE, "pull_request": True})
    return {"push": False, "secrets": [], "git_credentials": "", "submodules": False, "lfs": False, "tags": tags}


def _as_pull_request(request: BuildRequest, event: Event) -> dict[str, Any]:
    """Built from a branch, for want of a ref of its own: it moves none of that branch's tags."""
    raw = [*request.tags.raw, *([f"pr-{event.number}"] if request.tags.pull_request else [])]
    tags = request.tags.model_copy(update={"branch": False, "default_branch": DefaultBranchTag.NONE, "raw": raw})
    return {"tags": tags}
