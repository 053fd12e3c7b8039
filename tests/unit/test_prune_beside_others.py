"""A prune while others look at the same engine, use its images, change the policy or restart it; on the fake engine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from caisson.disk_limits import parse_limits
from caisson.engine import ImageID
from caisson.errors import EngineUnreachable
from caisson.event_replay import replay_events
from caisson.leases import Leases
from caisson.ledger import Ledger
from caisson.ledger.observation import Observations
from caisson.observe import observe
from caisson.prune import apply_plan, make_plan
from caisson.prune_markdown import render_plan
from caisson.prune_report import PruneReport
from caisson.prune_view import HostView, PruneHost
from caisson.retention.plan import plan_prune
from caisson.retention.policy import Retention, RetentionPolicy, Scope
from caisson.retention.prune_plan import FreeTarget, PrunePlan, RemoveImage
from tests.fake_engine import FakeEngine
from tests.fake_host import MIB, FakeCache, FakeHost

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
POLICY = RetentionPolicy.model_validate(
    {"scope": "host", "allow_unrecoverable": True, "otherwise": {"keep_last": 0, "max_age": "30d", "min_age": "1d"}}
)


class World:
    """A host with an image of two tags, and so many more, that nobody has used for 40 days; and its plan."""

    def __init__(self, state: Path, policy: RetentionPolicy = POLICY, *, more: int = 0) -> None:
        self.host = FakeHost("overlay2", NOW - timedelta(days=40))
        self.host.cache = [FakeCache(50 * MIB) for _ in range(4)]
        self.old = self.host.new_image([("old", 10 * MIB)], tags=["old:1.0", "old:stable"])
        for number in range(more):
            self.host.new_image([(f"more{number}", MIB)], tags=[f"more{number}:1"])
        self.engine = FakeEngine(self.host)
        self.ledger = Ledger(state / "ledger.sqlite")
        self.pruned = PruneHost(
            engines=(self.engine,),
            ledger=self.ledger,
            leases=Leases(state / "leases", self.ledger.leases),
            read_usage=self.host.read_usage,
            clock=lambda: self.host.now,
            sleep=self.host.pass_time,
        )
        self.look(policy)
        self.host.now = NOW

    def look(self, policy: RetentionPolicy = POLICY) -> HostView:
        view = HostView(self.pruned, policy)
        view.read_disk()
        view.look(self.pruned.leases.held())
        return view

    def plan(self, policy: RetentionPolicy = POLICY) -> PrunePlan:
        view = self.look(policy)
        return plan_prune(view.snapshot, policy, view.snapshot.taken, pressure=None)

    def apply(self, plan: PrunePlan, policy: RetentionPolicy = POLICY) -> PruneReport:
        return apply_plan(HostView(self.pruned, policy), plan, trigger="a test")

    def once(self, call: str, act: Callable[[], None]) -> None:
        """``act`` just after the engine has answered that call for the next time."""

        def after(name: str, _: str) -> None:
            if name == call:
                self.engine.after = lambda _name, _argument: None
                act()

        self.engine.after = after

    def monitor(self) -> None:
        replay_events(FakeEngine(self.host), self.ledger, now=self.host.now)


def outcomes(report: PruneReport) -> list[tuple[str, str]]:
    return [(result.outcome, result.rule) for result in report.results]


def test_an_image_that_nobody_has_used_goes(tmp_path: Path) -> None:
    world = World(tmp_path)
    assert [outcome for outcome, _ in outcomes(world.apply(world.plan()))] == ["removed"]
    assert world.host.tags == {}


@pytest.mark.parametrize("moment", ["events", "record"])
def test_a_use_that_another_process_replays_while_we_look_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    world = World(tmp_path, more=1)
    plan = world.plan()
    last = plan.items[-1]
    assert isinstance(last, RemoveImage)

    def used_and_replayed() -> None:
        # What is used while the picture is taken can be seen just before the next removal.
        container = world.host.create(last.image.id)
        world.host.start(container)
        world.host.remove_container(container)
        world.monitor()

    if moment == "events":
        world.once("events", used_and_replayed)
    else:
        record = Observations.record

        def recorded(self: Observations, *arguments: Any, **options: Any) -> None:
            monkeypatch.undo()
            record(self, *arguments, **options)
            used_and_replayed()

        monkeypatch.setattr(Observations, "record", recorded)
    assert outcomes(world.apply(plan))[-1] == ("kept", "min-age")


@pytest.mark.parametrize("look", ["observe", "replay"])
def test_an_event_that_another_process_replays_while_we_look_is_no_gap(tmp_path: Path, look: str) -> None:
    world = World(tmp_path)

    def noticed_and_replayed() -> None:
        world.host.noise(1)
        world.monitor()

    world.once("events", noticed_and_replayed)
    if look == "observe":
        held = world.pruned.leases.held()
        observe(world.engine, world.ledger, held, world.host.read_usage(), now=world.host.now)
    else:
        replay_events(world.engine, world.ledger, now=world.host.now)
    assert world.ledger.images.known()[world.old].last_used < NOW - timedelta(days=39)


@pytest.mark.parametrize("action", ["save", "push"])
def test_an_image_that_was_saved_or_pushed_since_was_used(tmp_path: Path, action: str) -> None:
    world = World(tmp_path)
    plan = world.plan()
    held = world.pruned.leases.held()
    view = HostView(world.pruned, POLICY)
    view.look(held)
    world.host._emit("image", action, world.old, name="old:1.0")
    view.refresh(held)
    assert view.verdict(plan.items[0]).rule == "min-age"


def cache_policy(**rule: str) -> RetentionPolicy:
    keep = Retention(keep_last=1, max_age=None)
    return RetentionPolicy.model_validate({"scope": Scope.HOST, "otherwise": keep, "build_cache": rule})


def test_the_build_cache_is_asked_for_by_the_policy_in_force_now(tmp_path: Path) -> None:
    planned = cache_policy(reserved_space="0", max_used_space="50m")
    world = World(tmp_path, planned)
    plan = world.plan(planned)
    assert [item.kind for item in plan.items] == ["build-cache"]
    now = cache_policy(reserved_space="150m", max_used_space="150m")
    assert outcomes(world.apply(plan, now)) == [("kept", "changed")]
    assert len(world.host.cache) == 4
    assert [outcome for outcome, _ in outcomes(world.apply(plan, planned))] == ["removed"]
    assert len(world.host.cache) == 1


def no_account(name: str, _: str) -> None:
    if name == "disk_usage":
        raise EngineUnreachable("It did not answer in time.")


def test_under_pressure_images_go_without_the_engines_account_of_its_disk(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.engine.before = no_account
    limits = parse_limits(
        low="2 free",
        high="1 free",
        critical="0 free",
        inodes_low="2 free",
        inodes_high="1 free",
        inodes_critical="0 free",
    )
    calm = make_plan(HostView(world.pruned, POLICY), limits)
    assert (calm.items, len(calm.problems)) == ((), 1)
    view = HostView(world.pruned, POLICY)
    plan = make_plan(view, limits, force_pressure=True)
    assert [item.kind for item in plan.items] == ["image"]
    assert (plan.problems, plan.unread) == ((), calm.problems)
    assert "Left out, since it could not be read: the engine's account" in render_plan(plan).replace("\\", "")
    assert outcomes(apply_plan(view, plan, trigger="a test")) == [("removed", "expired")]


def test_what_could_not_be_read_stays_under_pressure_too(tmp_path: Path) -> None:
    policy = cache_policy(reserved_space="0", max_used_space="50m")
    world = World(tmp_path, policy)
    plan = world.plan(policy)
    world.engine.before = no_account
    pressed = replace(plan, target=FreeTarget(1 << 50))
    assert outcomes(world.apply(pressed, policy)) == [("kept", "incomplete")]
    assert len(world.host.cache) == 4


def goes_away(world: World, calls: int, **details: object) -> None:
    """The engine does not answer from the removal of the image by its ID on, for so many calls."""
    left = calls

    def before(name: str, argument: str) -> None:
        nonlocal left
        if left and ((name, argument) == ("remove_image", world.old) or left < calls):
            left -= 1
            raise EngineUnreachable("The engine does not answer.", details=details)

    world.engine.before = before


def test_what_is_used_in_the_last_moment_keeps_the_digest_by_which_a_registry_has_it(tmp_path: Path) -> None:
    """No call gives a digest back, and it goes with the last tag of its repository."""
    world = World(tmp_path)
    host, old = world.host, world.old
    digest = f"reg:5000/app@{old}"
    host.images[old].digests.add(digest)
    host.tags["reg:5000/app:1"] = host.tags["zz:1"] = old
    world.look()
    host.pass_time(40 * 86400)
    plan = world.plan()
    world.once("remove_image", lambda: host.create(old))
    assert outcomes(world.apply(plan)) == [("kept", "engine-refused")]
    assert host.images[old].digests == {digest}
    assert set(host.tags_of(old)) == {"old:1.0", "old:stable", "reg:5000/app:1", "zz:1"}


def test_an_engine_that_restarts_in_a_removal_gets_the_names_back_when_it_answers(tmp_path: Path) -> None:
    world = World(tmp_path)
    plan = world.plan()
    goes_away(world, calls=4)
    (result,) = world.apply(plan).results
    assert (result.outcome, result.rule) == ("failed", "engine-silent")
    assert world.host.tags == {"old:1.0": world.old, "old:stable": world.old}


def test_names_that_could_not_be_given_back_are_told(tmp_path: Path) -> None:
    world = World(tmp_path)
    plan = world.plan()
    goes_away(world, calls=1000)
    (result,) = world.apply(plan).results
    assert result.outcome == "failed"
    assert result.reason.endswith("The image has lost its tag old:1.0.")


def test_an_engine_that_only_takes_long_may_still_remove_the_image(tmp_path: Path) -> None:
    world = World(tmp_path)
    plan = world.plan()
    goes_away(world, calls=1, timed_out=True)
    (result,) = world.apply(plan).results
    assert result.reason.endswith("The image has lost its tag old:1.0.")
    assert world.host.tags == {"old:stable": ImageID(world.old)}
