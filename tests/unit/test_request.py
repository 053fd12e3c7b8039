"""The request's schema, which Prefect's server holds every run's parameters against before it keeps them."""

from __future__ import annotations

import re
import time

import pytest

from caisson.errors import RequestInvalid
from caisson.git import parse_repository_url
from caisson.request import BuildRequest
from caisson.settings import load_settings
from caisson.spec import make_spec, parse_request

PROTOCOLS = ("https", "http", "ssh", "git")
SETTINGS = load_settings()
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
        "user:s3cr3t@git.example/app.git",
        "user:s3cr3t@git.example:app.git",
        "s3cr3t@git.example/app.git",
        "https://user:s3/cr3t@git.example/app.git",
        "ssh://user:s3/cr3t@git.example/app.git",
        "https://git.example/app.git?private_token=s3cr3t",
        "https://git.example/app.git#s3cr3t",
        "git@git.example:app.git?token=s3cr3t",
        "https://git.example?s3cr3t",
        f"ssh://s3cr3t{'x' * 40}@git.example/app.git",
        f"s3cr3t{'x' * 40}@git.example:app.git",
        "ghp_s3cr3t@git.example:app.git",
        "ssh://glpat-s3cr3t@git.example/app.git",
        "github_pat_s3cr3t@git.example:app.git",
    ],
)
def test_a_url_with_what_may_be_a_secret_is_refused_before_prefect_keeps_it_and_not_repeated(url: str) -> None:
    assert not PATTERN.search(url)
    with pytest.raises(RequestInvalid) as parsed:
        parse_request({"repository_url": url, "image": "team/app"})
    with pytest.raises(RequestInvalid) as made:
        make_spec(BuildRequest(repository_url=url, image="team/app"), SETTINGS)
    for caught in (parsed, made):
        assert [field["field"] for field in caught.value.details["fields"]] == ["repository_url"]
        assert "s3" not in str(caught.value.to_dict())


@pytest.mark.parametrize("text", [":", "@", "a:", "/", "://", "x", "https://:", "ssh://x@", "?", "a@"])
def test_the_pattern_takes_no_time_for_a_text_of_any_length(text: str) -> None:
    began = time.process_time()
    PATTERN.search(text * 200_000)
    assert time.process_time() - began < 1


TOKENS = [
    "ghp_16C7e42F292c6912E7710c838347Ae178B4a",
    "github_pat_11ABCDEFG0abcdefghijkl_0123456789",
    "glpat-s3cr3t_-s3cr3ts3cr3t",
    "dckr_pat_abcdefghijklmnopqrstuvwxyz0",
    "npm_0123456789abcdefghijABCDEFGHIJ012345",
    "AKIAIOSFODNN7EXAMPLE",
    "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.e30",
    f"caisson_0123456789ab_{'x' * 30}",
    "user:s3cr3t",
    "-----BEGIN OPENSSH PRIVATE KEY-----",
]


@pytest.mark.parametrize("token", TOKENS)
@pytest.mark.parametrize("field", ["secrets", "git_credentials"])
def test_a_token_in_the_place_of_a_secrets_name_is_refused_before_prefect_keeps_it_and_not_repeated(
    field: str, token: str
) -> None:
    schema = BuildRequest.model_json_schema()["properties"]
    pattern = schema["secrets"]["items"]["pattern"] if field == "secrets" else schema["git_credentials"]["pattern"]
    assert not re.search(pattern, token)
    value = [token] if field == "secrets" else token
    with pytest.raises(RequestInvalid) as caught:
        parse_request({"repository_url": "https://git.example/a", "image": "team/app", field: value})
    assert [found["field"] for found in caught.value.details["fields"]] == [field]
    assert token[6:] not in str(caught.value.to_dict())


@pytest.mark.parametrize("name", ["deploy-key", "npm_token", "GITHUB_TOKEN", "hf_token", "a.b", "9"])
def test_a_secrets_name_passes(name: str) -> None:
    schema = BuildRequest.model_json_schema()["properties"]
    assert re.search(schema["secrets"]["items"]["pattern"], name)
    assert re.search(schema["git_credentials"]["pattern"], name)
    assert re.search(schema["git_credentials"]["pattern"], "")
    request = {"repository_url": "https://git.example/a", "image": "a", "secrets": [name], "git_credentials": name}
    assert parse_request(request).secrets == [name]


def test_the_name_of_an_unknown_field_is_not_repeated_whole() -> None:
    with pytest.raises(RequestInvalid) as caught:
        parse_request({"repository_url": "https://git.example/a", "image": "a", "x\n" * 5_000_000: 1})
    assert len(str(caught.value.to_dict())) < 1_000
    assert "\n" not in caught.value.message


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
        "git@git.example:a@b.git",
        "git@[::1]:team/app.git",
        "ssh://git@[2001:db8::1]:2222/app.git",
        "https://[2001:db8::1]/app.git",
        "APKAEIBAERJR2EXAMPLE@git-codecommit.us-east-1.amazonaws.com:v1/repos/app",
        "org-123456@github.com:team/app.git",
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
