"""A prune on a real engine whose disk is the test's own: what goes, what must not, and whether the disk agrees."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from caisson import prune
from caisson.disk import DiskUsage, read_file_system
from caisson.disk_limits import DiskLimits, parse_limits
from caisson.docker_engine import DockerEngine
from caisson.engine import ImageID
from caisson.errors import PruneBusy
from caisson.leases import Leases
from caisson.ledger import Ledger
from caisson.prune import apply_plan, make_plan
from caisson.prune_report import ItemResult, PruneReport
from caisson.prune_view import HostView, PruneHost
from caisson.retention.policy import Retention, RetentionPolicy, Scope
from caisson.retention.prune_plan import PrunePlan
from tests.image_archive import ArchiveImage, Layer, load_images
from tests.own_engine import OwnEngine, own_engine

MIB = 1 << 20
LONG_AGO = timedelta(days=60)
HOST_WIDE = RetentionPolicy(
    scope=Scope.HOST, allow_unrecoverable=True, otherwise=Retention(keep_last=0, max_age=timedelta(days=30))
)
# Nothing expires: what goes, goes under pressure.
UNDER_PRESSURE = HOST_WIDE.model_copy(update={"otherwise": Retention(keep_last=0, max_age=None)})


@dataclass
class Disk:
    """The engine's host as a prune sees it, with a ledger of one test and a clock that the test sets."""

    engine: OwnEngine
    state: Path
    docker: DockerEngine
    now: datetime = field(default_factory=lambda: datetime.now(UTC))

    def __post_init__(self) -> None:
        self.ledger = Ledger(self.state / "ledger.sqlite")
        self.leases = Leases(self.state / "leases", self.ledger.leases)
        self.host = PruneHost(
            engines=(self.docker,),
            ledger=self.ledger,
            leases=self.leases,
            read_usage=lambda: read_file_system(self.engine.data_root),
            clock=lambda: self.now,
        )

    def load(self, *images: ArchiveImage) -> None:
        """Images that were there, and not used, for long."""
        load_images(self.engine.host, images)
        self.now = datetime.now(UTC) - LONG_AGO
        HostView(self.host, HOST_WIDE).look(self.leases.held())
        self.now = datetime.now(UTC)

    def plan(self, policy: RetentionPolicy, limits: DiskLimits | None = None) -> tuple[HostView, PrunePlan]:
        view = HostView(self.host, policy)
        return view, make_plan(view, limits or _limits(2), force_pressure=limits is not None)

    def prune(self, policy: RetentionPolicy, limits: DiskLimits | None = None) -> PruneReport:
        view, plan = self.plan(policy, limits)
        return apply_plan(view, plan, trigger="a test")

    @property
    def usage(self) -> DiskUsage:
        return self.host.read_usage()

    @property
    def tags(self) -> set[str]:
        return {tag for image in self.docker.list_images() for tag in image.tags}

    def id(self, reference: str) -> ImageID:
        found = self.docker.inspect_image(reference)
        assert found is not None
        return found.id

    def clear(self) -> None:
        for image in self.docker.list_images(intermediate=True):
            for name in image.tags or (image.id,):
                self.docker.remove_image(name, timeout=120)


def _limits(low_free: int, *, inodes: int = 2) -> DiskLimits:
    """Low is reached when so much is free; high and critical are of no concern here."""
    return parse_limits(
        low=f"{low_free} free",
        high=f"{low_free - 1} free",
        critical="0 free",
        inodes_low=f"{inodes} free",
        inodes_high=f"{inodes - 1} free",
        inodes_critical="0 free",
    )


@pytest.fixture(scope="module")
def engine() -> Iterator[OwnEngine]:
    with own_engine("10.231.81.1", disk_bytes=3 << 30) as own:
        yield own


@contextmanager
def _disk(engine: OwnEngine, state: Path) -> Iterator[Disk]:
    with DockerEngine(engine.host.docker_host) as docker:
        disk = Disk(engine, state, docker)
        disk.clear()
        yield disk


@pytest.fixture
def disk(engine: OwnEngine, tmp_path: Path) -> Iterator[Disk]:
    with _disk(engine, tmp_path) as disk:
        yield disk


def _family(count: int, *, bases: int = 4, size: int = MIB, name: str = "app") -> list[ArchiveImage]:
    """Images of three layers: a base that many have, one that two have, and one of their own."""
    return [
        ArchiveImage(
            (f"{name}{n}:1",),
            [
                Layer(f"{name}-base-{n // 2 % bases}", 4 * size),
                Layer(f"{name}-pair-{n // 2}", size),
                Layer(f"{name}-own-{n}", size),
            ],
        )
        for n in range(count)
    ]


