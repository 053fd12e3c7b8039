"""Whole hosts to prune, from random scripts: a fake engine, a real ledger, real leases, and others who work there.

A script is data, so that the same host can be made twice. What others do, they do before the plan, between plan and
apply, and between the removals: never between the last check of a removal and the removal, which no engine can exclude.
"""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from caisson.disk_limits import Bound, Bounds, DiskLimits
from caisson.engine import ImageID
from caisson.errors import RemovalRefused
from caisson.file_lock import locked_if_free
from caisson.leases import Leases
from caisson.ledger import KnownImage, Ledger
from caisson.ledger.observation import Position
from caisson.prune import make_plan
from caisson.prune_view import HostView, PruneHost
from caisson.retention.policy import RetentionPolicy
from caisson.retention.prune_plan import PrunePlan
from caisson.snapshot import ChainID, ContainerState, ImageState, LeaseState, Snapshot, StoredLayer
from tests.fake_engine import FakeEngine, stored_layers
from tests.fake_host import MIB, FakeHost, FakeImage, Kind
from tests.prune_hosts import NOW, days_ago

TAGS = [*(f"team/{name}:{tag}" for name in ("app", "web") for tag in ("1", "2", "v1")), "caisson.local/build:1"]
TOTAL = 2000 * MIB
# When Caisson last looked: what it knows, it knows from then.
LOOKED = NOW - timedelta(minutes=10)
AGES = st.sampled_from([0.5, 1.0, 2.0, 5.0, 30.0, 40.0, 400.0])


@dataclass(frozen=True)
class ImageScript:
    """``base`` is the number of an earlier one; ``is_known`` says that the ledger has it."""

    layers: tuple[str, ...]
    base: int | None
    is_classic: bool
    tags: tuple[str, ...]
    is_pulled: bool
    is_kept: bool
    is_own: bool
    is_known: bool
    appeared: float
    used: float


@dataclass(frozen=True)
class ContainerScript:
    image: int
    state: str
    age: float


@dataclass(frozen=True)
class Act:
    """What somebody else does; numbers are taken modulo what is there."""

    what: str
    number: int
    tag: str


@dataclass(frozen=True)
class Script:
    kind: Kind
    images: tuple[ImageScript, ...]
    containers: tuple[ContainerScript, ...]
    leased: tuple[str, ...]
    policy: RetentionPolicy
    free: int
    missing: int
    """MiB that are free at the start, and that are missing to the low threshold."""
    is_pressed: bool
    """Whether the high threshold is reached with that."""
    inodes: int
    early: tuple[Act, ...] = ()
    late: tuple[Act, ...] = ()
    between: tuple[Act | None, ...] = ()


DEEDS = ("tag", "untag", "run", "create", "start", "stop", "rm", "build", "classic build", "pull", "remove", "lease")
RARE = ("end of lease", "fill", "free", "wait", "noise")
acts = st.builds(Act, st.sampled_from(DEEDS * 2 + RARE), st.integers(0, 7), st.sampled_from(TAGS))


@st.composite
def image_scripts(draw: st.DrawFn) -> tuple[ImageScript, ...]:
    free_tags = list(draw(st.permutations(TAGS)))
    made = []
    for number in range(draw(st.integers(1, 6))):
        base = draw(st.none() | st.integers(0, number - 1)) if number else None
        tags = tuple(free_tags.pop() for _ in range(min(len(free_tags), draw(st.sampled_from([0, 1, 1, 2, 3])))))
        appeared, used = draw(AGES), draw(AGES)
        made.append(
            ImageScript(
                layers=tuple(draw(st.sampled_from(["w", "x", "y", "z", "wz", "xy", ""]))),
                base=base,
                is_classic=draw(st.booleans()),
                tags=tags,
                is_pulled=draw(st.booleans()),
                is_kept=draw(st.integers(0, 9)) == 0,
                is_own=draw(st.integers(0, 4)) > 0,
                is_known=draw(st.integers(0, 9)) > 0,
                appeared=appeared,
                used=min(appeared, used),
            )
        )
    return tuple(made)


