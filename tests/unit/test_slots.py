"""Builds share their slots, and each flow that looks after the host has one of its own."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from deployments.names import care_queue
from deployments.slots import Slots

CARE_QUEUE = care_queue("b1")
MONITOR, PRUNE, AUDIT, OTHER = uuid4(), uuid4(), uuid4(), uuid4()


@dataclass(frozen=True)
class Run:
    work_queue_name: str | None
    flow_id: UUID = MONITOR
    id: UUID = field(default_factory=uuid4)
    parameters: dict[str, Any] = field(default_factory=dict)
    tags: list[str] = field(default_factory=list)
    expected_start_time: datetime | None = field(default_factory=lambda: datetime.now(UTC))


@dataclass(frozen=True)
class Offer:
    flow_run: Run


def offers(*queues: str) -> list[Offer]:
    return [Offer(Run(queue)) for queue in queues]


def ids(chosen: list[Offer]) -> list[UUID]:
    return [offer.flow_run.id for offer in chosen]


def test_a_look_at_the_disk_does_not_wait_for_builds() -> None:
    slots = Slots(2, care_queue=CARE_QUEUE)
    builds = offers("default", "default", "default")
    running = ids(slots.choose(builds, []))
    assert running == ids(builds[:2])
    look, another = offers(CARE_QUEUE, CARE_QUEUE)
    assert slots.choose([*builds, look, another], running) == [look]
    running.append(look.flow_run.id)
    assert slots.choose([*builds, another], running) == []
    assert slots.most == 5


def test_builds_do_not_wait_for_a_look_at_the_disk() -> None:
    slots = Slots(1, care_queue=CARE_QUEUE)
    look, build, late = offers(CARE_QUEUE, "default", "default")
    assert slots.choose([look, build, late], []) == [look, build]


def test_a_slot_is_free_when_its_run_has_ended() -> None:
    slots = Slots(1, care_queue=CARE_QUEUE)
    first, second = offers(CARE_QUEUE, CARE_QUEUE)
    assert slots.choose([first, second], []) == [first]
    assert slots.choose([second], [first.flow_run.id]) == []
    assert slots.choose([second], []) == [second]


def test_a_run_that_is_going_on_is_not_taken_again() -> None:
    slots = Slots(3, care_queue=CARE_QUEUE)
    (build,) = offers("default")
    assert slots.choose([build], [build.flow_run.id]) == []


def test_a_look_at_the_disk_does_not_wait_for_a_prune_and_a_prune_not_for_a_look() -> None:
    slots = Slots(1, care_queue=CARE_QUEUE)
    flows = (PRUNE, MONITOR, AUDIT, PRUNE, OTHER)
    prune, look, audit, again, other = (Offer(Run(CARE_QUEUE, flow)) for flow in flows)
    running = ids(slots.choose([prune], []))
    assert slots.choose([again, look], running) == [look]
    assert slots.choose([audit], [*running, look.flow_run.id]) == [audit]
    running += [look.flow_run.id, audit.flow_run.id]
    # All three slots are taken, and no build's may be used.
    assert slots.choose([again, other], running) == []
    (build,) = offers("default")
    assert slots.choose([again, build], running) == [build]
    assert slots.choose([again, other], [look.flow_run.id, audit.flow_run.id]) == [again]


def builds(repository: str, *minutes: int, tags: tuple[str, ...] = ()) -> list[Offer]:
    request = {"request": {"repository_url": f"https://git.example.com/{repository}.git"}}
    came = datetime(2026, 5, 1, tzinfo=UTC)
    return [
        Offer(Run("b1", parameters=request, tags=[*tags], expected_start_time=came + timedelta(minutes=minute)))
        for minute in minutes
    ]


def test_ten_builds_of_two_repositories_take_turns_on_one_slot() -> None:
    slots = Slots(1, care_queue=CARE_QUEUE)
    many, few = builds("many", *range(7)), builds("few", 10, 11, 12)
    left, order = [*many, *few], []
    while left:
        (chosen,) = slots.choose(left, [])
        left.remove(chosen)
        order.append("many" if chosen in many else "few")
    assert order == ["many", "few", "many", "few", "many", "few", "many", "many", "many", "many"]


def test_a_repository_at_its_limit_lets_others_pass_and_is_told_why_it_waits() -> None:
    slots = Slots(3, care_queue=CARE_QUEUE, per_repository=1)
    first, second = builds("one", 0, 1)
    (other,) = builds("two", 2)
    assert slots.choose([first, second, other], []) == [first, other]
    assert [(place.id, place.reason) for place in slots.waits] == [(str(second.flow_run.id), "waits: repository limit")]
    running = ids([first, other])
    assert slots.choose([second], running) == []
    assert slots.choose([second], running[1:]) == [second]


def test_an_urgent_build_goes_first() -> None:
    slots = Slots(1, care_queue=CARE_QUEUE)
    (early,), (urgent,) = builds("one", 0), builds("two", 60, tags=("caisson:priority=high",))
    assert slots.choose([early, urgent], []) == [urgent]
    assert [place.id for place in slots.waits] == [str(early.flow_run.id)]
