"""An apply removes what is planned and still eligible: the verdict on a fresh snapshot."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from caisson.retention.prune_plan import PlanItem
from caisson.retention.recheck import Verdict, recheck
from caisson.snapshot import CacheEntry, ImageState, Snapshot, VolumeState
from tests.prune_hosts import MIB, NOW, container, days_ago, host, image, image_id, lease, plan, policy

OLD = image("old", "team/app:1", "team/app:2")
EXPIRED = plan(host(OLD)).items[0]
LRU = image("lru", "team/app:1", idle=20)
EVICTED = plan(host(LRU), free_mib=1000).items[0]
LATER = NOW + timedelta(minutes=5)


def verdict(item: PlanItem, fresh: Snapshot, **more: Any) -> Verdict:
    return recheck(item, fresh, more.pop("chosen", policy()), LATER, **more)


def test_what_is_as_it_was_may_go() -> None:
    assert verdict(EXPIRED, host(OLD)).allowed
    assert verdict(EVICTED, host(LRU)).allowed


@pytest.mark.parametrize(
    ("fresh", "rule"),
    [
        (host(OLD, containers=(container("new", "old", "created"),)), "in-use"),
        (host(OLD, leases=(lease(references=["team/app:2"]),)), "lease"),
        (host(replace(OLD, tags=(*OLD.tags, "team/app:3"))), "changed"),
        (host(replace(OLD, last_used=NOW)), "min-age"),
        (host(replace(OLD, last_used=days_ago(3))), "changed"),
        (host(replace(OLD, deployed=0)), "deployed"),
        (host(replace(OLD, registry_digests=())), "unrecoverable"),
        (host(OLD, image("child", "team/child:1", parent=image_id("old"), layers=())), "ancestor"),
        (host(OLD, problems=("GET /images/json answered 500",)), "incomplete"),
    ],
)
def test_what_changed_since_the_plan_denies_it(fresh: Snapshot, rule: str) -> None:
    found = verdict(EXPIRED, fresh)
    assert (found.decision, found.rule) == ("deny", rule)
    assert found.reason


def test_a_stricter_policy_since_the_plan_denies_it() -> None:
    assert verdict(EXPIRED, host(OLD), chosen=policy(keep=["team/*"])).rule == "keep-pattern"


def test_what_is_gone_is_no_failure() -> None:
    assert verdict(EXPIRED, host()).decision == "gone"
    assert verdict(EXPIRED, host(OLD), removed={OLD.id}).decision == "gone"


def test_a_child_that_this_apply_removed_is_no_hindrance() -> None:
    child = image("child", parent=OLD.id, layers=())
    assert verdict(EXPIRED, host(OLD, child), removed={child.id}).allowed


def test_what_was_to_be_evicted_and_was_used_since_stays() -> None:
    used = replace(LRU, last_used=days_ago(19))
    assert verdict(EVICTED, host(used)).reason == "it was used after the plan was made"


def test_a_tag_goes_only_while_it_points_to_the_planned_image_and_another_stays() -> None:
    chosen = policy(otherwise={"keep_tags": ["v*"]})
    both = image("both", "team/app:sha-1", "team/app:v1")
    (item,) = plan(host(both), chosen).items
    assert verdict(item, host(both), chosen=chosen).allowed
    moved = (replace(both, tags=("team/app:v1",)), image("new", "team/app:sha-1", idle=0))
    assert verdict(item, host(*moved), chosen=chosen).decision == "gone"
    used = host(both, containers=(container("web", "both"),))
    assert verdict(item, used, chosen=chosen).rule == "in-use"
    without: ImageState = replace(both, tags=("team/app:sha-1",))
    assert verdict(item, host(without), chosen=chosen).reason == "none of the image's tags would be left"
    young = replace(both, last_used=days_ago(3))
    assert verdict(item, host(young), chosen=chosen).rule == "changed"


def test_a_container_that_was_started_again_stays() -> None:
    chosen = policy(scope="host", exited_containers_age="7d")
    old = container("old", "a", finished=days_ago(8))
    (item,) = plan(host(containers=(old,)), chosen).items
    assert verdict(item, host(containers=(old,)), chosen=chosen).allowed
    running = replace(old, state="running")
    assert verdict(item, host(containers=(running,)), chosen=chosen).decision == "deny"
    assert verdict(item, host(), chosen=chosen).decision == "gone"


def test_a_volume_that_a_container_has_again_stays() -> None:
    chosen = policy(scope="host", anonymous_volumes_age="7d")
    old = VolumeState("old", MIB, 0, days_ago(8))
    (item,) = plan(host(anonymous_volumes=(old,)), chosen).items
    assert verdict(item, host(anonymous_volumes=(old,)), chosen=chosen).allowed
    assert verdict(item, host(anonymous_volumes=(replace(old, users=1),)), chosen=chosen).decision == "deny"
    assert verdict(item, host(), chosen=chosen).decision == "gone"


def test_cache_is_not_taken_below_a_reserve_that_was_raised() -> None:
    chosen = policy(build_cache={"reserved_space": "0", "max_used_space": "10m"})
    entries = (CacheEntry("a", "regular", 20 * MIB),)
    (item,) = plan(host(build_cache=entries), chosen).items
    assert verdict(item, host(build_cache=entries), chosen=chosen).allowed
    raised = policy(build_cache={"reserved_space": "15m", "max_used_space": "15m"})
    assert verdict(item, host(build_cache=entries), chosen=raised).decision == "deny"
    assert verdict(item, host(), chosen=chosen).decision == "gone"


def test_cache_is_not_taken_for_free_space_that_the_policy_no_longer_wants_or_below_its_reserve() -> None:
    cache = {"reserved_space": "0", "max_used_space": "10m", "min_free_space": "200m"}
    entries = (CacheEntry("a", "regular", 20 * MIB),)
    (item,) = plan(host(build_cache=entries), policy(build_cache=cache)).items
    assert verdict(item, host(build_cache=entries), chosen=policy(build_cache=cache)).allowed
    for change in ({"min_free_space": ""}, {"min_free_space": "150m"}, {"reserved_space": "5m"}):
        chosen = policy(build_cache={**cache, **change})
        assert verdict(item, host(build_cache=entries), chosen=chosen).decision == "deny", change