@st.composite
def scripts(draw: st.DrawFn, *, others: bool = True, kinds: tuple[Kind, ...] = ("overlay2", "c8d")) -> Script:
    container = st.builds(
        ContainerScript, st.integers(0, 5), st.sampled_from(["created", "running", "exited", "exited"]), AGES
    )
    return Script(
        kind=draw(st.sampled_from(kinds)),
        images=draw(image_scripts()),
        containers=tuple(draw(st.lists(container, max_size=2))),
        leased=tuple(draw(st.lists(st.sampled_from([*TAGS, "0", "1"]), max_size=1))),
        policy=draw(lenient_policies()),
        free=draw(st.integers(1, 60)),
        missing=draw(st.sampled_from([20, 60, 100, 1000])),
        is_pressed=draw(st.booleans()),
        inodes=draw(st.sampled_from([0, 0, 20_500, 21_000])),
        early=tuple(draw(st.lists(acts, max_size=2))) if others else (),
        late=tuple(draw(st.lists(acts, max_size=2))) if others else (),
        between=tuple(draw(st.lists(st.none() | acts, max_size=6))) if others else (),
    )


@st.composite
def lenient_policies(draw: st.DrawFn) -> RetentionPolicy:
    """Such that something goes: else most examples would prove nothing."""

    def retention() -> dict[str, Any]:
        return {
            "keep_last": draw(st.sampled_from([0, 0, 1])),
            "max_age": draw(st.sampled_from(["", "0s", "1d", "30d"])),
            "min_age": draw(st.sampled_from(["0s", "0s", "1d"])),
            "keep_tags": draw(st.sampled_from([(), (), (), ("v*",)])),
        }

    return RetentionPolicy.model_validate(
        {
            "scope": draw(st.sampled_from(["host", "host", "own"])),
            "rules": [{"repositories": "team/web", **retention()}] if draw(st.booleans()) else [],
            "otherwise": retention(),
            "keep": draw(st.sampled_from([(), (), (), (), ("team/web",)])),
            "allow_unrecoverable": draw(st.integers(0, 3)) > 0,
            "dangling_age": draw(st.sampled_from(["0s", "1d", "30d"])),
            "leftovers_age": draw(st.sampled_from(["0s", "1d"])),
            "exited_containers_age": draw(st.sampled_from(["", "1d"])),
            "build_cache": {"reserved_space": "10m", "max_used_space": draw(st.sampled_from(["", "50m"]))},
        }
    )


