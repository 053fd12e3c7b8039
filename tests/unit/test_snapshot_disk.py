"""What a snapshot gets of the engine's account of its disk, and what becomes of a plan without it."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import cast

import pytest

from caisson.disk import DiskUsage
from caisson.engine import ContainerID, DiskPart, Engine, ImageID
from caisson.engine_disk import CacheDisk, ContainerDisk, EngineDisk, VolumeDisk, parse_engine_disk
from caisson.engine_disk_read import read_disk
from caisson.errors import EngineRefused, EngineUnreachable
from caisson.ledger import KnownVolume
from caisson.retention.plan import plan_prune
from caisson.retention.policy import CachePolicy, RetentionPolicy, Scope
from caisson.retention.prune_plan import PruneBuildCache, RemoveContainer, RemoveVolume
from caisson.snapshot import CacheEntry, ContainerState, Snapshot, VolumeState
from caisson.snapshot_disk import DiskUnread, wanted_of_disk, with_disk

NOW = datetime(2030, 1, 1, tzinfo=UTC)
LONG_AGO = NOW - timedelta(days=60)
OLD, HELD, UNKNOWN = ("0a" * 32, "0b" * 32, "0c" * 32)
WEB = ContainerID("web")
SNAPSHOT = Snapshot(
    NOW,
    DiskUsage("/", 100 << 30, 50 << 30, 100, 50),
    containers=(ContainerState(WEB, ImageID("sha256:a"), "web", "exited", finished=LONG_AGO),),
)
DISK = EngineDisk(
    layers_size=0,
    images=(),
    containers=(ContainerDisk(WEB, "web", "exited", 700), ContainerDisk(ContainerID("new"), "new", "running", 5)),
    volumes=(
        VolumeDisk(OLD, None, 0),
        VolumeDisk(HELD, 80, 0),
        VolumeDisk(UNKNOWN, 90, 2),
        VolumeDisk("database", 1000, 0),
    ),
    cache=(
        CacheDisk("regular", 30 << 30, in_use=False, shared=False, id="c1", last_used=LONG_AGO),
        CacheDisk("source.local", 5, in_use=True, shared=True, id="c2"),
    ),
)
KNOWN = {
    OLD: KnownVolume(OLD, LONG_AGO, LONG_AGO, NOW),
    HELD: KnownVolume(HELD, LONG_AGO, LONG_AGO, NOW, held=True),
}
NO_CACHE = CachePolicy(max_used_space=None, reserved_space=0)
HOST_WIDE = RetentionPolicy(
    scope=Scope.HOST, exited_containers_age=timedelta(days=1), anonymous_volumes_age=timedelta(days=1)
)


def test_a_snapshot_gets_cache_anonymous_volumes_and_what_containers_wrote() -> None:
    found = with_disk(SNAPSHOT, DISK, KNOWN)
    assert found.build_cache == (
        CacheEntry("c1", "regular", 30 << 30, in_use=False, shared=False, last_used=LONG_AGO),
        CacheEntry("c2", "source.local", 5, in_use=True, shared=True),
    )
    # A container has come to the second one since the account was read.
    assert found.anonymous_volumes == (
        VolumeState(OLD, 0, 0, LONG_AGO),
        VolumeState(HELD, 80, 1, LONG_AGO),
        VolumeState(UNKNOWN, 90, 2, None),
    )
    assert [container.writable_bytes for container in found.containers] == [700]
    assert found.problems == ()
    rest = replace(found, build_cache=(), anonymous_volumes=(), containers=SNAPSHOT.containers)
    assert rest == SNAPSHOT


def test_a_container_that_came_after_the_account_was_read_wrote_nothing_that_is_known() -> None:
    later = replace(SNAPSHOT, containers=(replace(SNAPSHOT.containers[0], id=ContainerID("later")),))
    assert [container.writable_bytes for container in with_disk(later, DISK, KNOWN).containers] == [0]


def test_a_plan_of_it_has_the_cache_the_container_and_the_volume_that_nobody_has() -> None:
    items = plan_prune(with_disk(SNAPSHOT, DISK, KNOWN), HOST_WIDE, NOW, pressure=None).items
    volumes = [item for item in items if isinstance(item, RemoveVolume)]
    assert [(item.name, item.marginal_bytes) for item in volumes] == [(OLD, 0)]
    containers = [item for item in items if isinstance(item, RemoveContainer)]
    assert [(item.id, item.marginal_bytes) for item in containers] == [(WEB, 700)]
    (cache,) = [item for item in items if isinstance(item, PruneBuildCache)]
    assert (cache.keep_bytes, cache.seen_bytes) == (20 << 30, 30 << 30)


def test_without_the_account_nothing_of_it_is_planned() -> None:
    assert with_disk(SNAPSHOT, None, KNOWN) == SNAPSHOT


def test_an_account_that_is_wanted_and_not_there_lets_nothing_be_planned() -> None:
    problems = replace(SNAPSHOT, problems=("one thing",))
    unread = with_disk(problems, DiskUnread("it did not answer"), KNOWN)
    assert unread.problems == ("one thing", "it did not answer")
    assert plan_prune(with_disk(SNAPSHOT, DISK, KNOWN), HOST_WIDE, NOW, pressure=None).items
    assert (
        plan_prune(with_disk(SNAPSHOT, DiskUnread("it did not answer"), KNOWN), HOST_WIDE, NOW, pressure=None).items
        == ()
    )


@pytest.mark.parametrize(
    ("policy", "wanted"),
    [
        (RetentionPolicy(build_cache=NO_CACHE), ()),
        (RetentionPolicy(), ("build_cache",)),
        (RetentionPolicy(build_cache=CachePolicy(max_used_space=None, min_free_space=1)), ("build_cache",)),
        (
            RetentionPolicy(build_cache=NO_CACHE, exited_containers_age=timedelta(days=1)),
            ("exited_containers_age",),
        ),
        # Volumes go where the scope is the host only.
        (RetentionPolicy(build_cache=NO_CACHE, anonymous_volumes_age=timedelta(days=1)), ()),
        (HOST_WIDE, ("build_cache", "exited_containers_age", "anonymous_volumes_age")),
    ],
)
def test_what_a_policy_wants_of_the_account(policy: RetentionPolicy, wanted: tuple[str, ...]) -> None:
    assert wanted_of_disk(policy) == wanted


class _Engine:
    """Answers to ``disk_usage`` one after the other; the last one for ever."""

    def __init__(self, *answers: EngineDisk | Exception) -> None:
        self.answers: Iterator[EngineDisk | Exception] = iter(answers)
        self.last = answers[-1]
        self.timeouts: list[float] = []
        self.parts: set[DiskPart] = set()

    def disk_usage(self, *, timeout: float, parts: Collection[DiskPart] = ()) -> EngineDisk:
        self.timeouts.append(timeout)
        self.parts = set(parts)
        answer = next(self.answers, self.last)
        if isinstance(answer, Exception):
            raise answer
        return answer


BUSY = EngineRefused("The Docker engine refused to account for its disk: a disk usage operation is already running.")


def _read(engine: _Engine, policy: RetentionPolicy, timeout: float = 10) -> EngineDisk | DiskUnread | None:
    return read_disk(cast(Engine, engine), policy, timeout=timeout, sleep=lambda _: None)


def test_the_account_is_read_once_with_all_the_time_there_is() -> None:
    engine = _Engine(DISK)
    assert _read(engine, HOST_WIDE) is DISK
    assert engine.timeouts == [pytest.approx(10, abs=1)]


@pytest.mark.parametrize("error", [EngineUnreachable("It did not answer in time."), EngineRefused("It is broken.")])
def test_an_account_that_fails_is_a_problem_only_where_the_policy_wants_it(error: EngineUnreachable) -> None:
    found = _read(_Engine(error), HOST_WIDE)
    assert isinstance(found, DiskUnread)
    assert found.problem == (
        "the engine's account of its disk, needed for build_cache, exited_containers_age, anonymous_volumes_age: "
        f"{error.message}"
    )
    assert _read(_Engine(error), RetentionPolicy(build_cache=NO_CACHE)) is None


def test_no_more_of_the_account_is_asked_for_than_the_policy_wants() -> None:
    engine = _Engine(DISK)
    _read(engine, RetentionPolicy())
    assert engine.parts == {"build-cache"}
    _read(engine, HOST_WIDE)
    assert engine.parts == {"build-cache", "container", "volume"}


def test_who_finds_the_engine_at_another_account_waits_for_its_end() -> None:
    engine = _Engine(BUSY, BUSY, DISK)
    assert _read(engine, HOST_WIDE) is DISK
    assert len(engine.timeouts) == 3
    assert isinstance(_read(_Engine(BUSY), HOST_WIDE, timeout=0.1), DiskUnread)


def test_a_record_of_the_cache_is_read_with_its_id_and_last_use() -> None:
    rows = [
        {"ID": "c1", "Type": "regular", "Size": 5, "LastUsedAt": "2026-01-02T03:04:05.000006789Z", "InUse": True},
        {"ID": "c2", "Type": "regular", "Size": 5, "LastUsedAt": None, "Shared": True},
    ]
    assert parse_engine_disk({"LayersSize": 0, "BuildCache": rows}).cache == (
        CacheDisk("regular", 5, True, False, "c1", datetime(2026, 1, 2, 3, 4, 5, 6, UTC)),
        CacheDisk("regular", 5, False, True, "c2", None),
    )
