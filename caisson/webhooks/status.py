"""Commit statuses: what each provider's API is told of a build, and what its answers mean. Pure."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Any
from urllib.parse import quote

from caisson.webhooks.event import Provider
from caisson.webhooks.rules import Hook

MOST_ATTEMPTS = 12
_FIRST_PAUSE = timedelta(seconds=2)
_LONGEST_PAUSE = timedelta(hours=1)
_BITBUCKET_KEY = 40
_HEADS = re.compile(r"refs/(?:heads|tags)/")


class BuildState(StrEnum):
    """How far a build is, as hosts of git are told."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCESS = "success"
    FAILURE = "failure"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        """Whether nothing comes after it."""
        return self not in (BuildState.QUEUED, BuildState.RUNNING)


class Verdict(StrEnum):
    """What an answer means for the message that it answers."""

    TOLD = "told"
    AGAIN = "again"
    REFUSED = "refused"


# Each provider's documentation of commit statuses, in the order of its words' meaning.
_STATES: Mapping[Provider, Mapping[BuildState, str]] = {
    Provider.GITHUB: {
        BuildState.QUEUED: "pending",
        BuildState.RUNNING: "pending",
        BuildState.SUCCESS: "success",
        BuildState.FAILURE: "failure",
        BuildState.CANCELLED: "error",
    },
    Provider.GITEA: {
        BuildState.QUEUED: "pending",
        BuildState.RUNNING: "pending",
        BuildState.SUCCESS: "success",
        BuildState.FAILURE: "failure",
        BuildState.CANCELLED: "error",
    },
    Provider.GITLAB: {
        BuildState.QUEUED: "pending",
        BuildState.RUNNING: "running",
        BuildState.SUCCESS: "success",
        BuildState.FAILURE: "failed",
        BuildState.CANCELLED: "canceled",
    },
    Provider.BITBUCKET: {
        BuildState.QUEUED: "INPROGRESS",
        BuildState.RUNNING: "INPROGRESS",
        BuildState.SUCCESS: "SUCCESSFUL",
        BuildState.FAILURE: "FAILED",
        BuildState.CANCELLED: "STOPPED",
    },
}
# Everybody who may see the commit reads it, so it tells nothing of this host.
_DESCRIPTIONS = {
    BuildState.QUEUED: "The image waits to be built",
    BuildState.RUNNING: "The image is being built",
    BuildState.SUCCESS: "The image was built",
    BuildState.FAILURE: "The image could not be built",
    BuildState.CANCELLED: "The build was cancelled",
}
_SUPERSEDED = "A newer push is built instead"


@dataclass(frozen=True)
class StatusMessage:
    """One POST to a provider; the token is added where it is sent."""

    url: str
    body: dict[str, Any]


def build_state(state_type: str, state_name: str = "") -> BuildState:
    """The state for a flow run's, by Prefect's type and name.

    >>> build_state("SCHEDULED").value, build_state("CRASHED").value, build_state("CANCELLING").value
    ('queued', 'failure', 'running')
    """
    if state_type in ("SCHEDULED", "PENDING", "PAUSED") or (state_type == "RUNNING" and state_name == "AwaitingRetry"):
        return BuildState.QUEUED
    finals = {
        "COMPLETED": BuildState.SUCCESS,
        "FAILED": BuildState.FAILURE,
        "CRASHED": BuildState.FAILURE,
        "CANCELLED": BuildState.CANCELLED,
    }
    return finals.get(state_type, BuildState.RUNNING)


def api_of(hook: Hook) -> str:
    """Address of the API for statuses: the hook's own, else by the host of its repository, always with TLS.

    >>> from caisson.webhooks.rules import read_rules
    >>> hook = '[[hook]]\\nname="a"\\nprovider="gitlab"\\nsecret="s"\\nrepository="git@git.example.com:team/app.git"\\n'
    >>> api_of(read_rules(hook + '[[hook.rule]]\\non="push"\\nbuild={image="team/app"}', "f").hook[0])
    'https://git.example.com/api/v4'
    """
    if hook.status is not None and hook.status.api:
        return hook.status.api.rstrip("/")
    url = hook.url
    port = f":{url.port}" if url.port and url.scheme == "https" and url.port != 443 else ""
    host = f"{url.host.lower()}{port}"
    if host == "github.com":
        return "https://api.github.com"
    if hook.provider is Provider.BITBUCKET:
        return "https://api.bitbucket.org/2.0"
    path = {Provider.GITHUB: "api/v3", Provider.GITLAB: "api/v4", Provider.GITEA: "api/v1"}[hook.provider]
    return f"https://{host}/{path}"


