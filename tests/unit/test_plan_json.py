"""A plan as text: the same for the same plan, read back as it was, and nothing else is read."""

from __future__ import annotations

import json

import pytest

from caisson.retention.plan_json import plan_from_json, plan_to_json
from caisson.snapshot import CacheEntry, VolumeState
from tests.prune_hosts import MIB, container, days_ago, host, image, plan, policy

PLAN = plan(
    host(
        image("expired", "team/app:1", idle=40),
        image("evicted", "team/app:2", idle=20),
        image("named", "team/app:old", "team/app:v1", idle=40),
        image("unknown", "team/app:3", idle=None),
        containers=(container("done", "gone", finished=days_ago(9)),),
        anonymous_volumes=(VolumeState("f" * 64, MIB, 0, days_ago(9)),),
        build_cache=(CacheEntry("c", "regular", 30 * MIB),),
    ),
    policy(
        scope="host",
        exited_containers_age="7d",
        anonymous_volumes_age="7d",
        otherwise={"keep_tags": ["v*"]},
        build_cache={"reserved_space": "0", "max_used_space": "20m"},
    ),
    free_mib=1000,
)


def test_a_plan_is_read_back_as_it_was_with_every_kind_of_item() -> None:
    assert {item.kind for item in PLAN.items} == {"image", "tag", "container", "volume", "build-cache"}
    text = plan_to_json(PLAN)
    assert plan_from_json(text) == PLAN
    assert plan_to_json(plan_from_json(text)) == text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 1}, "version: '1' is not 2"),
        ({"items": [{"kind": "image"}]}, r"items\.0\.image\.image: Field required"),
        ({"items": [{"kind": "everything"}]}, r"items\.0"),
        ({"planned": "2026-01-01T00:00:00"}, "planned: .*timezone"),
    ],
)
def test_another_version_or_form_is_refused_with_the_field_that_is_wrong(
    change: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        plan_from_json(json.dumps({**json.loads(plan_to_json(PLAN)), **change}))


@pytest.mark.parametrize("text", ["", "[]", "{", "null"])
def test_what_is_no_plan_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"not JSON|version"):
        plan_from_json(text)
