"""Each protection: an image that would go stays for this reason alone, and goes without it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from caisson.retention.protections import PROTECTIONS
from caisson.snapshot import ImageState, LeaseState
from tests.prune_hosts import (
    NOW,
    container,
    days_ago,
    host,
    image,
    image_id,
    kept_by,
    lease,
    plan,
    policy,
    removed,
    stack,
)
from tests.prune_hosts import untagged as tags_removed

OLD = image("old", "team/app:1")


def test_an_old_image_without_any_protection_goes() -> None:
    assert removed(plan(host(OLD))) == ["old"]


@pytest.mark.parametrize("state", ["created", "running", "paused", "restarting", "exited", "dead"])
def test_an_image_in_use_by_a_container_in_any_state_stays_with_all_its_tags(state: str) -> None:
    used = image("old", "team/app:1", "team/app:2", "other/app:1")
    found = plan(host(used, containers=(container("web", "old", state),)))
    assert kept_by(found) == {"old": "in-use"}
    assert not found.items


def test_a_lease_holds_by_image_id_and_by_any_spelling_of_a_reference() -> None:
    hub = image("hub", "debian:latest")
    by_digest = image("digest", registry_digests=(f"debian@sha256:{'1' * 64}",), pushed=False)
    everything = host(OLD, hub, by_digest)
    assert len(removed(plan(everything))) == 3
    held = lease(images=["old"], references=["docker.io/library/debian", f"debian:x@sha256:{'1' * 64}"])
    found = plan(replace(everything, leases=(held,)))
    assert kept_by(found) == {"old": "lease", "hub": "lease", "digest": "lease"}


def test_a_lease_on_a_digest_holds_a_tagged_image_that_a_registry_has_under_it() -> None:
    held = lease(references=[f"team/app@sha256:{'0' * 64}"])
    assert kept_by(plan(host(OLD, leases=(held,)))) == {"old": "lease"}


def test_a_lease_lasts_while_its_holder_lives_and_may_hold_everything() -> None:
    living = LeaseState.of_names("build-1", ["sha256:old", "team/web:1"])
    assert kept_by(plan(host(OLD, image("b", "team/app:2"), leases=(living,)))) == {"old": "lease"}
    unknown = LeaseState.of_names("build-2", ["*"])
    found = plan(host(OLD, image("b", "team/app:2"), leases=(unknown, living)))
    assert kept_by(found) == {"old": "lease", "b": "lease"}
    assert {item.image.id: item.reason for item in found.kept} == {
        "sha256:old": "build-1 holds it",
        "sha256:b": "build-2 holds every image, since what it needs can't be told",
    }


def test_an_expired_lease_and_one_on_another_tag_hold_nothing() -> None:
    dead = lease(images=["old"], expires=NOW)
    other = lease(references=["team/app:2", "team/app"])
    assert removed(plan(host(OLD, leases=(dead, other)))) == ["old"]


def test_images_of_others_stay_unless_the_scope_is_the_host() -> None:
    foreign = image("foreign", "debian:trixie", own=False)
    assert kept_by(plan(host(foreign))) == {"foreign": "scope"}
    assert removed(plan(host(foreign), policy(scope="host"))) == ["foreign"]


def test_the_untagged_steps_of_our_own_image_are_ours_too() -> None:
    base = image("base", "debian:trixie", own=False)
    step = image("step", own=False, parent=image_id("base"))
    top = image("top", "team/app:1", parent=image_id("step"))
    found = plan(host(base, step, top))
    assert removed(found) == ["top", "step"]
    assert kept_by(found) == {"base": "scope"}


def test_a_step_whose_image_has_gone_before_it_is_ours_while_nobody_has_named_it() -> None:
    step = replace(image("step", own=False), own_step=True)
    assert removed(plan(host(step))) == ["step"]
    named = replace(image("step", "other:1", own=False), own_step=True)
    assert kept_by(plan(host(named))) == {"step": "scope"}


def test_an_image_with_a_name_that_can_not_be_read_stays_with_its_other_names() -> None:
    odd = replace(image("odd", "team/app:1"), tags=("team/app:1", "UPPER/Case:1"))
    assert kept_by(plan(host(odd))) == {"odd": "unreadable-name"}


def test_two_images_with_one_tag_both_stay() -> None:
    found = plan(host(image("a", "team/app:1"), image("b", "team/app:1")))
    assert kept_by(found) == {"a": "ambiguous-tag", "b": "ambiguous-tag"}


@pytest.mark.parametrize(
    ("label", "stays"),
    [
        ("2026-06-01", True),
        ("2026-05-31", False),
        ("2026-06-01T12:00:00", True),
        ("2026-06-01T11:59:59+00:00", False),
        ("2026-06-01T12:30:00+02:00", False),
        ("for ever", True),
        ("", True),
    ],
)
def test_a_keep_until_label_holds_until_then_and_for_ever_if_it_is_no_date(label: str, stays: bool) -> None:
    found = plan(host(replace(OLD, labels={"caisson.keep-until": label})))
    assert kept_by(found) == ({"old": "keep-until"} if stays else {})


def test_the_current_deployment_and_so_many_before_it_stay() -> None:
    images = [image(f"d{n}", f"team/app:{n}", deployed=n) for n in range(4)]
    found = plan(host(*images), policy(keep_deployed=2))
    assert kept_by(found) == {"d0": "deployed", "d1": "deployed", "d2": "deployed"}
    assert removed(found) == ["d3"]


def test_what_was_used_within_min_age_stays_however_full_the_disk_is() -> None:
    young = image("young", "team/app:1", idle=0.9)
    assert kept_by(plan(host(young), policy(otherwise={"max_age": "1h"}), free_mib=1000)) == {"young": "min-age"}
    exactly = image("exactly", "team/app:1", idle=1)
    assert removed(plan(host(exactly), free_mib=1000)) == ["exactly"]


def test_of_the_min_ages_of_all_its_repositories_the_longest_holds() -> None:
    both = image("both", "team/app:1", "slow/app:1", idle=40)
    slow = {"repositories": "slow/*", "keep_last": 0, "min_age": "50d", "max_age": "1d"}
    assert kept_by(plan(host(both), policy(rules=[slow]))) == {"both": "min-age"}


@pytest.mark.parametrize(
    "chosen",
    [
        policy(otherwise={"keep_tags": ["v*"]}),
        policy(keep=["team/*:v1.*"]),
        policy(keep=["docker.io/team/app"]),
        policy(keep=["**"]),
    ],
)
def test_a_match_of_a_keep_pattern_on_any_tag_protects_the_image(chosen: object) -> None:
    several = image("several", "team/app:sha-1", "team/app:v1.2")
    found = plan(host(several), chosen)  # type: ignore[arg-type]
    assert kept_by(found) == {"several": "keep-pattern"}


def test_other_tags_than_the_one_kept_may_go_while_the_image_stays() -> None:
    several = image("several", "team/app:sha-1", "team/app:v1.2")
    found = plan(host(several), policy(otherwise={"keep_tags": ["v*"]}))
    assert tags_removed(found) == ["team/app:sha-1"]


def test_the_newest_of_each_repository_stay_counted_by_image() -> None:
    images = [
        image("a", "team/app:1", idle=100),
        image("b", "team/app:2", "team/app:two", idle=90),
        image("c", "team/app:3", idle=80),
        image("x", "other/app:1", idle=300),
    ]
    found = plan(host(*images), policy(otherwise={"keep_last": 2}))
    assert removed(found) == ["a"]
    assert kept_by(found) == {"b": "keep-last", "c": "keep-last", "x": "keep-last"}


def test_newest_is_by_first_seen_and_not_by_use() -> None:
    older_but_used = image("a", "team/app:1", first_seen=days_ago(90), last_used=days_ago(35))
    newer = image("b", "team/app:2", first_seen=days_ago(80), last_used=days_ago(80))
    found = plan(host(older_but_used, newer), policy(otherwise={"keep_last": 1}))
    assert removed(found) == ["a"]


def test_images_of_one_moment_are_all_among_the_newest_and_unknown_ones_push_none_out() -> None:
    at_once = [image(name, f"team/app:{name}", idle=50) for name in "abc"]
    unknown = image("u", "team/app:u", first_seen=None)
    found = plan(host(*at_once, unknown), policy(otherwise={"keep_last": 1}))
    assert not removed(found)
    ageless = policy(otherwise={"keep_last": 1, "min_age": "0s", "max_age": "0s"})
    assert kept_by(plan(host(*at_once, unknown), ageless)) == dict.fromkeys("abcu", "keep-last")


def test_the_first_rule_that_matches_a_repository_holds_for_it() -> None:
    rules = [
        {"repositories": "team/app", "keep_last": 1},
        {"repositories": "team/*", "keep_last": 0},
    ]
    images = [image("a", "team/app:1"), image("b", "team/web:1")]
    assert removed(plan(host(*images), policy(rules=rules))) == ["b"]


def test_what_no_registry_has_stays_unless_that_is_allowed() -> None:
    local = image("local", "team/app:1", pushed=False)
    assert kept_by(plan(host(local))) == {"local": "unrecoverable"}
    assert removed(plan(host(local), policy(allow_unrecoverable=True))) == ["local"]


def test_ancestors_of_what_is_kept_stay() -> None:
    base = image("base", "team/base:1")
    step = image("step", parent=image_id("base"))
    top = image("top", "team/app:1", parent=image_id("step"))
    found = plan(host(base, step, top, containers=(container("web", "top"),)))
    # By their layers or not, they are as young as what stands on them.
    assert kept_by(found) == {"base": "min-age", "step": "min-age", "top": "in-use"}
    pinned = plan(host(base, step, top), policy(keep=["team/app"]))
    assert kept_by(pinned) == {"base": "ancestor", "step": "ancestor", "top": "keep-pattern"}


def test_an_image_lends_its_last_use_to_those_its_layers_contain() -> None:
    base = image("base", "team/base:1", layers=stack(("base", 10)))
    top = image("top", "team/app:1", layers=stack(("base", 10), ("own", 10)), idle=2)
    found = plan(host(base, top))
    assert kept_by(found) == {"base": "not-expired", "top": "not-expired"}
    seen = {item.image.id: item.image.last_used for item in found.kept}
    assert seen[base.id] == seen[top.id] == days_ago(2)


@pytest.mark.parametrize("dates", [{"last_used": None}, {"first_seen": None}, {"last_used": None, "first_seen": None}])
def test_an_unknown_date_is_now(dates: dict[str, None]) -> None:
    assert kept_by(plan(host(replace(OLD, **dates)))) == {"old": "min-age"}


def test_with_a_failed_read_nothing_goes_and_the_plan_says_so() -> None:
    found = plan(host(OLD, problems=("GET /containers/json answered 500",)), free_mib=1000)
    assert not found.items
    assert kept_by(found) == {"old": "incomplete"}
    assert "answered 500" in found.kept[0].reason


def test_every_protection_has_its_name_and_sentence_once() -> None:
    assert len({rule.name for rule in PROTECTIONS}) == len({rule.sentence for rule in PROTECTIONS}) == len(PROTECTIONS)


def test_a_date_in_the_future_is_not_older_than_now() -> None:
    tomorrow = datetime(2026, 6, 2, tzinfo=UTC)
    ahead: ImageState = replace(OLD, last_used=tomorrow, first_seen=tomorrow - timedelta(days=90))
    assert kept_by(plan(host(ahead))) == {"old": "min-age"}
