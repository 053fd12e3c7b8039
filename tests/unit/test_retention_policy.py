"""A policy is validated where it is built, written as people write it, and names what is wrong with it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from caisson.durations import format_duration, parse_duration
from caisson.reference import parse_reference, parse_repository
from caisson.retention.patterns import matches_reference, matches_repository, matches_tag
from caisson.retention.policy import CachePolicy, RetentionPolicy


def test_a_policy_is_written_as_people_write_it_and_read_back_the_same() -> None:
    policy = RetentionPolicy.model_validate(
        {
            "rules": [{"repositories": "team/*", "keep_last": 5, "max_age": "90d", "min_age": "12h"}],
            "otherwise": {"max_age": ""},
            "build_cache": {"max_used_space": "30g", "min_free_space": ""},
        }
    )
    assert policy.rules[0].max_age == timedelta(days=90)
    assert policy.otherwise.max_age is None
    assert policy.build_cache.max_used_space == 30 << 30
    assert policy.build_cache.min_free_space is None
    assert RetentionPolicy.model_validate_json(policy.model_dump_json()) == policy


@pytest.mark.parametrize(
    ("values", "field", "message"),
    [
        ({"dangling_age": "soon"}, "dangling_age", "'soon' is not a duration such as 30d"),
        ({"dangling_age": timedelta(days=-1)}, "dangling_age", "is negative"),
        ({"otherwise": {"keep_last": -1}}, "otherwise.keep_last", "greater than or equal to 0"),
        ({"otherwise": {"keep_tags": ["a b"]}}, "otherwise.keep_tags.0", "'a b' is not a pattern of tags"),
        ({"rules": [{"repositories": "team/app name"}]}, "rules.0.repositories", "is not a pattern of repositories"),
        ({"rules": [{"repositories": "*a" * 9}]}, "rules.0.repositories", "more than 8 stars"),
        ({"rules": [{}]}, "rules.0.repositories", "Field required"),
        ({"keep": ["team/app:a/b c"]}, "keep.0", "is not a pattern"),
        ({"build_cache": {"max_used_space": "lots"}}, "build_cache.max_used_space", "is not a size"),
        ({"build_cache": {"max_used_space": "1g"}}, "build_cache", "is less than reserved_space"),
        ({"max_age": "30d"}, "max_age", "Extra inputs"),
        ({"scope": "everything"}, "scope", "'own' or 'host'"),
    ],
)
def test_what_is_wrong_is_told_with_its_field(values: dict[str, Any], field: str, message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        RetentionPolicy.model_validate(values)
    (error,) = caught.value.errors()
    assert ".".join(map(str, error["loc"])) == field
    assert message in error["msg"]


def test_by_default_only_our_own_recoverable_images_go_and_volumes_never() -> None:
    policy = RetentionPolicy()
    assert policy.scope == "own"
    assert not policy.allow_unrecoverable
    assert policy.anonymous_volumes_age is None
    assert policy.exited_containers_age is None


def test_the_form_shows_defaults_as_they_are_written() -> None:
    definitions = RetentionPolicy.model_json_schema()["$defs"]
    assert definitions["Retention"]["properties"]["max_age"]["default"] == "30d"
    assert definitions["CachePolicy"]["properties"]["max_used_space"]["default"] == "20g"
    written = {name: part["default"] for name, part in definitions["Retention"]["properties"].items()}
    assert RetentionPolicy.model_validate({"otherwise": written}) == RetentionPolicy()
    cache = {name: part["default"] for name, part in definitions["CachePolicy"]["properties"].items()}
    assert RetentionPolicy.model_validate({"build_cache": cache}) == RetentionPolicy()


@pytest.mark.parametrize(
    ("pattern", "repository", "matches"),
    [
        ("team/app", "team/app", True),
        ("team/*", "team/app", True),
        ("team/*", "team/app/web", False),
        ("team/**", "team/app/web", True),
        ("*", "debian", True),
        ("*", "team/app", False),
        ("**", "registry.example.com:5000/team/app", True),
        ("registry.example.com:5000/*", "registry.example.com:5000/app", True),
        ("docker.io/library/debian", "debian", True),
        ("team/ap?", "team/app", True),
        ("team.app", "team/app", False),
        ("eam/app", "team/app", False),
    ],
)
def test_a_star_stands_for_one_part_and_two_for_any(pattern: str, repository: str, matches: bool) -> None:
    assert matches_repository(pattern, parse_repository(repository)) is matches


def test_patterns_of_tags_are_literal_but_for_their_stars() -> None:
    assert matches_tag("1.2", "1.2")
    assert not matches_tag("1.2", "1x2")
    assert matches_reference("localhost:5000/app", parse_reference("localhost:5000/app:1"))
    assert not matches_reference("localhost:5000/app:2", parse_reference("localhost:5000/app:1"))
    assert not matches_reference("app:1", parse_reference("app"))


@pytest.mark.parametrize("text", ["30d", "12h", "90m", "1s", "0s", "1.5s"])
def test_a_duration_is_written_as_it_was_read(text: str) -> None:
    assert format_duration(parse_duration(text)) == text


@pytest.mark.parametrize("text", ["", "30", "d", "-1d", "1d 2h", "1y", "1e3d", "٣d"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        parse_duration(text)


def test_sizes_are_written_as_people_write_them_and_read_back_as_they_were() -> None:
    for written in ("20g", "1500m", "3k", "1025", "0"):
        cache = CachePolicy.model_validate({"max_used_space": written, "reserved_space": "0"})
        assert cache.model_dump()["max_used_space"] == written
        assert CachePolicy.model_validate(cache.model_dump()) == cache
