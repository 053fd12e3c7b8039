"""The outbox's worker and Prefect's outages: in which order pushes come into the queue, and which never do.

Rounds are run by hand, on a clock of the test's own; Prefect is a small stand-in.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from caisson.errors import ServiceUnreachable
from caisson.queueing import Priority, Supersede
from caisson.settings import Settings
from caisson.webhooks.decision import WantedBuild
from caisson.webhooks.signature import Delivery
from caisson.webhooks.status import BuildState
from deployments.api.hook_secrets import HookSecrets
from deployments.api.statuses import GIVE_UP_AFTER, WebhookWorker
from deployments.prefect_api import PrefectApi
from deployments.prefect_pool import PrefectPool
from deployments.service_store import ServiceStore
from deployments.webhook_rules import RulesFile
from deployments.webhook_store import WebhookStore
from tests.webhook_peers import Peer, peer

RULES = """
[[hook]]
name = "app"
provider = "github"
secret = "app-hook"
repository = "https://github.com/team/app.git"
[[hook.rule]]
on = "push"
build = { image = "team/app" }
"""


@dataclass
class Outbox:
    prefect: Peer
    store: WebhookStore
    worker: WebhookWorker
    now: datetime = datetime(2026, 5, 1, 12, tzinfo=UTC)
    keys: dict[str, str] = field(default_factory=dict)

    def push(self, commit: str, *, ref: str = "refs/heads/main", image: str = "team/app") -> None:
        self.now += timedelta(milliseconds=10)
        url = "https://github.com/team/app.git"
        request = {"repository_url": url, "ref": ref, "commit": commit * 40, "image": image}
        build = WantedBuild(request, 1, "push", commit * 40, ref, "caisson", "", Priority.NORMAL, True)
        (self.keys[commit],) = self.store.accept("app", Delivery("push", commit, ""), [build], self.now)[1]

    def round(self, *, after: float = 0) -> None:
        self.now += timedelta(seconds=after)
        try:
            self.worker.round()
        except ServiceUnreachable:
            assert not self.prefect.is_up

    def queued(self) -> str:
        """The commits that came into the queue, in their order."""
        made = [body for path, _, body in self.prefect.got if path.endswith("/create_flow_run")]
        return "".join(dict.fromkeys(body["parameters"]["request"]["commit"][0] for body in made))

    def state(self, commit: str) -> BuildState:
        (build,) = self.store.builds([self.keys[commit]])
        return build.state


def outbox(tmp_path: Path, prefect: Peer, supersede: Supersede) -> Outbox:
    file = tmp_path / "webhooks.toml"
    file.write_text(RULES)
    settings = Settings(
        _env_file=None, state_dir=tmp_path, host_name="b1", webhooks_file=str(file), supersede=supersede
    )
    store = WebhookStore(ServiceStore(tmp_path / "service.sqlite"))
    pool = PrefectPool(lambda: PrefectApi(f"{prefect.url}/api"))
    made = Outbox(prefect, store, WebhookWorker(settings, store, pool, RulesFile(settings), HookSecrets(pool)))
    made.worker._clock = lambda: made.now
    made.worker._begin_at = made.worker._forget_at = made.now
    return made


@pytest.fixture
def prefect() -> Iterator[Peer]:
    with peer() as served:
        yield served


def test_a_push_of_an_outage_does_not_come_into_the_queue_behind_a_newer_one(tmp_path: Path, prefect: Peer) -> None:
    box = outbox(tmp_path, prefect, "queued")
    prefect.is_up = False
    box.push("a")
    box.push("x", ref="refs/heads/next")
    box.push("y", image="team/other")
    box.round()
    prefect.is_up = True
    box.push("b")
    for _ in range(10):
        box.round(after=60)
    assert box.queued() == "xyb"
    assert (box.state("a"), box.state("b")) == (BuildState.CANCELLED, BuildState.QUEUED)


def test_pushes_of_an_outage_keep_their_order_where_all_are_built(tmp_path: Path, prefect: Peer) -> None:
    box = outbox(tmp_path, prefect, "off")
    prefect.is_up = False
    box.push("a")
    for _ in range(6):
        box.round(after=60)
    prefect.is_up = True
    box.push("b")
    for _ in range(10):
        box.round(after=60)
    assert box.queued() == "ab"
    labels = [body["labels"] for path, _, body in prefect.got if path.endswith("/create_flow_run")]
    asked = [datetime.fromisoformat(each["caisson.asked_at"]) for each in labels]
    assert asked[1] - asked[0] > timedelta(minutes=5)


def test_the_end_of_an_outage_is_noticed_within_half_a_minute(tmp_path: Path, prefect: Peer) -> None:
    box = outbox(tmp_path, prefect, "queued")
    prefect.is_up = False
    box.push("a")
    for _ in range(60):
        box.round(after=60)
    prefect.is_up = True
    box.round(after=31)
    assert box.queued() == "a"


def test_a_build_that_nobody_waits_for_any_more_is_given_up(tmp_path: Path, prefect: Peer) -> None:
    box = outbox(tmp_path, prefect, "queued")
    prefect.is_up = False
    box.push("a")
    box.round(after=(GIVE_UP_AFTER - timedelta(minutes=1)).total_seconds())
    assert box.state("a") is BuildState.QUEUED
    box.round(after=120)
    assert box.state("a") is BuildState.FAILURE
