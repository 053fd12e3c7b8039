"""What a prune plans, by the sentences that promise something of it, on thousands of random hosts."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from caisson.engine import ContainerID, ImageID
from caisson.layers import bytes_on_disk, marginal_bytes
from caisson.retention.plan import FREES_NOTHING, plan_prune
from caisson.retention.plan_json import plan_from_json, plan_to_json
from caisson.retention.policy import RetentionPolicy, Scope
from caisson.retention.prune_plan import FreeTarget, PrunePlan, RemoveImage, RemoveTag
from caisson.retention.recheck import Recheck, recheck
from caisson.snapshot import ContainerState, ImageState, LeaseState, Snapshot
from tests.property.prune_hosts import (
    EVERYTHING,
    IMAGES,
    TAGS,
    containers,
    images,
    leases,
    only,
    policies,
    snapshots,
    targets,
)
from tests.property.retention_oracle import Oracle
from tests.prune_hosts import NOW, container, image_id

pressures = st.none() | st.just(EVERYTHING) | targets


def _removed(plan: PrunePlan) -> list[ImageID]:
    return [item.image.id for item in plan.items if isinstance(item, RemoveImage)]


def _names_lost(plan: PrunePlan) -> set[tuple[ImageID, str]]:
    lost = {(item.image.id, item.reference) for item in plan.items if isinstance(item, RemoveTag)}
    gone = [item.image for item in plan.items if isinstance(item, RemoveImage)]
    return lost | {(image.id, name) for image in gone for name in (*image.tags, "the image")}


def _reserve_only(policy: RetentionPolicy) -> RetentionPolicy:
    cache = policy.build_cache.model_copy(update={"max_used_space": None, "min_free_space": None})
    return policy.model_copy(update={"build_cache": cache})


@given(snapshots(), policies(), pressures, st.randoms(use_true_random=False))
def test_a_plan_is_deterministic_under_permuted_listings(
    snapshot: Snapshot, policy: RetentionPolicy, pressure: FreeTarget | None, random: Random
) -> None:
    """ "deterministic under permuted listings" """

    def shuffled(items: tuple) -> tuple:  # type: ignore[type-arg]
        return tuple(random.sample(items, len(items)))

    other = replace(
        snapshot,
        images=tuple(replace(image, tags=shuffled(image.tags)) for image in shuffled(snapshot.images)),
        containers=shuffled(snapshot.containers),
        leases=shuffled(snapshot.leases),
        build_cache=shuffled(snapshot.build_cache),
        anonymous_volumes=shuffled(snapshot.anonymous_volumes),
    )
    plans = [plan_prune(host, policy, NOW, pressure=pressure) for host in (snapshot, other)]
    assert plan_to_json(plans[0]) == plan_to_json(plans[1])


@given(snapshots(), policies(), pressures)
def test_protected_and_removed_have_nothing_in_common(
    snapshot: Snapshot, policy: RetentionPolicy, pressure: FreeTarget | None
) -> None:
    plan = plan_prune(snapshot, policy, NOW, pressure=pressure)
    oracle, gone = Oracle(snapshot, policy), set(_removed(plan))
    for image in snapshot.images:
        if image.id in gone:
            assert not oracle.is_protected(image)


@given(snapshots(), policies())
def test_what_is_kept_from_an_endless_eviction_is_protected_or_frees_nothing(
    snapshot: Snapshot, policy: RetentionPolicy
) -> None:
    """The other way round, so that the protections are not simply everything."""
    plan = plan_prune(snapshot, policy, NOW, pressure=EVERYTHING)
    oracle = Oracle(snapshot, policy)
    by_id = {image.id: image for image in snapshot.images}
    for kept in plan.kept:
        image = by_id[kept.image.id]
        if kept.rule in ("ancestor", "ambiguous-tag", "lease"):
            continue
        if kept.rule in ("frees-nothing", "not-expired", "not-needed"):
            assert kept.rule == "frees-nothing"
            assert kept.marginal_bytes == 0 or oracle.used(image) >= NOW or _shares_with_one_used_now(image, oracle)
            continue
        assert oracle.is_protected(image), kept


def _shares_with_one_used_now(image: ImageState, oracle: Oracle) -> bool:
    return any(oracle.used(o) >= NOW for o in oracle.snapshot.images if set(o.layers) == set(image.layers))


@given(snapshots(), policies(), pressures)
def test_an_image_in_use_loses_no_tag(snapshot: Snapshot, policy: RetentionPolicy, pressure: FreeTarget | None) -> None:
    plan = plan_prune(snapshot, policy, NOW, pressure=pressure)
    used = {item.image for item in snapshot.containers}
    assert not {image for image, _ in _names_lost(plan)} & used


@given(snapshots(), policies(), pressures)
def test_a_tag_goes_alone_only_while_another_stays(
    snapshot: Snapshot, policy: RetentionPolicy, pressure: FreeTarget | None
) -> None:
    plan = plan_prune(snapshot, policy, NOW, pressure=pressure)
    gone = set(_removed(plan))
    tags = [(item.image.id, item.reference) for item in plan.items if isinstance(item, RemoveTag)]
    for image in snapshot.images:
        alone = {reference for image_id, reference in tags if image_id == image.id}
        assert alone <= set(image.tags)
        assert not alone or (image.id not in gone and alone != set(image.tags))


@given(snapshots(), policies(), pressures)
def test_marginal_bytes_add_up_to_the_difference_by_brute_force(
    snapshot: Snapshot, policy: RetentionPolicy, pressure: FreeTarget | None
) -> None:
    plan = plan_prune(snapshot, policy, NOW, pressure=pressure)
    left = {image.id: image.layers for image in snapshot.images}
    for item in plan.items:
        if isinstance(item, RemoveImage):
            before = bytes_on_disk(left.values())
            del left[item.image.id]
            assert item.marginal_bytes == before - bytes_on_disk(left.values())
    for kept in plan.kept:
        others = [layers for image_id, layers in left.items() if image_id != kept.image.id]
        assert kept.marginal_bytes == bytes_on_disk(left.values()) - bytes_on_disk(others)
    assert sum(plan.kept_bytes.values()) == bytes_on_disk(left.values())


@given(images(), st.randoms(use_true_random=False))
def test_marginal_bytes_of_any_order_of_removals_are_the_differences(
    stored: tuple[ImageState, ...], random: Random
) -> None:
    layers = [image.layers for image in stored]
    order = random.sample(range(len(layers)), len(layers))
    left = dict(enumerate(layers))
    for removal, size in zip(order, marginal_bytes(layers, order), strict=True):
        before = bytes_on_disk(left.values())
        del left[removal]
        assert size == before - bytes_on_disk(left.values())


@given(snapshots(), policies(), pressures)
def test_every_image_is_removed_or_kept_once_with_rule_and_reason(
    snapshot: Snapshot, policy: RetentionPolicy, pressure: FreeTarget | None
) -> None:
    plan = plan_prune(snapshot, policy, NOW, pressure=pressure)
    found = [*_removed(plan), *(item.image.id for item in plan.kept)]
    assert sorted(found) == sorted(image.id for image in snapshot.images)
    assert all(part.rule and part.reason for part in (*plan.items, *plan.kept))


@given(snapshots(), policies(), pressures)
def test_children_go_before_parents_and_no_parent_of_what_stays_goes(
    snapshot: Snapshot, policy: RetentionPolicy, pressure: FreeTarget | None
) -> None:
    left = {image.id: image for image in snapshot.images}
    for gone in _removed(plan_prune(snapshot, policy, NOW, pressure=pressure)):
        assert all(image.parent != gone for image in left.values())
        del left[gone]


_RELAXED: dict[str, object] = {"keep_last": 0, "max_age": timedelta(), "min_age": timedelta(), "keep_tags": ()}
_STRICTER = st.sampled_from(
    [
        *({"otherwise": {name: value}} for name, value in _RELAXED.items()),
        {"scope": Scope.HOST},
        {"keep": ()},
        {"keep_deployed": 0},
        {"allow_unrecoverable": True},
        {"dangling_age": timedelta()},
        {"leftovers_age": timedelta()},
        {"exited_containers_age": timedelta()},
    ]
)


@given(snapshots(), policies(), _STRICTER, st.none() | st.just(EVERYTHING))
def test_a_stricter_policy_only_adds(
    snapshot: Snapshot, policy: RetentionPolicy, change: dict[str, object], pressure: FreeTarget | None
) -> None:
    """Without pressure, and where there is no end to it: in between, what goes first decides what has to go at all.

    An untagged step is evicted with its child, for the child's bytes. When that has expired before, and the step frees
    nothing by itself, it stays until it is old enough.
    """
    if isinstance(otherwise := change.get("otherwise"), dict):
        update = {
            "otherwise": policy.otherwise.model_copy(update=otherwise),
            "rules": tuple(rule.model_copy(update=otherwise) for rule in policy.rules),
        }
    else:
        update = dict(change)
    stricter = policy.model_copy(update=update)
    before, after = (plan_prune(snapshot, chosen, NOW, pressure=pressure) for chosen in (policy, stricter))
    for_nothing = {
        (item.image.id, "the image") for item in after.kept if item.rule == FREES_NOTHING and not item.image.tags
    }
    assert _names_lost(before) <= _names_lost(after) | for_nothing


@st.composite
def _protected(draw: st.DrawFn) -> tuple[Snapshot, RetentionPolicy, Snapshot, RetentionPolicy]:
    snapshot, policy = draw(snapshots()), draw(policies())
    some = image_id(draw(st.sampled_from(IMAGES)))
    ways: list[tuple[Snapshot, RetentionPolicy]] = [
        (replace(snapshot, containers=(*snapshot.containers, container("new", some[7:]))), policy),
        (replace(snapshot, leases=(*snapshot.leases, draw(leases()))), policy),
        (only(snapshot, some, deployed=0), policy),
        (only(snapshot, some, labels={"caisson.keep-until": "2027-01-01"}), policy),
        (only(snapshot, some, last_used=NOW), policy),
        (snapshot, policy.model_copy(update={"keep": (*policy.keep, draw(st.sampled_from(TAGS)))})),
        (replace(snapshot, problems=("a read failed",)), policy),
    ]
    return (snapshot, policy, *draw(st.sampled_from(ways)))


@given(_protected(), st.none() | st.just(EVERYTHING))
def test_a_protection_only_removes_from_the_plan(
    case: tuple[Snapshot, RetentionPolicy, Snapshot, RetentionPolicy], pressure: FreeTarget | None
) -> None:
    snapshot, policy, other_snapshot, other_policy = case
    before = plan_prune(snapshot, policy, NOW, pressure=pressure)
    after = plan_prune(other_snapshot, other_policy, NOW, pressure=pressure)
    assert _names_lost(after) <= _names_lost(before)


@given(snapshots(), policies(), st.none() | st.just(EVERYTHING), st.data())
def test_unknown_dates_never_make_anything_older(
    snapshot: Snapshot, policy: RetentionPolicy, pressure: FreeTarget | None, data: st.DataObject
) -> None:
    unknown = snapshot
    for image in snapshot.images:
        forgotten = data.draw(st.sets(st.sampled_from(["first_seen", "last_used"])))
        unknown = only(unknown, image.id, **dict.fromkeys(forgotten))
    if data.draw(st.booleans()):
        unknown = replace(
            unknown,
            containers=tuple(replace(item, finished=None) for item in unknown.containers),
            anonymous_volumes=tuple(replace(item, last_used=None) for item in unknown.anonymous_volumes),
        )
    known_plan, plan = (plan_prune(host, policy, NOW, pressure=pressure) for host in (snapshot, unknown))
    assert _names_lost(plan) <= _names_lost(known_plan)
    # The build cache goes by size, so other things that stay may leave more of it to go.
    kinds = ("container", "volume")
    ids = [{getattr(i, "name", "") for i in p.items if i.kind in kinds} for p in (plan, known_plan)]
    assert ids[0] <= ids[1]


@given(snapshots(), policies())
def test_under_the_high_threshold_nothing_goes_without_expiry(snapshot: Snapshot, policy: RetentionPolicy) -> None:
    ages = timedelta(days=10_000)
    never = {"max_age": None}
    patient = _reserve_only(policy).model_copy(
        update={
            "otherwise": policy.otherwise.model_copy(update=never),
            "rules": tuple(rule.model_copy(update=never) for rule in policy.rules),
            "dangling_age": ages,
            "leftovers_age": ages,
            "exited_containers_age": None,
            "anonymous_volumes_age": None,
        }
    )
    assert not plan_prune(snapshot, patient, NOW, pressure=None).items


@given(snapshots(), policies(), targets)
def test_nothing_is_planned_beyond_the_low_threshold(
    snapshot: Snapshot, policy: RetentionPolicy, target: FreeTarget
) -> None:
    """ "stops planning when the low threshold (bytes and inodes) would be reached by estimate" """
    plan = plan_prune(snapshot, policy, NOW, pressure=target)
    usage = snapshot.usage
    used_bytes, used_inodes = usage.total_bytes - usage.free_bytes, usage.total_inodes - usage.free_inodes

    def is_short(freed: int) -> bool:
        inodes = usage.free_inodes + freed * used_inodes // used_bytes
        return usage.free_bytes + freed < target.free_bytes or (
            bool(usage.total_inodes) and inodes < target.free_inodes
        )

    freed = sum(item.marginal_bytes for item in plan.items if item.phase not in ("evicted", "cache-evicted"))
    evicted = [item for item in plan.items if isinstance(item, RemoveImage) and item.phase == "evicted"]
    for unit in dict.fromkeys(item.unit for item in evicted):
        assert is_short(freed)
        freed += sum(item.marginal_bytes for item in evicted if item.unit == unit)
    for item in plan.items:
        if item.phase == "cache-evicted":
            assert is_short(freed)
            assert item.marginal_bytes == 0 or is_short(freed + item.marginal_bytes - 1)
            freed += item.marginal_bytes
    assert plan.reaches_target is not is_short(freed)


@given(snapshots(), policies(), pressures)
def test_a_plan_is_read_back_from_its_json_as_it_was(
    snapshot: Snapshot, policy: RetentionPolicy, pressure: FreeTarget | None
) -> None:
    plan = plan_prune(snapshot, policy, NOW, pressure=pressure)
    assert plan_from_json(plan_to_json(plan)) == plan
    assert RetentionPolicy.model_validate_json(policy.model_dump_json()) == policy


@given(snapshots(), policies(), pressures)
def test_where_nothing_has_changed_all_of_the_plan_is_still_eligible(
    snapshot: Snapshot, policy: RetentionPolicy, pressure: FreeTarget | None
) -> None:
    plan = plan_from_json(plan_to_json(plan_prune(snapshot, policy, NOW, pressure=pressure)))
    again, gone = Recheck(snapshot, policy, NOW), set()
    for item in plan.items:
        assert again.verdict(item, removed=gone).allowed
        if isinstance(item, RemoveImage):
            gone.add(item.image.id)
    # Applied a second time, none of it is left to do.
    left = replace(snapshot, images=tuple(image for image in snapshot.images if image.id not in gone))
    assert all(recheck(item, left, policy, NOW).decision == "gone" for item in plan.items if item.kind == "image")


@st.composite
def _meanwhile(draw: st.DrawFn) -> tuple[Snapshot, Snapshot]:
    """A host when the plan is made, and when it is applied: others tagged, ran, leased, removed and pulled."""
    before = draw(snapshots())
    after = before
    for _ in range(draw(st.integers(1, 3))):
        some = image_id(draw(st.sampled_from(IMAGES)))
        after = draw(
            st.sampled_from(
                [
                    replace(after, containers=(*after.containers[:1], draw(_another(containers)))),
                    replace(after, containers=()),
                    replace(after, leases=(*after.leases, draw(leases()))),
                    only(after, some, tags=draw(st.lists(st.sampled_from(TAGS), max_size=2, unique=True).map(tuple))),
                    only(after, some, last_used=NOW),
                    replace(after, images=tuple(image for image in after.images if image.id != some)),
                    draw(snapshots()),
                ]
            )
        )
    return before, after


def _another(strategy: st.SearchStrategy[ContainerState]) -> st.SearchStrategy[ContainerState]:
    return strategy.map(lambda item: replace(item, id=ContainerID("id-another"), name="another"))


@given(_meanwhile(), policies(), pressures, st.sampled_from([0, 1, 60 * 24]))
def test_what_is_protected_when_the_plan_is_applied_stays_whatever_was_planned(
    hosts: tuple[Snapshot, Snapshot], policy: RetentionPolicy, pressure: FreeTarget | None, minutes: int
) -> None:
    before, after = hosts
    later = NOW + timedelta(minutes=minutes)
    again, oracle = Recheck(after, policy, later), Oracle(after, policy, later)
    by_id = {image.id: image for image in after.images}
    lost: dict[ImageID, set[str]] = {}
    for item in plan_prune(before, policy, NOW, pressure=pressure).items:
        allowed = again.verdict(item).allowed
        if isinstance(item, RemoveImage) and allowed:
            image = by_id[item.image.id]
            assert not oracle.is_protected(image)
            assert set(image.tags) <= set(item.image.tags)
            assert all(other.parent != image.id for other in after.images)
        if isinstance(item, RemoveTag) and allowed:
            lost.setdefault(item.image.id, set()).add(item.reference)
    for image_id_, tags in lost.items():
        assert tags < set(by_id[image_id_].tags)
        assert not any(c.image == image_id_ for c in after.containers)


@given(snapshots(), policies(), pressures, st.integers(0, 60))
def test_a_lease_that_is_taken_between_plan_and_apply_is_honoured(
    snapshot: Snapshot, policy: RetentionPolicy, pressure: FreeTarget | None, minutes: int
) -> None:
    plan = plan_prune(snapshot, policy, NOW, pressure=pressure)
    everything = LeaseState(
        "build-9", frozenset(image.id for image in snapshot.images), frozenset(), NOW + timedelta(minutes=61)
    )
    leased = replace(snapshot, leases=(everything,))
    again = Recheck(leased, policy, NOW + timedelta(minutes=minutes))
    assert not any(again.verdict(item).allowed for item in plan.items if item.kind in ("image", "tag"))
