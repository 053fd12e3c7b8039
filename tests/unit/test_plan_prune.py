"""What a prune plans: which things go, in which order, and what each frees."""

from __future__ import annotations

from dataclasses import replace

import pytest

from caisson.disk import DiskUsage
from caisson.retention.plan import plan_prune
from caisson.retention.prune_plan import FreeTarget, PruneBuildCache, RemoveContainer, RemoveVolume
from caisson.snapshot import CacheEntry, VolumeState
from tests.prune_hosts import (
    MIB,
    NOW,
    USAGE,
    container,
    days_ago,
    host,
    image,
    image_id,
    kept_by,
    plan,
    policy,
    removed,
    rules,
    stack,
    untagged,
)

WITHOUT_CEILING = {"max_used_space": "", "reserved_space": "0"}


def test_without_pressure_nothing_goes_before_its_time() -> None:
    found = plan(host(image("a", "team/app:1", idle=29), image("b", idle=1.9)))
    assert not found.items
    assert kept_by(found) == {"a": "not-expired", "b": "not-expired"}
    assert [item.marginal_bytes for item in found.kept] == [10 * MIB] * 2


def test_an_empty_max_age_never_expires_anything() -> None:
    found = plan(host(image("a", "team/app:1", idle=9999)), policy(otherwise={"max_age": ""}))
    assert kept_by(found) == {"a": "not-expired"}


def test_retention_decides_on_names_by_their_own_repository() -> None:
    slow = {"repositories": "slow/*", "keep_last": 0, "max_age": "365d"}
    both = image("both", "team/app:1", "slow/app:1")
    found = plan(host(both), policy(rules=[slow]))
    assert untagged(found) == ["team/app:1"]
    assert kept_by(found) == {"both": "not-expired"}
    assert found.reclaimable_bytes == 0


def test_the_name_of_an_unfinished_build_goes_and_so_does_its_image_when_it_has_no_other() -> None:
    half = image("half", "caisson.local/build:0123456789ab", idle=1.5, pushed=False)
    done = image("done", "team/app:1", "caisson.local/build:ba9876543210", idle=1.5)
    found = plan(host(half, done))
    assert rules(found) == {"half": "leftover"}
    assert untagged(found) == ["caisson.local/build:ba9876543210"]


def test_an_image_pulled_by_digest_is_no_dangling_one_but_of_its_repository() -> None:
    pulled = image("pulled", registry_digests=(f"team/app@sha256:{'1' * 64}",), idle=10)
    assert kept_by(plan(host(pulled))) == {"pulled": "not-expired"}
    assert rules(plan(host(replace(pulled, first_seen=days_ago(40), last_used=days_ago(40))))) == {"pulled": "expired"}


def test_the_order_is_leftovers_containers_volumes_cache_expired_evicted() -> None:
    everything = host(
        image("expired", "team/app:1", idle=40),
        image("evicted", "team/app:2", idle=20),
        image("dangling", idle=10),
        containers=(container("done", "gone", finished=days_ago(9)),),
        anonymous_volumes=(VolumeState("f" * 64, MIB, 0, days_ago(9)),),
        build_cache=(CacheEntry("c", "regular", 30 * MIB),),
    )
    chosen = policy(
        scope="host",
        exited_containers_age="7d",
        anonymous_volumes_age="7d",
        build_cache={"reserved_space": "0", "max_used_space": "20m"},
    )
    found = plan(everything, chosen, free_mib=1000)
    assert [item.phase for item in found.items] == [
        "leftovers",
        "containers",
        "volumes",
        "build-cache",
        "expired",
        "evicted",
        "cache-evicted",
    ]
    assert removed(found) == ["dangling", "expired", "evicted"]
    assert not found.reaches_target
    assert found.missing_bytes == (1000 - 100 - 30 - 1 - 30) * MIB


def test_children_go_before_their_parents_whatever_their_age() -> None:
    bottom = image("bottom", idle=300)
    step = image("step", idle=300, parent=image_id("bottom"))
    top = image("top", "team/app:1", idle=40, parent=image_id("step"))
    assert removed(plan(host(bottom, step, top))) == ["top", "step", "bottom"]


def test_what_has_had_its_time_stays_while_a_child_of_it_has_not() -> None:
    base = image("base", "team/base:1", layers=())
    child = image("child", "slow/app:1", layers=(), idle=40, parent=image_id("base"))
    slow = {"repositories": "slow/*", "keep_last": 0, "max_age": ""}
    found = plan(host(base, child), policy(rules=[slow]))
    assert not found.items
    assert kept_by(found) == {"base": "ancestor", "child": "not-expired"}