def status_message(
    hook: Hook, *, sha: str, ref: str, context: str, state: BuildState, link: str | None
) -> StatusMessage:
    """What the provider is told: GitHub "Create a commit status", GitLab "Set commit status", Gitea
    "repoCreateStatus", Bitbucket "Create a build status for a commit".

    ``link`` is the run's page; None: there is no run, and there was none to cancel, so that a newer push came before.
    """
    api, name, word = api_of(hook), hook.expected_name, _STATES[hook.provider][state]
    description = _SUPERSEDED if link is None and state is BuildState.CANCELLED else _DESCRIPTIONS[state]
    target = {"target_url": link} if link else {}
    commit = quote(sha, safe="")
    if hook.provider is Provider.GITLAB:
        body = {"state": word, "name": context, "description": description, **target}
        if _HEADS.match(ref):
            body["ref"] = _HEADS.sub("", ref, count=1)
        return StatusMessage(f"{api}/projects/{quote(name, safe='')}/statuses/{commit}", body)
    path = quote(name)
    if hook.provider is Provider.BITBUCKET:
        # It asks for an address always.
        url = link or f"https://bitbucket.org/{path}"
        body = {"key": _key(context), "state": word, "name": context, "url": url, "description": description}
        return StatusMessage(f"{api}/repositories/{path}/commit/{commit}/statuses/build", body)
    body = {"state": word, "context": context, "description": description, **target}
    return StatusMessage(f"{api}/repos/{path}/statuses/{commit}", body)


def authorization(provider: Provider, token: str) -> dict[str, str]:
    """The headers that carry the token, and those that the API asks for."""
    if provider is Provider.GITLAB:
        return {"PRIVATE-TOKEN": token}
    if provider is Provider.GITEA:
        return {"Authorization": f"token {token}"}
    headers = {"Authorization": f"Bearer {token}"}
    if provider is Provider.GITHUB:
        headers |= {"Accept": "application/vnd.github+json", "X-GitHub-Api-Version": "2022-11-28"}
    return headers


def verdict(provider: Provider, status: int, body: bytes) -> Verdict:
    """What an HTTP answer means; ``status`` 0 stands for none.

    >>> verdict(Provider.GITHUB, 201, b"").value, verdict(Provider.GITHUB, 503, b"").value
    ('told', 'again')
    """
    if 200 <= status < 300:
        return Verdict.TOLD
    if provider is Provider.GITLAB and status == 400 and b"Cannot transition status" in body:
        # It has that state already, or a later one.
        return Verdict.TOLD
    if status in (0, 408, 425, 429) or status >= 500 or _is_rate_limit(status, body):
        return Verdict.AGAIN
    return Verdict.REFUSED


def _is_rate_limit(status: int, body: bytes) -> bool:
    """GitHub answers 403 for a limit of its rates as for a token that may not."""
    if status != 403:
        return False
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        return False
    message = answer.get("message") if isinstance(answer, dict) else None
    return isinstance(message, str) and "rate limit" in message.lower()


def pause_after(attempts: int) -> timedelta:
    """How long to wait after that many failures in a row.

    >>> pause_after(1).total_seconds(), pause_after(3).total_seconds(), pause_after(99).total_seconds()
    (2.0, 8.0, 3600.0)
    """
    return min(_FIRST_PAUSE * (1 << min(attempts - 1, 20)), _LONGEST_PAUSE)


def _key(context: str) -> str:
    """Bitbucket's key, of at most 40 characters."""
    if len(context) <= _BITBUCKET_KEY:
        return context
    return f"{context[: _BITBUCKET_KEY - 13]}-{hashlib.sha256(context.encode()).hexdigest()[:12]}"
