"""Which host takes a build that any host may take, what hosts tell each other, and when one is gone."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from caisson.host_watch import HostWatch
from caisson.placing import Candidate, hold_reason, place
from deployments.hosts import MOST_REPOSITORIES, HostRecord, repository_mark, repository_marks, variable_name

APP = repository_mark("https://git.example.com/team/app.git")
ME = Candidate("b1", free_slots=1)
WITH_CACHE = Candidate("b2", free_slots=1, repositories=frozenset({APP}))


def placing(host: Candidate, *others: Candidate, waited: float = 0.0) -> tuple[bool, str, float]:
    made = place(APP, host, others, waited_seconds=waited, patience_seconds=2)
    return made.take, made.reason, made.again_seconds


def test_a_host_that_has_the_cache_takes_a_build_at_once() -> None:
    assert placing(replace(ME, repositories=WITH_CACHE.repositories), WITH_CACHE)[0]


def test_a_host_without_the_cache_leaves_it_for_a_while_to_one_that_has_it() -> None:
    assert placing(ME, WITH_CACHE, waited=0.5) == (False, "host b2 has the cache and room", 1.5)
    assert placing(ME, WITH_CACHE, waited=2)[0]


@pytest.mark.parametrize(
    "change",
    [
        {"free_slots": 0},
        {"is_live": False},
        {"drains": True},
        {"is_critical": True},
        {"engine_answers": False},
        {"repositories": frozenset({repository_mark("https://git.example.com/other")})},
    ],
)
def test_nobody_waits_for_a_host_that_would_not_take_it(change: dict[str, object]) -> None:
    assert placing(ME, replace(WITH_CACHE, **change))[0]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"drains": True}, "host b1 drains"),
        ({"is_critical": True}, "disk critical on host b1"),
        ({"engine_answers": False}, "the Docker engine of host b1 does not answer"),
        ({"is_live": False}, "host b1 is offline"),
        ({"free_slots": 0}, "every slot of host b1 is taken"),
    ],
)
def test_a_host_that_can_not_build_takes_nothing_however_long_it_waited(change: dict[str, object], reason: str) -> None:
    full = replace(ME, repositories=frozenset({APP}), **change)  # type: ignore[arg-type]
    assert placing(full, waited=1000) == (False, reason, 0)


CANDIDATES = st.builds(
    Candidate,
    name=st.sampled_from(["b1", "b2", "b3"]),
    is_live=st.booleans(),
    drains=st.booleans(),
    is_critical=st.booleans(),
    engine_answers=st.booleans(),
    free_slots=st.integers(0, 2),
    repositories=st.sampled_from([frozenset[str](), frozenset({APP})]),
)


@given(st.lists(CANDIDATES, min_size=1, max_size=3, unique_by=lambda host: host.name))
def test_a_build_is_taken_after_the_wait_by_every_host_with_room_and_before_it_by_at_least_one(
    hosts: list[Candidate],
) -> None:
    def takers(waited: float) -> set[str]:
        return {host.name for host in hosts if placing(host, *(o for o in hosts if o != host), waited=waited)[0]}

    with_room = {host.name for host in hosts if host.has_room}
    assert takers(2) == with_room
    assert takers(0) <= with_room
    assert bool(takers(0)) == bool(with_room)
    if cached := {host.name for host in hosts if host.has_room and APP in host.repositories}:
        assert takers(0) == cached


def test_a_host_is_gone_after_three_heartbeats_that_did_not_come() -> None:
    watch = HostWatch(timeout_seconds=90, most_gap_seconds=30)
    assert watch.look(0, {"b1": "a", "b2": "a"}) == frozenset()
    looks = [watch.look(at, {"b1": str(at), "b2": "b" if at >= 10 else "a"}) for at in range(5, 101, 5)]
    assert looks[:-1] == [frozenset()] * 19
    assert looks[-1] == {"b2"}
    assert watch.look(105, {"b1": "z", "b2": "c"}) == frozenset()


def test_silence_that_nobody_could_have_broken_counts_for_nothing() -> None:
    watch = HostWatch(timeout_seconds=90, most_gap_seconds=30)
    for at in range(0, 90, 10):
        assert not watch.look(at, {"b2": "a"})
    # The server was away for a minute: its first answer shows the old heartbeat.
    for at in range(150, 240, 10):
        assert not watch.look(at, {"b2": "a"})
    assert watch.look(240, {"b2": "a"}) == {"b2"}


def test_a_host_that_left_is_not_gone() -> None:
    watch = HostWatch(timeout_seconds=20, most_gap_seconds=30)
    watch.look(0, {"b2": "a"})
    assert watch.look(25, {}) == frozenset()
    assert watch.look(30, {"b2": "a"}) == frozenset()


def test_what_a_host_tells_is_read_as_it_was_told() -> None:
    urls = [f"https://git.example.com/team/app-{number}.git" for number in range(1000)]
    record = HostRecord(
        "b1",
        "1.2",
        3,
        2,
        "critical",
        1 << 40,
        engine_answers=False,
        prune_seconds=21_600,
        repositories=repository_marks(urls),
    )
    assert HostRecord.parse(record.value) == record
    assert len(record.repositories) == MOST_REPOSITORIES
    assert repository_mark(urls[0]) in record.repositories
    # Prefect's limit for a variable, less what a long name takes.
    assert len(str(record.value)) < 5000 - 100
    candidate = record.candidate(online=True, drains=False)
    assert candidate.free_slots == 1
    assert hold_reason(candidate) == "the Docker engine of host b1 does not answer"
    assert hold_reason(replace(candidate, engine_answers=True)) == "disk critical on host b1"
    assert (
        hold_reason(replace(record, running=0, stopped=True).candidate(online=True, drains=False))
        == "host b1 is offline"
    )


@pytest.mark.parametrize("value", [None, "x", [], {}, {"host": "b1", "slots": "many"}, {"host": "b1", "slots": None}])
def test_what_is_no_record_is_none(value: object) -> None:
    assert HostRecord.parse(value) is None


def test_hosts_have_variables_of_their_own() -> None:
    names = ["b.1", "b-1", "B-1", "b_1"]
    assert len({variable_name(name) for name in names}) == len(names)
