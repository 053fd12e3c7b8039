"""Engines of a test's own on a disk of its own, one for each way to keep images, as a prune sees them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from caisson.disk import DiskUsage, read_file_system
from caisson.disk_limits import DiskLimits, parse_limits
from caisson.disk_reserve import DiskReserve
from caisson.docker_engine import DockerEngine
from caisson.engine import ImageID
from caisson.errors import RemovalRefused
from caisson.leases import Leases
from caisson.ledger import Ledger
from caisson.prune import apply_plan, make_plan
from caisson.prune_report import PruneReport
from caisson.prune_view import HostView, PruneHost
from caisson.retention.policy import Retention, RetentionPolicy, Scope
from caisson.retention.prune_plan import Attempt, PrunePlan
from tests.conftest import find_engines
from tests.image_archive import ArchiveImage, Layer, load_images
from tests.own_engine import OwnEngine, own_engine

MIB = 1 << 20
DISK_BYTES = 1536 * MIB
INODES = 75_000
LONG_AGO = timedelta(days=60)
HOST_WIDE = RetentionPolicy(
    scope=Scope.HOST, allow_unrecoverable=True, otherwise=Retention(keep_last=0, max_age=timedelta(days=30))
)
# Nothing expires: what goes, goes under pressure.
UNDER_PRESSURE = HOST_WIDE.model_copy(update={"otherwise": Retention(keep_last=0, max_age=None)})


@dataclass(frozen=True)
class Store:
    """Which engine, and how it keeps images."""

    engine: int
    """0: the host's own, 1: the newer one."""
    address: str
    containerd: bool = False


STORES = {
    "20.10-overlay2": Store(0, "10.231.81.1"),
    "26.1-overlay2": Store(1, "10.231.82.1"),
    "26.1-containerd": Store(1, "10.231.84.1", containerd=True),
}


@contextmanager
def engine_of(store: Store) -> Iterator[OwnEngine]:
    """Its data root is a file system of ``DISK_BYTES`` and ``INODES``."""
    root = find_engines()[store.engine].root
    with own_engine(
        store.address, disk_bytes=DISK_BYTES, inodes=INODES, root=root, containerd_store=store.containerd
    ) as own:
        yield own


@dataclass
class Disk:
    """The engine's host as a prune sees it, with a ledger of one test and a clock that the test sets."""

    engine: OwnEngine
    state: Path
    engines: tuple[DockerEngine, ...]
    now: datetime = field(default_factory=lambda: datetime.now(UTC))

    def __post_init__(self) -> None:
        self.docker = self.engines[0]
        self.ledger = Ledger(self.state / "ledger.sqlite")
        self.leases = Leases(self.state / "leases", self.ledger.leases)
        self.host = PruneHost(
            engines=self.engines,
            ledger=self.ledger,
            leases=self.leases,
            read_usage=lambda: read_file_system(self.engine.data_root),
            clock=lambda: self.now,
            containerd_store=self.engine.containerd_store,
            reserve=DiskReserve(self.engine.data_root),
        )

    def load(self, *images: ArchiveImage) -> None:
        """Images that were there, and not used, for long."""
        load_images(self.engine.host, images)
        self.now = datetime.now(UTC) - LONG_AGO
        HostView(self.host, HOST_WIDE).look(self.leases.held())
        self.now = datetime.now(UTC)

    def plan(self, policy: RetentionPolicy, limits: DiskLimits | None = None) -> tuple[HostView, PrunePlan]:
        view = HostView(self.host, policy)
        return view, make_plan(view, limits or low_at(2), force_pressure=limits is not None)

    def prune(self, policy: RetentionPolicy, limits: DiskLimits | None = None) -> PruneReport:
        view, plan = self.plan(policy, limits)

        def replan(attempt: Attempt) -> PrunePlan:
            assert limits is not None
            return make_plan(view, limits, force_pressure=True, attempt=attempt)

        return apply_plan(view, plan, trigger="a test", replan=replan)

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
        """Remove all images, steps of the classic builder after what stands on them."""
        left = 0
        while (images := self.docker.list_images(intermediate=True)) and len(images) != left:
            left = len(images)
            for image in images:
                for name in image.tags or (image.id,):
                    with suppress(RemovalRefused):
                        self.docker.remove_image(name, timeout=120)
        assert images == []


@contextmanager
def disk_of(engine: OwnEngine, state: Path) -> Iterator[Disk]:
    """Without any image."""
    with ExitStack() as stack:
        # As caisson.prune_host has it.
        number = 4 if engine.containerd_store else 1
        connections = tuple(stack.enter_context(DockerEngine(engine.host.docker_host)) for _ in range(number))
        disk = Disk(engine, state, connections)
        disk.clear()
        yield disk


def low_at(low_free: int, *, inodes: int = 2) -> DiskLimits:
    """Low is reached when so much is free; high and critical are of no concern here."""
    return parse_limits(
        low=f"{low_free} free",
        high=f"{low_free - 1} free",
        critical="0 free",
        inodes_low=f"{inodes} free",
        inodes_high=f"{inodes - 1} free",
        inodes_critical="0 free",
    )


def family(count: int, *, bases: int = 4, siblings: int = 5, size: int = MIB, name: str = "app") -> list[ArchiveImage]:
    """Images of three layers or two: a base that many have, one that siblings have, and one of their own for half."""
    return [
        ArchiveImage(
            (f"{name}{n}:1",),
            [
                Layer(f"{name}-base-{n // siblings % bases}", 4 * size),
                Layer(f"{name}-siblings-{n // siblings}", size),
                *([Layer(f"{name}-own-{n}", size)] if n % siblings < siblings // 2 else []),
            ],
        )
        for n in range(count)
    ]
