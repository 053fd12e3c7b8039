"""Random hosts with volumes and build cache, and an auditor of these and of all rounds of a prune."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta

from hypothesis import strategies as st

from caisson.ledger import KnownVolume
from caisson.prune import make_plan
from caisson.prune_view import HostView
from caisson.retention.policy import CachePolicy, Scope
from caisson.retention.prune_plan import Attempt, PruneBuildCache, PrunePlan, RemoveVolume, has_room
from tests.fake_host import MIB, FakeCache
from tests.property.prune_audit import Auditor
from tests.property.prune_worlds import AGES, DEEDS, LOOKED, RARE, TAGS, Act, Script, World, one_of, scripts
from tests.prune_hosts import days_ago

NAMED = "database"
STORE_DEEDS = ("run with volume", "run with new volume", "remove volume", "begin build", "end builds", "cache grows")


@dataclass(frozen=True)
class VolumeScript:
    """``name`` is empty for an anonymous one; ``user`` is the number of the container that has it."""

    name: str
    size: int
    age: float
    user: int | None
    is_known: bool


@dataclass(frozen=True)
class CacheScript:
    """``image`` is the number of the one whose uppermost layer it holds as well; ``size`` is of other cache, in MiB."""

    size: int
    is_in_use: bool
    image: int | None


@dataclass(frozen=True)
class StoreScript(Script):
    volumes: tuple[VolumeScript, ...] = ()
    cache: tuple[CacheScript, ...] = ()


_volumes = st.builds(
    VolumeScript,
    name=st.sampled_from(["", "", "", NAMED]),
    size=st.integers(0, 40),
    age=AGES,
    user=st.none() | st.none() | st.integers(0, 1),
    is_known=st.integers(0, 5).map(bool),
)
_cache = st.builds(
    CacheScript,
    size=st.integers(1, 60),
    is_in_use=st.integers(0, 4).map(lambda number: not number),
    image=st.none() | st.integers(0, 5),
)
_acts = st.builds(Act, st.sampled_from((*STORE_DEEDS * 3, *DEEDS, *RARE)), st.integers(0, 7), st.sampled_from(TAGS))


@st.composite
def store_scripts(draw: st.DrawFn) -> StoreScript:
    script = draw(scripts(others=False))
    reserved = draw(st.sampled_from([0, 0, 10, 40, 100])) * MIB
    cache = CachePolicy(
        reserved_space=reserved,
        max_used_space=draw(st.sampled_from([None, reserved, 100 * MIB, 1000 * MIB])),
        min_free_space=draw(st.sampled_from([None, None, 60 * MIB])),
    )
    age = draw(st.sampled_from([None, *(timedelta(days=days) for days in (0, 1, 1, 30))]))
    changes = {"anonymous_volumes_age": age, "build_cache": cache}
    return StoreScript(
        **vars(replace(script, policy=script.policy.model_copy(update=changes)))
        | {
            "is_pressed": draw(st.integers(0, 3)) > 0,
            "early": tuple(draw(st.lists(_acts, max_size=2))),
            "late": tuple(draw(st.lists(_acts, max_size=2))),
            "between": tuple(draw(st.lists(st.none() | _acts, max_size=6))),
            "volumes": tuple(draw(st.lists(_volumes, max_size=3, unique_by=lambda made: made.name or made))),
            "cache": tuple(draw(st.lists(_cache, max_size=4))),
        }
    )


class StoreWorld(World):
    """One host with volumes and cache as well."""

    script: StoreScript

    def _make_containers(self) -> None:
        super()._make_containers()
        host, cached = self.host, set()
        self._known_volumes: list[str] = []
        for made in self.script.volumes:
            host.now = days_ago(made.age)
            volume = host.new_volume(made.size * MIB, made.name)
            host.volume_used[volume] = host.now
            if made.user is not None and (container := one_of(list(host.containers.values()), made.user)):
                container.volumes = (*container.volumes, volume)
            if made.is_known:
                self._known_volumes.append(volume)
        for entry in self.script.cache:
            image = None if entry.image is None else host.images[one_of(self.ids, entry.image)]
            layers = image.layers if image else ()
            if layers and layers not in cached:
                cached.add(layers)
                host.cache.append(FakeCache(host.sizes[layers[-1]], entry.is_in_use, layers))
            elif not layers:
                host.cache.append(FakeCache(entry.size * MIB, entry.is_in_use))

    def _record(self) -> None:
        super()._record()
        position = self.ledger.observations.position()
        assert position is not None
        held = {name for container in self.host.containers.values() for name in container.volumes}
        known = [
            KnownVolume(name, used, LOOKED if name in held else used, LOOKED, held=name in held)
            for name in self._known_volumes
            for used in [self.host.volume_used[name]]
        ]
        self.ledger.observations.record((), {}, position, LOOKED, known_volumes=known)

    def _act(self, act: Act) -> None:
        host, image = self.host, self.image_of(act)
        record, volume = one_of(host.cache, act.number), one_of(list(host.volumes), act.number)
        match act.what:
            case "run with volume" if image and volume:
                host.start(host.create(image, volumes=[volume]))
            case "run with new volume" if image:
                host.start(host.create(image, volumes=[host.new_volume(MIB)]))
            case "remove volume" if volume:
                host.delete_volume(volume)
            case "begin build" if record:
                record.in_use = True
            case "end builds":
                for used in host.cache:
                    used.in_use = False
            case "cache grows":
                host.cache.append(FakeCache(9 * MIB))
            case _:
                super()._act(act)


class StoreAuditor(Auditor):
    """Of volumes and cache as well, and of plan after plan: what each round takes has to be in its own plan."""

    def __init__(self, world: StoreWorld, plan: PrunePlan, others: tuple[Act | None, ...]) -> None:
        self.rounds = [plan]
        self._cache: tuple[FakeCache, ...] = ()
        super().__init__(world, plan, others)

    def replan(self, view: HostView, attempt: Attempt) -> PrunePlan:
        plan = make_plan(view, self.world.limits, force_pressure=True, attempt=attempt)
        self.rounds.append(plan)
        self.adopt(plan)
        return plan

    def before(self, name: str, argument: str) -> None:
        super().before(name, argument)
        self._cache = tuple(self.world.host.cache)
        if name == "remove_volume":
            # Not even asked for: the engine would refuse what a container has, and nothing of what is too young.
            self._check_volume(argument)

    def after(self, name: str, argument: str) -> None:
        if name == "prune_build_cache":
            self._check_cache(int(argument))
        super().after(name, argument)

    def _check_volume(self, name: str) -> None:
        host, age = self.world.host, self.policy.anonymous_volumes_age
        assert any(isinstance(item, RemoveVolume) and item.name == name for item in self.plan.items), "not planned"
        assert name != NAMED, "somebody named it"
        assert not any(name in container.volumes for container in host.containers.values()), "a container has it"
        assert self.policy.scope is Scope.HOST
        assert age is not None
        assert host.now - host.volume_used[name] >= age

    def _check_cache(self, keep: int) -> None:
        host, target = self.world.host, self.plan.target
        planned = [item for item in self.plan.items if isinstance(item, PruneBuildCache) and item.keep_bytes == keep]
        assert planned, "not planned"
        if planned[0].phase == "cache-evicted":
            assert target is not None, "evicted without pressure"
            assert not has_room(self._before.truth.usage, target), "evicted when there was room"
        left = {id(record) for record in host.cache}
        gone = [record.size for record in self._cache if id(record) not in left]
        # BuildKit ends at or below a bound: the last one that went was the first to go beyond it.
        reserved = self.policy.build_cache.reserved_space
        assert not gone or sum(record.size for record in host.cache) + gone[-1] > reserved
