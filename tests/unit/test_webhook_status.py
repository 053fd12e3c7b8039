"""What providers are told of a build, by the documentation of their APIs."""

from __future__ import annotations

from datetime import timedelta

import pytest

from caisson.webhooks.event import Provider
from caisson.webhooks.rules import Hook, read_rules
from caisson.webhooks.status import (
    MOST_ATTEMPTS,
    BuildState,
    Verdict,
    api_of,
    authorization,
    build_state,
    pause_after,
    status_message,
    verdict,
)

SHA = "6113728f27ae82c7b1a177c8d03f9e96e0adf246"
LINK = "https://caisson.example.com/runs/flow-run/1"


def hook(provider: str, repository: str, api: str = "") -> Hook:
    status = f'status = {{ token = "t"{f", api = {api!r}" if api else ""} }}'
    head = f'[[hook]]\nname = "a"\nprovider = "{provider}"\nsecret = "s"\nrepository = "{repository}"\n{status}\n'
    return read_rules(f'{head}[[hook.rule]]\non = "push"\nbuild = {{ image = "team/app" }}', "f").hook[0]


HOOKS = {
    Provider.GITHUB: hook("github", "https://github.com/team/app.git"),
    Provider.GITLAB: hook("gitlab", "https://gitlab.com/team/backend/app.git"),
    Provider.GITEA: hook("gitea", "https://git.example.com/team/app.git"),
    Provider.BITBUCKET: hook("bitbucket", "git@bitbucket.org:team/app.git"),
}


@pytest.mark.parametrize(
    ("provider", "state", "url", "body"),
    [
        (
            Provider.GITHUB,
            BuildState.RUNNING,
            f"https://api.github.com/repos/team/app/statuses/{SHA}",
            {"state": "pending", "context": "caisson/x", "target_url": LINK, "description": "The image is being built"},
        ),
        (
            Provider.GITLAB,
            BuildState.FAILURE,
            f"https://gitlab.com/api/v4/projects/team%2Fbackend%2Fapp/statuses/{SHA}",
            {
                "state": "failed",
                "name": "caisson/x",
                "target_url": LINK,
                "description": "The image could not be built",
                "ref": "main",
            },
        ),
        (
            Provider.GITEA,
            BuildState.CANCELLED,
            f"https://git.example.com/api/v1/repos/team/app/statuses/{SHA}",
            {"state": "error", "context": "caisson/x", "target_url": LINK, "description": "The build was cancelled"},
        ),
        (
            Provider.BITBUCKET,
            BuildState.SUCCESS,
            f"https://api.bitbucket.org/2.0/repositories/team/app/commit/{SHA}/statuses/build",
            {
                "key": "caisson/x",
                "name": "caisson/x",
                "state": "SUCCESSFUL",
                "url": LINK,
                "description": "The image was built",
            },
        ),
    ],
)
def test_what_each_provider_is_told(provider: Provider, state: BuildState, url: str, body: dict[str, str]) -> None:
    message = status_message(
        HOOKS[provider], sha=SHA, ref="refs/heads/main", context="caisson/x", state=state, link=LINK
    )
    assert (message.url, message.body) == (url, body)


@pytest.mark.parametrize("provider", Provider)
def test_a_push_that_a_newer_one_came_before_is_told_so_and_links_to_no_run(provider: Provider) -> None:
    body = status_message(HOOKS[provider], sha=SHA, ref="r", context="c", state=BuildState.CANCELLED, link=None).body
    assert body["description"] == "A newer push is built instead"
    assert "target_url" not in body
    assert body.get("url", "https://bitbucket.org/team/app") == "https://bitbucket.org/team/app"


