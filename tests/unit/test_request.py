"""The request's schema, which Prefect's server holds every run's parameters against before it keeps them."""

from __future__ import annotations

import re

import pytest

from caisson.git import parse_repository_url
from caisson.request import BuildRequest

PROTOCOLS = ("https", "http", "ssh", "git")
PATTERN = re.compile(BuildRequest.model_json_schema()["properties"]["repository_url"]["pattern"])


@pytest.mark.parametrize(
    "url",
    [
        "https://user:s3cr3t@git.example/app.git",
        "https://s3cr3t@git.example/app.git",
        "http://:s3cr3t@git.example/app.git",
        "HTTPS://user:s3cr3t@git.example:8443/app.git",
        "ssh://git:s3cr3t@git.example/app.git",
        "SSH://git:s3cr3t@git.example/app.git",
        "git://s3cr3t@git.example/app.git",
    ],
)
def test_a_url_with_a_secret_in_it_is_refused_before_prefect_keeps_it(url: str) -> None:
    assert not PATTERN.search(url)
    with pytest.raises(ValueError, match="has credentials in it"):
        parse_repository_url(url, PROTOCOLS)


@pytest.mark.parametrize(
    "url",
    [
        "https://git.example/team/app.git",
        "https://git.example:8443/team/app@2.git",
        "http://git.example/~ada/app:1",
        "ssh://git@git.example:2222/app.git",
        "git://git.example/app.git",
        "git@git.example:team/app.git",
        "git.example:team/a@b.git",
    ],
)
def test_a_url_without_a_secret_passes(url: str) -> None:
    parse_repository_url(url, PROTOCOLS)
    assert PATTERN.search(url)


def test_every_field_has_a_title_and_a_description_without_markup() -> None:
    schema = BuildRequest.model_json_schema()
    for model in (schema, schema["$defs"]["TagRules"], schema["$defs"]["LimitsRequest"]):
        for name, field in model["properties"].items():
            assert field.get("title") or "$ref" in field, name
            assert "`" not in field.get("description", ""), name
