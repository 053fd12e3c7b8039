"""An auditor beside the engine: asks the truth at each removal whether that might go, and lets others work after it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from caisson.engine import ImageID
from caisson.prune_report import ItemResult
from caisson.retention.prune_plan import PlanItem, PrunePlan, RemoveContainer, RemoveImage, RemoveTag, has_room
from caisson.snapshot import ImageState, Snapshot
from tests.fake_engine import REMOVALS
from tests.property.prune_worlds import Act, World
from tests.property.retention_oracle import Oracle


@dataclass(frozen=True)
class Before:
    """The truth just before a call."""

    truth: Snapshot
    tags: dict[str, ImageID]
    containers: frozenset[str]

    def image(self, image: ImageID) -> ImageState:
        return next(state for state in self.truth.images if state.id == image)

    def is_in_use(self, image: ImageID) -> bool:
        return any(container.image == image for container in self.truth.containers)


class Auditor:
    """Watches all connections of a world while a plan is applied; every finding is an ``AssertionError``."""

    def __init__(self, world: World, plan: PrunePlan, others: tuple[Act | None, ...] = ()) -> None:
        # With several connections others work between items only: within one, threads would make it a matter of luck.
        self._is_serial = len(world.engines) == 1
        self.world, self.policy = world, world.script.policy
        self._others: Iterator[Act | None] = iter(others)
        self._digests_taken: dict[ImageID, set[str]] = {}
        self.adopt(plan)
        self._before = self._look()
        self.removals = 0
        for engine in world.engines:
            engine.before, engine.after = self.before, self.after

    def adopt(self, plan: PrunePlan) -> None:
        """From now on it is this plan that is applied, and no other allows anything any more."""
        self.plan = plan
        self._images = {item.image.id: item for item in plan.items if isinstance(item, RemoveImage)}
        self._tags = {(item.image.id, item.reference): item for item in plan.items if isinstance(item, RemoveTag)}
        self._containers = {item.id: item for item in plan.items if isinstance(item, RemoveContainer)}
        self._taken: dict[ImageID, set[str]] = {}
        self._gone: set[ImageID] = set()

    def before(self, name: str, argument: str) -> None:
        if name in REMOVALS or name == "tag_image":
            self._before = self._look()

    def after(self, name: str, argument: str) -> None:
        host, was = self.world.host, self._before
        if name == "tag_image":
            # Names are given back, never taken from others.
            assert was.tags.get(argument, host.tags[argument]) == host.tags[argument]
        if name not in REMOVALS:
            return
        oracle = Oracle(was.truth, self.policy, was.truth.taken)
        for image in {state.id for state in was.truth.images} - set(host.images):
            self._check_image(oracle, was, was.image(image))
        for tag, image in was.tags.items():
            if tag not in host.tags:
                self._check_name(oracle, was, was.image(image), tag)
        for container in was.containers - set(host.containers):
            self._check_container(was, container)
        for state in was.truth.images:
            if (image_left := host.images.get(state.id)) is not None:
                lost = set(state.registry_digests) - set(host.digests_of(image_left))
                self._digests_taken.setdefault(state.id, set()).update(lost)
        self.removals += 1
        if self._is_serial:
            left = [image for tag, image in was.tags.items() if tag not in host.tags and image in host.images]
            self.others_work(left[0] if left else None)

    def others_work(self, in_the_midst: ImageID | None = None) -> None:
        """One act; between two names of one image only such as the engine itself notices, for nothing else could."""
        act = next(self._others, None)
        if act is not None and (in_the_midst is None or self._is_noticed(act, in_the_midst)):
            self.world.act(act)

    def _is_noticed(self, act: Act, image: ImageID) -> bool:
        """Whether it makes the engine refuse the image's removal by ID, or has nothing to do with the image."""
        host = self.world.host
        target = self.world.image_of(act)
        tags = host.tags_of(image)
        if target is None or tags == (act.tag,):
            return False
        if target == image:
            return act.what in ("run", "create") or (act.what in ("tag", "pull") and act.tag not in tags)
        # Whatever stands on its layers would lend it its use.
        return act.what == "tag" and not set(host.images[image].layers) <= set(host.images[target].layers)

    def result(self, result: ItemResult) -> None:
        """At the end of each item, with builds let in again."""
        item = result.item
        if isinstance(item, RemoveImage):
            image, tags = item.image.id, self.world.host.tags
            if result.outcome == "kept" and image in self.world.host.images:
                # What was taken on the way is back, unless somebody else has it now.
                assert self._taken.get(image, set()) <= set(tags)
            # Somebody may have pulled it again.
            assert (result.outcome == "removed") == (image in self._gone)
        self.others_work()

    def _check_image(self, oracle: Oracle, was: Before, image: ImageState) -> None:
        item = self._images.get(image.id)
        assert item is not None, "an image that was not planned"
        assert not was.is_in_use(image.id)
        assert set(image.tags) <= set(item.image.tags), "it has a name that it had not in the plan"
        assert not oracle.is_protected(image)
        assert all(other.parent != image.id for other in was.truth.images)
        self._check_phase(oracle, was, image, item)
        self._gone.add(image.id)

    def _check_phase(self, oracle: Oracle, was: Before, image: ImageState, item: PlanItem) -> None:
        if item.phase == "evicted":
            assert self.plan.target is not None, "evicted without pressure"
            if self._is_serial:
                assert not has_room(was.truth.usage, self.plan.target), "evicted when there was room"
            assert oracle.used(image) <= self.plan.planned, "used after the plan"
        else:
            assert oracle.is_over(image)

    def _check_name(self, oracle: Oracle, was: Before, image: ImageState, tag: str) -> None:
        item = self._images.get(image.id)
        if item is not None and tag in item.image.tags:
            if image.id not in self._taken:
                assert not oracle.is_protected(image)
                assert not was.is_in_use(image.id)
            self._taken.setdefault(image.id, set()).add(tag)
            return
        assert (image.id, tag) in self._tags, "a name that was not planned"
        assert not oracle.is_kept_whole(image)
        assert len(image.tags) > 1, "the last name of an image that was to stay"
        assert oracle.is_name_over(image, tag)

    def _check_container(self, was: Before, container: str) -> None:
        item = next(found for id_, found in self._containers.items() if id_ == container)
        state = next(found for found in was.truth.containers if found.id == container)
        age = self.policy.exited_containers_age
        assert item.phase == "containers"
        assert state.state in ("exited", "dead")
        assert age is not None
        assert state.finished is not None
        assert was.truth.taken - state.finished >= age

    def _look(self) -> Before:
        """Digests that the prune itself has taken count as if they were there: its own deed must not judge it."""
        host, truth = self.world.host, self.world.truth()
        images = tuple(
            replace(image, registry_digests=tuple(sorted({*image.registry_digests, *taken}))) if taken else image
            for image in truth.images
            for taken in [self._digests_taken.get(image.id)]
        )
        return Before(replace(truth, images=images), dict(host.tags), frozenset(host.containers))