def test_the_least_worth_keeping_goes_first_and_only_as_much_as_is_needed() -> None:
    images = [image(name, f"team/app:{name}", idle=idle) for name, idle in (("a", 5), ("b", 20), ("c", 10))]
    found = plan(host(*images), free_mib=115)
    assert removed(found) == ["b", "c"]
    assert found.reaches_target
    assert kept_by(found) == {"a": "not-needed"}
    assert not plan(host(*images), free_mib=100).items


def test_the_weight_takes_bytes_and_the_cost_of_having_it_back_into_account() -> None:
    small_and_old = image("small", "a/a:1", idle=25, layers=stack(("s", 1)))
    large = image("large", "b/b:1", idle=5, layers=stack(("l", 500)))
    dear = image("dear", "c/c:1", idle=5, layers=stack(("d", 500)), pushed=False, build_seconds=3000)
    chosen = policy(allow_unrecoverable=True)
    assert removed(plan(host(small_and_old, large, dear), chosen, free_mib=101)) == ["large"]
    assert removed(plan(host(small_and_old, large, dear), chosen, free_mib=999))[0] == "large"


def test_images_with_the_same_layers_go_together_as_one_unit() -> None:
    twins = [image(name, f"team/{name}:1", idle=10, layers=stack(("same", 100))) for name in ("a", "b")]
    single = image("c", "team/c:1", idle=10, layers=stack(("c", 50)))
    found = plan(host(*twins, single), free_mib=150)
    assert removed(found) == ["a", "b"]
    assert [item.marginal_bytes for item in found.items] == [0, 100 * MIB]
    assert len({item.unit for item in found.items}) == 1  # type: ignore[union-attr]


def test_a_unit_is_as_young_as_its_youngest_and_as_dear_as_its_dearest() -> None:
    layers = stack(("same", 100))
    twins = [
        image("a", "team/a:1", idle=29, layers=layers),
        image("b", "team/b:1", idle=2, layers=layers),
    ]
    single = image("c", "team/c:1", idle=10, layers=stack(("c", 50)))
    assert removed(plan(host(*twins, single), free_mib=101)) == ["c"]


def test_an_image_goes_with_the_untagged_steps_that_nothing_else_stands_on() -> None:
    base = image("base", "team/base:1", idle=5, layers=stack(("base", 10)))
    step = image("step", idle=1.9, layers=stack(("base", 10), ("step", 100)), parent=image_id("base"))
    layers = stack(("base", 10), ("step", 100), ("top", 1))
    top = image("top", "team/app:1", idle=5, layers=layers, parent=image_id("step"))
    other = image("other", "team/other:1", idle=5, layers=stack(("other", 20)))
    found = plan(host(base, step, top, other), free_mib=200)
    assert removed(found) == ["top", "step"]
    assert [item.marginal_bytes for item in found.items] == [MIB, 100 * MIB]


def test_steps_that_two_images_stand_on_go_after_both() -> None:
    lower = stack(("step", 100))
    step = image("step", idle=1.5, layers=lower)
    tops = [
        image(name, f"team/{name}:1", idle=5, layers=(*lower, *stack((name, 1))), parent=image_id("step"))
        for name in ("a", "b")
    ]
    found = plan(host(step, *tops), free_mib=1000)
    assert removed(found) == ["a", "b", "step"]
    assert [item.marginal_bytes for item in found.items] == [MIB, MIB, 100 * MIB]


def test_what_would_free_nothing_stays_under_pressure() -> None:
    lower = stack(("base", 100))
    base = image("base", "team/base:1", idle=20, layers=lower)
    pinned = image("pinned", "keep/app:1", idle=20, layers=(*lower, *stack(("own", 1))))
    found = plan(host(base, pinned), policy(keep=["keep/*"]), free_mib=1000)
    assert not found.items
    assert kept_by(found) == {"base": "frees-nothing", "pinned": "keep-pattern"}
    assert found.kept_bytes == {"keep-pattern": MIB, "several": 100 * MIB}


def test_inodes_alone_are_pressure_too_and_bytes_that_suffice_are_not_enough() -> None:
    usage = DiskUsage("/", 1000 * MIB, 900 * MIB, 1000, 100)
    images = [image(name, f"team/app:{name}", idle=idle) for name, idle in (("a", 5), ("b", 20))]
    found = plan_prune(host(*images, usage=usage), policy(), NOW, pressure=FreeTarget(0, 150))
    # 900 inodes on 100 MiB: 10 MiB stand for 90 inodes.
    assert removed(found) == ["b"]
    assert found.reclaimable_inodes == 90
    assert found.reaches_target
    without_inodes = replace(usage, total_inodes=0, free_inodes=0)
    assert not plan_prune(host(*images, usage=without_inodes), policy(), NOW, pressure=FreeTarget(0, 150)).items


