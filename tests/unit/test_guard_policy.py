"""A guard's policy is validated where it is built."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from caisson.guard.policy import GuardLimits, GuardPolicy, choose_api
from caisson.reference import parse_reference

POLICY = GuardPolicy(image=parse_reference("caisson.local/build:abc"))


@pytest.mark.parametrize(
    "change",
    [
        {"image": parse_reference("app")},
        {"image": parse_reference("app:1@sha256:" + "0" * 64)},
        {"labels": (("a", "1"), ("a", "2"))},
        {"labels": (("", "1"),)},
        {"cgroup_parent": "../up"},
        {"cgroup_parent": "/docker/../.."},
        {"cgroup_parent": "a b"},
        {"memory": 0},
        {"memory": -1},
        {"cpus": 0},
        {"cpus": float("nan")},
        {"cpus": float("inf")},
        {"network_mode": "host"},
        {"network_mode": "container:abc"},
        {"network_mode": ""},
        {"cache_mount_namespace": "a b"},
        {"api_version": (1, 40)},
        {"api_version": (1, 46)},
    ],
    ids=str,
)
def test_what_cannot_be_a_policy_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(change))):
        replace(POLICY, **change)


def test_a_limit_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="connections"):
        GuardLimits(connections=0)
    with pytest.raises(ValueError, match="idle_seconds"):
        GuardLimits(idle_seconds=float("inf"))


def test_the_api_version_is_one_that_both_know() -> None:
    assert choose_api((1, 43), (1, 12)) == (1, 43)
    with pytest.raises(ValueError, match=r"1\.12 to 1\.40"):
        choose_api((1, 40), (1, 12))
    with pytest.raises(ValueError, match=r"1\.46 to 1\.60"):
        choose_api((1, 60), (1, 46))
