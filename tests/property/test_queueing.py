"""What the order of the queue promises, whatever waits: the sentences at the head of ``caisson.queueing``."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from caisson.queueing import SHIFT, SHIFT_PER_RUNNING, HostRoom, Priority, Waiting, plan_queue

NOW = datetime(2026, 5, 1, tzinfo=UTC)
REPOSITORIES = "abcd"

repositories = st.sampled_from(REPOSITORIES)
ages = st.integers(0, 100_000).map(lambda seconds: timedelta(seconds=seconds))
priorities = st.sampled_from(Priority)


@st.composite
def lines(draw: st.DrawFn) -> list[Waiting]:
    wanted = draw(st.lists(st.tuples(repositories, ages, priorities), max_size=30))
    return [Waiting(f"{n:02}", repository, NOW - age, priority) for n, (repository, age, priority) in enumerate(wanted)]


rooms = st.builds(
    HostRoom,
    builds=st.integers(0, 6),
    per_repository=st.integers(0, 3),
    running=st.lists(repositories, max_size=6).map(tuple),
    served=st.dictionaries(repositories, ages.map(lambda age: NOW - age)),
    closed=st.sampled_from(["", "", "", "disk critical on host b2"]),
)


@given(lines(), rooms)
def test_never_over_a_limit(waiting: list[Waiting], room: HostRoom) -> None:
    plan = plan_queue(waiting, room, NOW)
    repository_of = {build.id: build.repository for build in waiting}
    if plan.take:
        assert len(room.running) + len(plan.take) <= room.builds
        assert not room.closed
    counts = Counter(room.running) + Counter(repository_of[build] for build in plan.take)
    for repository in {repository_of[build] for build in plan.take}:
        assert not room.per_repository or counts[repository] <= room.per_repository


@given(lines(), rooms, st.randoms())
def test_the_same_question_has_the_same_answer(waiting: list[Waiting], room: HostRoom, chance: random.Random) -> None:
    plan = plan_queue(waiting, room, NOW)
    shuffled = [*waiting]
    chance.shuffle(shuffled)
    assert plan_queue(shuffled, room, NOW) == plan


@given(lines(), rooms)
def test_work_conserving_no_slot_stays_free_while_a_build_may_take_it(waiting: list[Waiting], room: HostRoom) -> None:
    plan = plan_queue(waiting, room, NOW)
    left = [build for build in waiting if build.id not in plan.take]
    if room.closed or not left or len(room.running) + len(plan.take) >= room.builds:
        return
    taken = Counter(build.repository for build in waiting if build.id in plan.take)
    for build in left:
        assert 0 < room.per_repository <= room.running.count(build.repository) + taken[build.repository]


@given(lines(), rooms)
def test_each_build_is_taken_or_waits_in_one_place_with_a_reason(waiting: list[Waiting], room: HostRoom) -> None:
    plan = plan_queue(waiting, room, NOW)
    assert sorted([*plan.take, *(place.id for place in plan.waits)]) == sorted(build.id for build in waiting)
    assert [place.ahead for place in plan.waits] == list(range(len(plan.waits)))
    for place in plan.waits:
        assert place.reason.startswith("waits: ")
        assert ("disk critical on host b2" in place.reason) is bool(room.closed)


@given(lines(), rooms)
def test_places_are_the_order_in_which_builds_are_taken(waiting: list[Waiting], room: HostRoom) -> None:
    """Without a limit of the repositories, one more slot takes the next in line."""
    room = replace(room, per_repository=0, closed="")
    plan = plan_queue(waiting, room, NOW)
    if plan.waits and len(room.running) <= room.builds:
        assert plan_queue(waiting, replace(room, builds=room.builds + 1), NOW).take == (*plan.take, plan.waits[0].id)


@given(lines(), rooms)
def test_of_one_repository_only_an_older_or_a_more_urgent_one_goes_first(
    waiting: list[Waiting], room: HostRoom
) -> None:
    plan = plan_queue(waiting, room, NOW)
    stands = {build.id: build.since + SHIFT[build.priority] for build in waiting}
    repository_of = {build.id: build.repository for build in waiting}
    order = [*plan.take, *(place.id for place in plan.waits)]
    for repository in REPOSITORIES:
        mine = [stands[build] for build in order if repository_of[build] == repository]
        assert mine == sorted(mine)


@given(st.integers(1, 3), st.lists(st.integers(1, 30), min_size=2, max_size=4))
def test_repositories_take_turns_however_many_builds_one_has_asked_for(builds: int, asked: list[int]) -> None:
    """Of builds that all wait and take equally long, none that still waits is ever more than a turn behind another."""
    waiting = [
        Waiting(f"{REPOSITORIES[n]}{k:02}", REPOSITORIES[n], NOW + timedelta(seconds=k + 100 * n))
        for n, many in enumerate(asked)
        for k in range(many)
    ]
    done, now = Counter[str](), NOW + timedelta(hours=1)
    left, served = list(waiting), HostRoom(builds).served
    while left:
        plan = plan_queue(left, HostRoom(builds, served=served), now)
        for build in [build for build in left if build.id in plan.take]:
            done[build.repository] += 1
            left.remove(build)
        served = plan.served
        behind = {build.repository for build in left}
        assert all(done[other] - done[mine] <= builds for mine in behind for other in done)
        now += timedelta(minutes=5)


ARRIVALS = timedelta(minutes=6)


def _stream(chance: random.Random, *, ends: timedelta) -> Iterator[Waiting]:
    """More than the host can build, urgent ones mostly, of repositories of which some are new each hour."""
    for number in range(int(ends / ARRIVALS)):
        new = f"new-{number // 10}"
        repository = chance.choice([*REPOSITORIES[1:], new])
        priority = chance.choice([Priority.HIGH, Priority.HIGH, Priority.NORMAL])
        yield Waiting(f"{number:05}", repository, NOW + number * ARRIVALS, priority)


@settings(max_examples=30)
@given(st.integers(1, 3), st.integers(0, 2), st.randoms(use_true_random=False))
def test_a_low_one_does_not_starve(builds: int, limit: int, chance: random.Random) -> None:
    """It stands behind what comes within five hours, and behind nothing that comes later."""
    low = Waiting("low", "a", NOW, Priority.LOW)
    beyond = NOW + SHIFT[Priority.LOW] - SHIFT[Priority.HIGH] + builds * SHIFT_PER_RUNNING
    arrivals = list(_stream(chance, ends=timedelta(hours=12)))
    waiting, now, passed = [low], NOW, 0
    running: list[tuple[datetime, str]] = []
    served = HostRoom(builds).served
    while True:
        assert passed <= (beyond - NOW) / ARRIVALS + 1
        while arrivals and arrivals[0].since <= now:
            waiting.append(arrivals.pop(0))
        running = [(until, repository) for until, repository in running if until > now]
        room = HostRoom(builds, limit, tuple(repository for _, repository in running), served)
        plan = plan_queue(waiting, room, now)
        if "low" in plan.take:
            return
        for build in [build for build in waiting if build.id in plan.take]:
            assert build.since <= beyond
            passed += 1
            waiting.remove(build)
            running.append((now + ARRIVALS * chance.randint(3, 9), build.repository))
        served = plan.served
        now += ARRIVALS
