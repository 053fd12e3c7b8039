"""Builds share their slots, and each flow that looks after the host has one of its own."""

from __future__ import annotations

from dataclasses import dataclass, field
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
