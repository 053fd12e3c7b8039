"""Documented deliveries of each provider, signed as it signs, over HTTP into the queue: pushes, tags, pull requests."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from fastapi.testclient import TestClient

from caisson.settings import Settings
from caisson.webhooks.event import Provider
from deployments.api.app import create_app
from tests.webhook_deliveries import DATA, SECRET, SIGNING_TOKEN, signed_headers
from tests.webhook_peers import Peer, peer

HOOK = """
[[hook]]
name = "{name}"
provider = "{provider}"
secret = "{name}"
repository = "https://git.example.com/{full_name}.git"
[[hook.rule]]
on = "push"
build = {{ image = "team/push" }}
[[hook.rule]]
on = "tag"
build = {{ image = "team/tag" }}
[[hook.rule]]
on = "pull_request"
build = {{ image = "team/review" }}
"""
REPOSITORIES = {
    Provider.GITHUB: "team/app",
    Provider.GITLAB: "team/backend/app",
    Provider.GITEA: "gitea/webhooks",
    Provider.BITBUCKET: "team/app",
}
HOOKS = {provider.value: (provider, SECRET) for provider in Provider} | {"signing": (Provider.GITLAB, SIGNING_TOKEN)}
"""By name: whose it is, and its secret; GitLab's has two forms."""
HEAD, OTHER = "6113728f27ae82c7b1a177c8d03f9e96e0adf246", "bffeb74224043ba2feb48d137756c8a9331c449a"


class Case(NamedTuple):
    """A documented delivery, and the builds that it asks for: image, ref, commit."""

    hook: str
    event: str
    payload: str
    builds: tuple[tuple[str, str, str], ...]


def push(ref: str, commit: str) -> tuple[str, str, str]:
    return "team/push", f"refs/heads/{ref}", commit


def tag(ref: str, commit: str) -> tuple[str, str, str]:
    return "team/tag", f"refs/tags/{ref}", commit


def review(ref: str, commit: str) -> tuple[str, str, str]:
    return "team/review", f"refs/{ref}", commit


CASES = [
    Case("github", "push", "github-push", (push("main", HEAD),)),
    Case("github", "push", "github-push-tag", (tag("v1.2.0", HEAD),)),
    Case("github", "pull_request", "github-pull-request", (review("pull/7/head", OTHER),)),
    Case("gitlab", "Push Hook", "gitlab-push", (push("main", HEAD),)),
    Case("gitlab", "Tag Push Hook", "gitlab-tag", (tag("v1.0.0", HEAD),)),
    Case("gitlab", "Merge Request Hook", "gitlab-merge-request", (review("merge-requests/1/head", OTHER),)),
    Case("signing", "Push Hook", "gitlab-push", (push("main", HEAD),)),
    Case("signing", "Tag Push Hook", "gitlab-tag", (tag("v1.0.0", HEAD),)),
    Case("signing", "Merge Request Hook", "gitlab-merge-request", (review("merge-requests/1/head", OTHER),)),
    Case("gitea", "push", "gitea-push", (push("develop", OTHER),)),
    Case("gitea", "push", "gitea-tag", (tag("v2.0.0", OTHER),)),
    Case("gitea", "pull_request", "gitea-pull-request", (review("pull/3/head", OTHER),)),
    Case("bitbucket", "repo:push", "bitbucket-push", (push("main", HEAD),)),
    # A tag, and a branch whose newest commit asks for no build.
    Case("bitbucket", "repo:push", "bitbucket-push-many", (tag("v1.0.0", HEAD),)),
    # Its payload has no whole SHA, and its repositories no refs of pull requests.
    Case("bitbucket", "pullrequest:created", "bitbucket-pull-request", (review("heads/changes", ""),)),
]
EACH_CASE = pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.hook}-{case.payload}")


@pytest.fixture
def prefect() -> Iterator[Peer]:
    with peer() as served:
        yield served


@pytest.fixture
def client(tmp_path: Path, prefect: Peer, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    file = tmp_path / "webhooks.toml"
    texts = []
    for name, (provider, secret) in HOOKS.items():
        texts.append(HOOK.format(name=name, provider=provider, full_name=REPOSITORIES[provider]))
        monkeypatch.setenv(f"CAISSON_SECRET_{name.upper()}", secret)
    file.write_text("".join(texts))
    monkeypatch.setattr("deployments.api.statuses.LOOK_SECONDS", 0.02)
    settings = Settings(
        _env_file=None, state_dir=tmp_path, host_name="b1", webhooks_file=str(file), api_url=f"{prefect.url}/api"
    )
    with TestClient(create_app(settings), base_url="http://127.0.0.1") as client:
        yield client


def deliver(client: TestClient, case: Case, *, body: bytes = b"", secret: str = "", delivery: str = "1") -> Any:
    """What is answered to a delivery; ``body`` is what arrives in the place of what was signed."""
    provider, own = HOOKS[case.hook]
    sent = (DATA / f"{case.payload}.json").read_bytes()
    headers = signed_headers(provider, case.event, sent, secret or own, delivery=delivery, now=datetime.now(UTC))
    return client.post(f"/webhooks/{case.hook}", content=body or sent, headers=headers)


@EACH_CASE
def test_a_documented_delivery_is_in_the_queue_once(client: TestClient, prefect: Peer, case: Case) -> None:
    answer = deliver(client, case)
    assert answer.status_code == 202, answer.text
    assert tuple((each["image"], each["ref"], each["commit"]) for each in answer.json()["builds"]) == case.builds
    again = deliver(client, case)
    assert (again.status_code, again.json()["builds"]) == (200, [])
    asked = [body["parameters"]["request"] for path, _, body in prefect.got if path.endswith("/create_flow_run")]
    url = f"https://git.example.com/{REPOSITORIES[HOOKS[case.hook][0]]}.git"
    assert [(each["repository_url"], each["image"], each["ref"]) for each in asked] == [
        (url, image, ref) for image, ref, _ in case.builds
    ]


@EACH_CASE
def test_one_that_was_changed_on_its_way_or_is_signed_by_another_builds_nothing(
    client: TestClient, prefect: Peer, case: Case
) -> None:
    assert deliver(client, case, secret=SIGNING_TOKEN.replace("AAEC", "AAEZ")).status_code == 401
    if case.hook != "gitlab":
        # A space more is the same JSON, and another body.
        changed = (DATA / f"{case.payload}.json").read_bytes() + b" "
        assert deliver(client, case, body=changed).status_code == 401
    assert prefect.keys == {}


@pytest.mark.parametrize("hook", HOOKS)
def test_what_was_overheard_is_refused_under_another_id(client: TestClient, prefect: Peer, hook: str) -> None:
    case = next(case for case in CASES if case.hook == hook)
    provider, secret = HOOKS[hook]
    body = (DATA / f"{case.payload}.json").read_bytes()
    headers = signed_headers(provider, case.event, body, secret, delivery="1", now=datetime.now(UTC))
    assert client.post(f"/webhooks/{hook}", content=body, headers=headers).status_code == 202
    another = {name: "2" if value == "1" else value for name, value in headers.items()}
    status = client.post(f"/webhooks/{hook}", content=body, headers=another).status_code
    # GitLab's token signs nothing; its signing token also the ID.
    assert status == {"gitlab": 202, "signing": 401}.get(hook, 409)