def test_shared_layers_are_freed_by_the_last_of_their_images() -> None:
    images = [
        image(f"i{n:02}", f"team/app:{n}", idle=40 + n, layers=stack(("base", 100), (f"own{n}", 1))) for n in range(20)
    ]
    found = plan(host(*images))
    assert [item.marginal_bytes for item in found.items] == [MIB] * 19 + [101 * MIB]
    assert found.reclaimable_bytes == 120 * MIB


@pytest.mark.parametrize(
    ("cache", "keep", "rule"),
    [
        ({"max_used_space": "40m"}, 40, "cache-ceiling"),
        ({"max_used_space": "200m"}, None, ""),
        ({"max_used_space": "40m", "reserved_space": "40m"}, 40, "cache-ceiling"),
        ({"max_used_space": "", "min_free_space": "130m"}, 70, "cache-min-free"),
        ({"max_used_space": "80m", "min_free_space": "130m"}, 70, "cache-min-free"),
        ({"max_used_space": "40m", "min_free_space": "110m"}, 40, "cache-ceiling"),
        ({"max_used_space": "", "min_free_space": "900m", "reserved_space": "30m"}, 30, "cache-min-free"),
        ({"max_used_space": "", "min_free_space": ""}, None, ""),
    ],
)
def test_build_cache_goes_down_to_its_ceiling_or_the_free_space_but_not_below_the_reserve(
    cache: dict[str, str], keep: int | None, rule: str
) -> None:
    snapshot = host(build_cache=(CacheEntry("a", "regular", 60 * MIB), CacheEntry("b", "regular", 40 * MIB)))
    items = plan(snapshot, policy(build_cache={"reserved_space": "0", **cache})).items
    if keep is None:
        assert not items
        return
    (item,) = items
    assert isinstance(item, PruneBuildCache)
    assert (item.keep_bytes, item.rule, item.marginal_bytes) == (keep * MIB, rule, (100 - keep) * MIB)


def test_the_estimate_counts_no_cache_that_is_in_use_or_shared_with_images() -> None:
    entries = (
        CacheEntry("a", "regular", 60 * MIB, shared=True),
        CacheEntry("b", "regular", 30 * MIB, in_use=True),
        CacheEntry("c", "regular", 10 * MIB),
    )
    (item,) = plan(host(build_cache=entries), policy(build_cache={"max_used_space": "0", "reserved_space": "0"})).items
    assert item.marginal_bytes == 10 * MIB


def test_cache_that_images_hold_too_is_not_counted_against_the_ceiling() -> None:
    """BuildKit does not count it either, and would free nothing."""
    entries = (CacheEntry("a", "regular", 30 * MIB), CacheEntry("b", "regular", 90 * MIB, shared=True))
    ceiling = policy(build_cache={"max_used_space": "40m", "reserved_space": "0"})
    assert plan(host(build_cache=entries), ceiling).items == ()
    assert plan(host(build_cache=entries), policy(build_cache={"max_used_space": "20m", "reserved_space": "0"})).items


def test_under_pressure_cache_goes_down_to_its_reserve_when_images_are_not_enough() -> None:
    entries = (CacheEntry("a", "regular", 100 * MIB),)
    snapshot = host(image("a", "team/app:1", idle=5), build_cache=entries)
    chosen = policy(build_cache={"max_used_space": "", "reserved_space": "30m"})
    assert [item.phase for item in plan(snapshot, chosen, free_mib=110).items] == ["evicted"]
    _, cache = plan(snapshot, chosen, free_mib=130).items
    assert isinstance(cache, PruneBuildCache)
    assert cache.keep_bytes == 80 * MIB
    _, cache = plan(snapshot, chosen, free_mib=900).items
    assert isinstance(cache, PruneBuildCache)
    assert cache.keep_bytes == 30 * MIB


def test_exited_containers_go_after_their_age_and_their_images_stay_until_the_next_plan() -> None:
    old = container("old", "a", finished=days_ago(8), made_by_caisson=True, writable_bytes=MIB)
    stay = (
        container("young", "a", finished=days_ago(6), made_by_caisson=True),
        container("unknown", "a", made_by_caisson=True),
        container("foreign", "a", finished=days_ago(8)),
        container("running", "a", "running", finished=days_ago(8), made_by_caisson=True),
        container("created", "a", "created", finished=days_ago(8), made_by_caisson=True),
        container("builder", "a", finished=days_ago(8), made_by_caisson=True, labels={"caisson.build": "x"}),
        container("kept", "a", finished=days_ago(8), made_by_caisson=True, labels={"caisson.keep-until": "2030-01-01"}),
    )
    snapshot = host(image("a", "team/app:1"), containers=(*stay, old))
    (item,) = plan(snapshot, policy(exited_containers_age="7d")).items
    assert isinstance(item, RemoveContainer)
    assert (item.name, item.marginal_bytes) == ("old", MIB)
    assert not plan(snapshot).items
    on_host = plan(snapshot, policy(exited_containers_age="7d", scope="host")).items
    assert [item.name for item in on_host if isinstance(item, RemoveContainer)] == ["foreign", "old"]