@pytest.mark.parametrize("provider", Provider)
@pytest.mark.parametrize("state", BuildState)
def test_every_state_has_a_word_and_no_message_tells_of_the_host(provider: Provider, state: BuildState) -> None:
    body = status_message(HOOKS[provider], sha=SHA, ref="r", context="c", state=state, link=LINK).body
    assert body["state"]
    assert len(body["description"]) <= 140


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (hook("github", "git@ghe.example.com:team/app.git"), "https://ghe.example.com/api/v3"),
        (hook("gitlab", "https://gitlab.example.com:8443/team/app.git"), "https://gitlab.example.com:8443/api/v4"),
        # Never without TLS, unless the file says so itself.
        (hook("gitea", "http://git.example.com/team/app.git"), "https://git.example.com/api/v1"),
        (hook("gitea", "http://git/team/app.git", "http://git/api/v1/"), "http://git/api/v1"),
        (hook("gitlab", "ssh://git@git.example.com:2222/team/app.git"), "https://git.example.com/api/v4"),
    ],
)
def test_where_the_api_is(given: Hook, expected: str) -> None:
    assert api_of(given) == expected


def test_bitbuckets_keys_are_short_and_differ() -> None:
    bodies = [
        status_message(HOOKS[Provider.BITBUCKET], sha=SHA, ref="", context=f"{'x' * 60}{end}", state=state, link=LINK)
        for end, state in (("a", BuildState.QUEUED), ("b", BuildState.QUEUED))
    ]
    keys = {message.body["key"] for message in bodies}
    assert len(keys) == 2
    assert all(len(key) <= 40 for key in keys)


@pytest.mark.parametrize("provider", Provider)
def test_the_token_is_in_a_header_and_only_there(provider: Provider) -> None:
    headers = authorization(provider, "t0ken-canary")
    assert sum("t0ken-canary" in value for value in headers.values()) == 1


@pytest.mark.parametrize(
    ("provider", "status", "body", "expected"),
    [
        (Provider.GITHUB, 201, b"", Verdict.TOLD),
        (Provider.GITHUB, 0, b"", Verdict.AGAIN),
        (Provider.GITHUB, 429, b"", Verdict.AGAIN),
        (Provider.GITHUB, 502, b"", Verdict.AGAIN),
        (Provider.GITHUB, 403, b'{"message": "API rate limit exceeded for x"}', Verdict.AGAIN),
        (Provider.GITHUB, 403, b'{"message": "Resource not accessible"}', Verdict.REFUSED),
        (Provider.GITHUB, 403, b"[" * 100_000, Verdict.REFUSED),
        (Provider.GITHUB, 401, b"", Verdict.REFUSED),
        (Provider.GITHUB, 302, b"", Verdict.REFUSED),
        (Provider.GITLAB, 400, b'{"message":"Cannot transition status via :run from :running"}', Verdict.TOLD),
        (Provider.GITLAB, 400, b'{"message":"bad"}', Verdict.REFUSED),
        (Provider.GITEA, 400, b"Cannot transition status", Verdict.REFUSED),
    ],
)
def test_what_an_answer_means(provider: Provider, status: int, body: bytes, expected: Verdict) -> None:
    assert verdict(provider, status, body) is expected


@pytest.mark.parametrize(
    ("state_type", "name", "expected"),
    [
        ("SCHEDULED", "Scheduled", BuildState.QUEUED),
        ("PENDING", "Pending", BuildState.QUEUED),
        ("RUNNING", "Running", BuildState.RUNNING),
        ("CANCELLING", "Cancelling", BuildState.RUNNING),
        ("COMPLETED", "Completed", BuildState.SUCCESS),
        ("FAILED", "TimedOut", BuildState.FAILURE),
        ("CRASHED", "Crashed", BuildState.FAILURE),
        ("CANCELLED", "Cancelled", BuildState.CANCELLED),
    ],
)
def test_a_runs_states_in_the_providers_words(state_type: str, name: str, expected: BuildState) -> None:
    assert build_state(state_type, name) is expected
    assert expected.final is (state_type in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED"))


def test_all_attempts_together_are_bounded_by_hours() -> None:
    waits = [pause_after(attempts) for attempts in range(1, MOST_ATTEMPTS)]
    assert waits == sorted(waits)
    assert timedelta(minutes=30) < sum(waits, timedelta()) < timedelta(hours=6)
