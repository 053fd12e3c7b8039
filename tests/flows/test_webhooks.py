"""A git host's delivery builds an image on a real Caisson, and the host is told; what comes again is refused."""

from __future__ import annotations

import json
import os
import signal
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from caisson.webhooks.event import Provider
from tests.conftest import find_engines
from tests.engine.repositories import Repository
from tests.flows.build_host import BASE, BuildHost, build_host
from tests.flows.caisson_host import CaissonHost, free_port, wait_for
from tests.webhook_deliveries import SECRET, payload, signed_headers
from tests.webhook_peers import Peer, peer

BUILD_SECONDS = 180.0
TOKEN = "st4tus-t0ken-canary"
IMAGE = "caisson-flow/hooked"
HOOK = """
link = "https://caisson.example.com/runs/flow-run/{{run}}"
[[hook]]
name = "app"
provider = "gitea"
secret = "app-hook"
repository = "{repository}"
full_name = "gitea/webhooks"
status = {{ token = "app-status", api = "{api}" }}
[[hook.rule]]
on = "push"
branches = ["main"]
paths_ignore = ["docs/**"]
build = {{ image = "{image}", limits = {{ memory = "512m" }} }}
"""


@dataclass
class Hooked:
    """A Caisson with one webhook, for one repository, and the git host that is told."""

    host: BuildHost
    repository: Repository
    peer: Peer
    gateway: str

    def push(self, dockerfile: str, **files: str) -> str:
        """Commit; returns the SHA."""
        return self.repository.commit({"Dockerfile": dockerfile, **files})

    def deliver(self, sha: str, *, delivery: str = "", secret: str = SECRET, path: str = "Dockerfile") -> Any:
        """What Caisson answers to Gitea's delivery of a push of that commit."""
        value = payload("gitea-push")
        value["ref"], value["after"], value["head_commit"]["id"] = "refs/heads/main", sha, sha
        value["commits"][0] |= {"id": sha, "modified": [path]}
        body = json.dumps(value).encode()
        headers = signed_headers(Provider.GITEA, "push", body, secret, delivery=delivery or sha)
        request = urllib.request.Request(f"{self.gateway}/webhooks/app", data=body, headers=headers, method="POST")
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read())

    def told(self, sha: str) -> list[str]:
        """The states that the git host was told of a commit."""
        return [body["state"] for path, _, body in self.peer.got if path.endswith(f"/statuses/{sha}")]

    def wait_until_told(self, sha: str, state: str) -> None:
        words = f"{state} is told of {sha}"
        wait_for(words, lambda: {*self.told(sha)} - {"pending"}, seconds=BUILD_SECONDS)
        assert self.told(sha)[-1] == state, self.host.caisson.logs()

    def tags(self) -> set[str]:
        return {reference.rpartition(":")[2] for reference in self.host.images(IMAGE)}


@pytest.fixture(scope="module")
def hooked(tmp_path_factory: pytest.TempPathFactory, caisson: CaissonHost) -> Iterator[Hooked]:
    directory = tmp_path_factory.mktemp("webhooks")
    port, file = free_port(), directory / "webhooks.toml"
    with peer() as host_of_git:
        # What is known of the secrets when Caisson starts are their names.
        _write(file, "git://git.example.com/team/app.git", host_of_git)
        variables = {
            "CAISSON_GATEWAY_PORT": str(port),
            "CAISSON_WEBHOOKS_FILE": str(file),
            "CAISSON_SECRET_APP_HOOK": SECRET,
            "CAISSON_CONCURRENCY": "1",
        }
        name = f"hooked-{os.getpid()}"
        with build_host(directory, name, find_engines()[0], like=caisson, variables=variables) as host:
            repository = host.repository("webhooks", BASE)
            _write(file, host.url(repository), host_of_git)
            gateway = f"http://127.0.0.1:{port}"
            wait_for("the API answers", lambda: _is_ready(gateway))
            host.caisson.save_secret("app-status", TOKEN)
            yield Hooked(host, repository, host_of_git, gateway)
            host.remove_images(IMAGE)


def _write(file: Path, repository: str, host: Peer) -> None:
    file.write_text(HOOK.format(repository=repository, api=f"{host.url}/api/v1", image=IMAGE))


def _is_ready(gateway: str) -> bool:
    try:
        with urllib.request.urlopen(f"{gateway}/readyz", timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def test_a_push_builds_its_commit_and_the_git_host_is_told(hooked: Hooked) -> None:
    sha = hooked.push(BASE + "LABEL hooked=second\n")
    status, answer = hooked.deliver(sha)
    assert status == 202, answer
    (build,) = answer["builds"]
    assert (build["image"], build["commit"]) == (IMAGE, sha)
    hooked.wait_until_told(sha, "success")
    assert {f"sha-{sha}", "main"} <= hooked.tags()
    assert hooked.told(sha)[0] == "pending"
    path, headers, body = hooked.peer.got[-1]
    assert path == f"/api/v1/repos/gitea/webhooks/statuses/{sha}"
    assert headers["authorization"] == f"token {TOKEN}"
    assert body["target_url"] == f"https://caisson.example.com/runs/flow-run/{build['flow_run_id']}"
    assert body["context"] == f"caisson/{IMAGE}"


def test_what_comes_again_or_is_not_signed_builds_nothing(hooked: Hooked) -> None:
    sha = hooked.push(BASE + "LABEL hooked=third\n")
    assert hooked.deliver(sha, secret="wrong")[0] == 401
    assert hooked.deliver(sha, path="docs/index.md", delivery="docs")[0] == 200
    first, again, forged = hooked.deliver(sha), hooked.deliver(sha), hooked.deliver(sha, delivery="other")
    assert (first[0], again[0], forged[0]) == (202, 200, 409)
    assert "taken before" in again[1]["reasons"][0]
    hooked.wait_until_told(sha, "success")


def test_a_newer_push_supersedes_and_all_is_told_although_the_api_is_killed(hooked: Hooked) -> None:
    # The engine may have the step in its cache from the tests' last run.
    running = hooked.push(BASE + f"RUN echo {os.urandom(8).hex()} && sleep 8\nRUN exit 3\n")
    status, answer = hooked.deliver(running)
    assert status == 202
    hooked.host.wait_for_line(answer["builds"][0]["flow_run_id"], "sleep 8")
    older = hooked.push(BASE + "LABEL hooked=older\n")
    newer = hooked.push(BASE + "LABEL hooked=newer\n")
    assert [hooked.deliver(sha)[0] for sha in (older, newer)] == [202, 202]
    os.kill(hooked.host.caisson.pid_of("deployments.api.main"), signal.SIGKILL)
    hooked.wait_until_told(running, "failure")
    hooked.wait_until_told(older, "error")
    hooked.wait_until_told(newer, "success")
    assert f"sha-{newer}" in hooked.tags()
    assert f"sha-{older}" not in hooked.tags()
    assert all(len(set(words) - {"pending"}) == 1 for words in map(hooked.told, (running, older, newer)))


def test_no_secret_is_in_logs_or_in_what_prefect_keeps(hooked: Hooked) -> None:
    with hooked.host.caisson.api as api:
        runs = json.dumps(api.post("/flow_runs/filter", {"limit": 50}))
    seen = runs + hooked.host.caisson.logs() + hooked.host.caisson.output
    assert IMAGE in seen
    assert SECRET not in seen
    assert TOKEN not in seen