def test_hundreds_of_images_free_what_the_plan_says(disk: Disk) -> None:
    # What an engine keeps beside a layer, some 80 KB, is in no image's size: with smaller layers it would be seen.
    disk.load(*_family(150, size=2 * MIB))
    before = disk.usage
    report = disk.prune(HOST_WIDE)
    assert report.counts == {"removed": 150}
    freed = disk.usage.free_bytes - before.free_bytes
    assert report.freed_bytes == pytest.approx(freed, abs=4 * MIB)
    assert freed == pytest.approx(report.plan.reclaimable_bytes, rel=0.05)
    assert report.plan.reclaimable_bytes == (4 * 8 + 75 * 2 + 150 * 2) * MIB
    assert disk.tags == set()
    (recorded,) = disk.ledger.prunes.list()
    assert (recorded.outcome, recorded.freed_bytes) == ("done", report.freed_bytes)


def test_again_there_is_nothing_to_do(disk: Disk) -> None:
    disk.load(*_family(6))
    assert disk.prune(HOST_WIDE).counts == {"removed": 6}
    assert disk.prune(HOST_WIDE).plan.items == ()


def test_what_is_used_kept_held_or_changed_since_the_plan_stays(disk: Disk) -> None:
    names = ("free", "running", "pattern", "leased", "moved", "tagged", "newly-used", "newly-leased")
    disk.load(*(ArchiveImage((f"{name}:1", f"{name}:2"), [Layer("base", MIB), Layer(name, MIB)]) for name in names))
    body = {"Image": "running:1"}
    disk.docker.create_container("user", body)
    policy = HOST_WIDE.model_copy(update={"keep": ("pattern",)})
    with disk.leases.hold("build one", ["leased:1"], taken=disk.now):
        view, plan = disk.plan(policy)
        planned = {tag for item in plan.items for tag in item.image.tags}  # type: ignore[union-attr]
        assert planned == {
            f"{n}:{v}" for n in ("free", "moved", "tagged", "newly-used", "newly-leased") for v in (1, 2)
        }
        # Others go on with their work between plan and apply.
        disk.docker.tag_image(disk.id("free:1"), "moved:1")
        disk.docker.tag_image(disk.id("tagged:1"), "important:1")
        disk.docker.create_container("user2", {"Image": "newly-used:2"})
        with disk.leases.hold("build two", ["newly-leased:2"], taken=disk.now):
            report = apply_plan(view, plan, trigger="a test")
    try:
        results = {result.item.image.tags[0]: result for result in report.results}  # type: ignore[union-attr]
        assert results["moved:1"].outcome == "removed"
        assert {name: (result.outcome, result.rule) for name, result in results.items() if name != "moved:1"} == {
            # It has a name that it had not in the plan.
            "free:1": ("kept", "changed"),
            "tagged:1": ("kept", "changed"),
            "newly-used:1": ("kept", "in-use"),
            "newly-leased:1": ("kept", "lease"),
        }
        every = {f"{name}:{version}" for name in names for version in (1, 2)}
        assert disk.tags == (every - {"moved:2"}) | {"important:1"}
    finally:
        for container in disk.docker.list_containers({}):
            disk.docker.remove_container(container.id)


def test_under_pressure_the_least_worth_goes_until_there_is_room_and_no_more(disk: Disk) -> None:
    disk.load(*_family(40, size=2 * MIB))
    wanted = disk.usage.free_bytes + 20 * MIB
    report = disk.prune(UNDER_PRESSURE, _limits(wanted))
    assert report.ending == "target-reached"
    assert wanted < disk.usage.free_bytes < wanted + 8 * MIB
    assert report.counts["removed"] < 15
    assert len(disk.tags) == 40 - report.counts["removed"]


def test_what_is_protected_is_told_where_room_can_not_be_made(disk: Disk) -> None:
    disk.load(*_family(4))
    policy = UNDER_PRESSURE.model_copy(update={"keep": ("app1", "app2", "app3")})
    report = disk.prune(policy, _limits(disk.usage.free_bytes + 100 * MIB))
    assert (report.ending, report.counts) == ("short", {"removed": 1})
    assert report.plan.kept_bytes["keep-pattern"] > 12 * MIB
    assert report.shortfall.endswith("MiB")


def test_two_prunes_at_once_are_one(disk: Disk) -> None:
    disk.load(*_family(4))
    view, plan = disk.plan(HOST_WIDE)
    with disk.leases.only_prune(), pytest.raises(PruneBusy):
        apply_plan(view, plan, trigger="a test")
    assert len(disk.tags) == 4
    assert disk.ledger.prunes.list() == []