def test_anonymous_volumes_stay_by_default_and_go_only_host_wide_unused_and_aged() -> None:
    volumes = (
        VolumeState("old", MIB, 0, days_ago(8)),
        VolumeState("young", MIB, 0, days_ago(6)),
        VolumeState("used", MIB, 1, days_ago(8)),
        VolumeState("unknown", MIB, 0, None),
    )
    snapshot = host(anonymous_volumes=volumes)
    assert not plan(snapshot, policy(scope="host")).items
    assert not plan(snapshot, policy(anonymous_volumes_age="7d")).items
    (item,) = plan(snapshot, policy(scope="host", anonymous_volumes_age="7d")).items
    assert isinstance(item, RemoveVolume)
    assert item.name == "old"


def test_with_a_failed_read_containers_volumes_and_cache_stay_as_well() -> None:
    snapshot = host(
        containers=(container("old", "a", finished=days_ago(80)),),
        anonymous_volumes=(VolumeState("old", MIB, 0, days_ago(80)),),
        build_cache=(CacheEntry("a", "regular", 900 * MIB),),
    )
    cache = {"max_used_space": "0", "reserved_space": "0"}
    chosen = policy(scope="host", exited_containers_age="1d", anonymous_volumes_age="1d", build_cache=cache)
    assert len(plan(snapshot, chosen).items) == 3
    assert not plan(replace(snapshot, problems=("GET /volumes timed out",)), chosen, free_mib=1000).items


def test_every_item_and_every_kept_image_has_a_rule_and_a_reason() -> None:
    snapshot = host(image("a", "team/app:1"), image("b"), image("c", "team/app:3", idle=2))
    found = plan(snapshot, free_mib=1000)
    assert len(found.items) + len(found.kept) == 3
    assert all(part.rule and part.reason for part in (*found.items, *found.kept))


def test_a_target_and_a_moment_are_validated() -> None:
    with pytest.raises(ValueError, match="free_inodes: -1 is negative"):
        FreeTarget(1, -1)
    with pytest.raises(ValueError, match=r"now: .* has no time zone"):
        plan_prune(host(), policy(), NOW.replace(tzinfo=None), pressure=None)


def test_a_ring_of_parents_which_no_engine_makes_goes_nowhere_and_ends() -> None:
    ring = [image("a", parent=image_id("b"), layers=()), image("b", parent=image_id("a"), layers=())]
    assert removed(plan(host(*ring, usage=USAGE), free_mib=1000)) == []


def test_the_order_in_which_tags_are_listed_changes_no_reason() -> None:
    tags = ("team/app:1", "other/app:1")
    plans = [plan(host(image("a", *order))) for order in (tags, tags[::-1])]
    assert plans[0] == plans[1]
    young = [plan(host(image("a", *order, idle=2))) for order in (tags, tags[::-1])]
    assert young[0] == young[1]
    keep = policy(keep=["**:1"])
    kept = [plan(host(image("a", *order)), keep) for order in (tags, tags[::-1])]
    assert kept[0] == kept[1]


def test_a_parent_of_what_stays_keeps_its_expired_names_too() -> None:
    parent = image("parent", "team/base:1", "slow/base:1", layers=())
    child = image("child", "slow/app:1", layers=(), idle=40, parent=image_id("parent"))
    chosen = policy(rules=[{"repositories": "slow/*", "keep_last": 0, "max_age": ""}])
    assert untagged(plan(host(parent), chosen)) == ["team/base:1"]
    assert not plan(host(parent, child), chosen).items


def test_a_parent_stays_under_pressure_while_a_child_without_known_layers_does() -> None:
    parent = image("parent", "team/base:1", idle=20)
    child = image("child", "team/app:1", idle=20, layers=(), parent=image_id("parent"))
    found = plan(host(parent, child), free_mib=1000)
    assert not found.items
    pinned = plan(host(parent, child), policy(keep=["team/app"]), free_mib=1000)
    assert kept_by(pinned) == {"parent": "ancestor", "child": "keep-pattern"}