class World:
    """One host with all that a prune works with; ``close`` ends the leases of others."""

    def __init__(self, script: Script, directory: Path, *, connections: int = 1) -> None:
        self.script = script
        self.host = FakeHost(script.kind, NOW, total_bytes=TOTAL, total_inodes=script.inodes)
        # The ledger's reserve for a full disk: 2 MiB that would be written for each example.
        (directory / "ledger.sqlite.reserve").touch()
        self.ledger = Ledger(directory / "ledger.sqlite")
        # While one connection is open, SQLite does not tidy the file up at the end of each transaction.
        self._open = sqlite3.connect(directory / "ledger.sqlite")
        self._open.execute("SELECT * FROM facts").fetchall()
        self.leases = Leases(directory / "leases", self.ledger.leases)
        self._gate = directory / "leases" / "gate"
        self._stack: list[ExitStack] = []
        self.held: list[LeaseState] = []
        self.own: set[ImageID] = set()
        self.engines = [FakeEngine(self.host) for _ in range(connections)]
        self.pruned = PruneHost(
            engines=self.engines,
            ledger=self.ledger,
            leases=self.leases,
            read_usage=self.host.read_usage,
            containerd_store=script.kind == "c8d",
            clock=lambda: self.host.now,
            sleep=lambda _: self.host.pass_time(1),
        )
        self.ids: list[ImageID] = []
        self._make_images()
        self._make_containers()
        self._record()
        self.host.now = NOW
        # What a registry has is there for ever.
        self.registry = [replace(image, digests=set()) for image in self.host.images.values()]
        self.host.other_bytes = max(0, TOTAL - script.free * MIB - self.host.used_bytes())
        for name in script.leased:
            self._lease(self.ids[int(name) % len(self.ids)] if name.isdigit() else name)

    def view(self) -> HostView:
        return HostView(self.pruned, self.script.policy)

    def plan(self, view: HostView, *, force_pressure: bool = False) -> PrunePlan:
        return make_plan(view, self.limits, force_pressure=force_pressure)

    @property
    def limits(self) -> DiskLimits:
        free = self.script.free
        high = free if self.script.is_pressed else (free + 1) // 2
        inodes = Bounds(Bound(percent=93), Bound(percent=95), Bound(percent=99))
        bytes_ = Bounds(Bound(free=(free + self.script.missing) * MIB), Bound(free=high * MIB), Bound(free=0))
        return DiskLimits(bytes_, inodes)

    def close(self) -> None:
        for stack in self._stack:
            stack.close()
        self._open.close()

    def state(self) -> tuple[Any, ...]:
        """All that is there."""
        host = self.host
        return set(host.images), dict(host.tags), set(host.containers), set(host.volumes), len(host.cache)

    # The beginning.

    def _make_images(self) -> None:
        for number, made in enumerate(self.script.images):
            self.host.now = days_ago(made.appeared) if made.is_known else LOOKED + timedelta(minutes=1)
            layers = [(f"{self._ground(made)}{letter}", "vwxyz".index(letter) * 20 * MIB) for letter in made.layers]
            image = self.host.new_image(
                layers,
                base=None if made.base is None else self.ids[made.base],
                is_classic=made.is_classic,
                tags=made.tags,
                labels={"caisson.keep-until": "2027-01-01"} if made.is_kept else {},
            )
            state = self.host.images[image]
            if made.is_known:
                state.used = days_ago(made.used)
            state.last_tag_time = state.used
            # What nobody has seen yet was built here.
            if made.is_pulled and made.is_known:
                state.digests |= {f"{tag.rpartition(':')[0]}@{image}" for tag in made.tags or (f"team/n{number}:1",)}
            self.ids.append(image)

    def _ground(self, made: ImageScript) -> str:
        return "" if made.base is None else f"{made.base}-"

    def _make_containers(self) -> None:
        for made in self.script.containers:
            self.host.now = days_ago(made.age)
            image = self.ids[made.image % len(self.ids)]
            container = self.host.create(image)
            self.host.containers[container].writable = MIB
            if made.state != "created":
                self.host.start(container)
            if made.state == "exited":
                self.host.stop(container)

    def _record(self) -> None:
        host = self.host
        host.events.clear()
        host.now = LOOKED - timedelta(seconds=1)
        host.noise(1)
        last = host.events[-1]
        anchor = (str(last.time_ns), last.type, last.action, last.subject)
        known = [
            KnownImage(
                id=image.id,
                first_seen=image.appeared,
                last_used=image.used,
                last_use="by the script",
                last_listed=LOOKED,
                names=host.tags_of(image.id),
                registries=tuple(sorted(self._registries(image))),
                layers=tuple(StoredLayer(ChainID(chain), size) for chain, size in stored_layers(host, image)),
            )
            for image, made in zip(host.images.values(), self.script.images, strict=True)
            if made.is_known
        ]
        self.ledger.observations.record(
            known, {i.id: i.layers or () for i in known}, Position(LOOKED, anchor, LOOKED), LOOKED
        )
        for image, made in zip(self.ids, self.script.images, strict=True):
            step = self.host.images[image] if made.is_own else None
            while step is not None:
                # All steps of an own build: they are known by what stands on them only, for as long as that is there.
                self.own.add(step.id)
                step = self.host.images[step.parent] if step.parent else None
        with self.ledger._file.writing() as database:
            database.executemany(
                "INSERT INTO builds VALUES (?, '', '', '', ?, ?, ?)",
                [(image, image, days_ago(400).isoformat(), 10.0) for image in self.own],
            )

    def _registries(self, image: FakeImage) -> set[str]:
        return {f"docker.io/{digest.partition('@')[0]}" for digest in image.digests}

    # What others do.

    def act(self, act: Act) -> None:
        with suppress(RemovalRefused):
            self._act(act)

    def image_of(self, act: Act) -> ImageID | None:
        """The image that an act is about, if there is one."""
        if act.what == "pull":
            return self.registry[act.number % len(self.registry)].id
        found: ImageID | None = one_of(list(self.host.images), act.number)
        return found

    def _act(self, act: Act) -> None:
        host = self.host
        image = self.image_of(act)
        container = one_of(list(host.containers), act.number)
        match act.what:
            case "tag" if image:
                host.tag(image, act.tag)
            case "untag":
                host.delete_image(act.tag, prune_parents=True)
            case "run" | "create" if image:
                made = host.create(image, act.tag if host.tags.get(act.tag) == image else image)
                if act.what == "run":
                    host.start(made)
            case "start" if container:
                host.start(container)
            case "stop" if container:
                host.stop(container)
            case "rm" if container:
                host.remove_container(container)
            case "classic build" if image:
                tags = [act.tag] if act.number % 2 else []
                host.new_image([("new", 9 * MIB)], base=image, is_classic=True, tags=tags)
            case "build" if image:
                host.new_image([("new", 9 * MIB)], base=image, tags=[act.tag])
            case "pull" if image not in host.images:
                # One that is there already gets no younger by it where its name moves on before anybody looks: events
                # of pulls name no image.
                host.pull(self.registry[act.number % len(self.registry)], act.tag)
            case "remove" if image:
                host.delete_image(image, prune_parents=True)
            case "lease":
                self._lease(image if image and act.number % 2 else act.tag)
            case "end of lease" if self._stack:
                self.held.pop(0)
                self._stack.pop(0).close()
            case "fill":
                host.other_bytes += 50 * MIB
            case "free":
                host.other_bytes = max(0, host.other_bytes - 100 * MIB)
            case "wait":
                host.pass_time(3600)
            case "noise":
                host.noise(300)

    def _lease(self, name: str) -> None:
        # While a removal is under way a build would wait, and it can't be waited for here.
        with locked_if_free(self._gate) as is_free:
            pass
        if is_free:
            stack = ExitStack()
            stack.enter_context(self.leases.hold("somebody", [name], taken=self.host.now))
            self._stack.append(stack)
            self.held.append(LeaseState.of_names("somebody", [name]))

    # The truth.

    def truth(self) -> Snapshot:
        """What is on the host, from its own memory and not from what its engine and the ledger tell.

        Without images that nobody can know of until the images are listed again.
        """
        host = self.host
        return Snapshot(
            taken=host.now,
            usage=host.read_usage(),
            images=tuple(self._true_state(image) for image in host.images.values() if image.id not in host.untold),
            containers=tuple(
                ContainerState(c.id, c.image, c.name, c.state, c.labels, c.writable, c.finished)
                for c in host.containers.values()
            ),
            leases=tuple(self.held),
        )

    def _true_state(self, image: FakeImage) -> ImageState:
        host = self.host
        digests = image.digests
        if host.kind == "c8d":
            pulled = {digest.partition("@")[0] for digest in image.digests}
            digests = {digest for digest in host.digests_of(image) if digest.partition("@")[0] in pulled}
        return ImageState(
            id=image.id,
            tags=host.tags_of(image.id),
            registry_digests=tuple(sorted(digests)),
            labels=image.labels,
            layers=tuple(StoredLayer(ChainID(chain), size) for chain, size in stored_layers(host, image)),
            parent=image.parent,
            size=host.size_of(image),
            first_seen=image.appeared,
            last_used=image.used,
            built_by_caisson=image.id in self.own,
        )


def one_of(there: list[Any], number: int) -> Any:
    return there[number % len(there)] if there else None


def _scratch() -> str | None:
    """In memory, where it can be: a ledger's writes are not what is tested here."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


@contextmanager
def made(script: Script, *, connections: int = 1, of: type[World] = World) -> Iterator[World]:
    directory = Path(tempfile.mkdtemp(dir=_scratch()))
    try:
        world = of(script, directory, connections=connections)
        try:
            yield world
        finally:
            world.close()
    finally:
        shutil.rmtree(directory)