def test_a_prune_that_is_asked_to_stop_stops_between_two_removals(disk: Disk) -> None:
    disk.load(*_family(6))
    view, plan = disk.plan(HOST_WIDE)
    seen: list[ItemResult] = []
    report = apply_plan(view, plan, trigger="a test", on_result=seen.append, should_stop=lambda: len(seen) == 2)
    assert (report.ending, report.counts) == ("stopped", {"removed": 2, "not-reached": 4})
    assert disk.prune(HOST_WIDE).counts == {"removed": 4}


def test_a_prune_that_is_killed_is_finished_by_the_next(disk: Disk) -> None:
    disk.load(*_family(60))
    program = f"""
import sys
from pathlib import Path
from tests.engine.test_prune import HOST_WIDE, Disk, apply_plan
from tests.own_engine import OwnEngine
from caisson.docker_engine import DockerEngine
engine = OwnEngine(Path({str(disk.engine.directory)!r}), "", None)
disk = Disk(engine, Path({str(disk.state)!r}), DockerEngine(engine.host.docker_host))
view, plan = disk.plan(HOST_WIDE)
apply_plan(view, plan, trigger="a test", on_result=lambda _: print("removed", flush=True))
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for _ in range(5):
            assert process.stdout.readline() == "removed\n"
        process.kill()
    left = len(disk.tags)
    assert 0 < left <= 55
    (unfinished,) = disk.ledger.prunes.list()
    assert unfinished.ended is None
    assert disk.prune(HOST_WIDE).counts == {"removed": left}
    assert disk.tags == set()


def test_an_engine_that_goes_away_ends_the_prune_and_the_next_finishes_it(disk: Disk, engine: OwnEngine) -> None:
    disk.load(*_family(30))
    view, plan = disk.plan(HOST_WIDE)
    seen: list[ItemResult] = []

    def stop_at_the_fifth(result: ItemResult) -> None:
        seen.append(result)
        if len(seen) == 5:
            engine.stop(signal.SIGTERM)

    report = apply_plan(view, plan, trigger="a test", on_result=stop_at_the_fifth)
    assert report.ending == "stopped"
    assert "does not answer" in report.problem
    assert report.counts["removed"] == 5
    assert sum(report.counts.values()) == 30
    engine.start()
    with DockerEngine(engine.host.docker_host) as docker:
        again = Disk(engine, disk.state, docker)
        # Its events went with it, so that everything may have been used meanwhile: nothing goes.
        assert again.prune(HOST_WIDE).plan.items == ()
        # With the first event there is something by which the next look knows that it has missed none.
        left = min(again.tags)
        again.docker.tag_image(again.id(left), left)
        assert again.prune(HOST_WIDE).plan.items == ()
        again.now += timedelta(days=31)
        assert again.prune(HOST_WIDE).counts == {"removed": 25}


def test_an_image_of_60_000_files_may_take_its_time(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    disk.load(
        ArchiveImage(("many:1",), [Layer("many", 60_000 * 16, files=60_000)]),
        ArchiveImage(("few:1",), [Layer("few", MIB)]),
    )
    inodes = disk.usage.free_inodes
    # Shorter than it takes, so that its end is seen only by looking again.
    monkeypatch.setattr(prune, "REMOVAL_SECONDS", 0.05)
    began = time.monotonic()
    report = disk.prune(HOST_WIDE)
    print(f"\n  an image of 60,000 files took {time.monotonic() - began:.1f} s to remove")
    outcomes = {result.item.image.tags[0]: result.outcome for result in report.results}  # type: ignore[union-attr]
    assert outcomes["few:1"] == "removed"
    if outcomes["many:1"] != "removed":
        monkeypatch.undo()
        disk.prune(HOST_WIDE)
    assert disk.tags == set()
    assert disk.usage.free_inodes - inodes > 60_000


def test_a_disk_without_inodes_is_freed_of_those(tmp_path: Path) -> None:
    with own_engine("10.231.82.1", disk_bytes=1 << 30, inodes=12_000) as own, _disk(own, tmp_path) as disk:
        disk.load(
            *(ArchiveImage((f"small{n}:1",), [Layer(f"small{n}", 1000 * 16, files=1000)]) for n in range(8)),
            *(ArchiveImage((f"large{n}:1",), [Layer(f"large{n}", 20 * MIB)]) for n in range(2)),
        )
        wanted = disk.usage.free_inodes + 2500
        # How many inodes an image has, only its removal tells: what the plan thought to be enough may not be.
        reports = [disk.prune(UNDER_PRESSURE, _limits(1 << 20, inodes=wanted)) for _ in range(2)]
        assert [report.ending for report in reports] == ["short", "target-reached"]
        assert disk.usage.free_inodes >= wanted
        assert {f"small{n}:1" for n in range(8)} & disk.tags, "it went on when there were enough"
