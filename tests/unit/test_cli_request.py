"""Options become a request: what is typed is what is asked for, and what can't be meant is said field by field."""

from __future__ import annotations

from typing import Any

import pytest

from caisson.errors import RequestInvalid
from caisson.spec import parse_request
from deployments.cli_request import request_data

TYPED: dict[str, Any] = {
    "url": "https://example.com/team/app.git",
    "image": "team/app",
    "tag": None,
    "only_tags": False,
    "push": False,
    "label": None,
    "ref": "",
    "commit": "",
    "git_credentials": "",
    "submodules": False,
    "lfs": False,
    "context": "",
    "dockerfile": "",
    "target": "",
    "build_arg": None,
    "secret": None,
    "no_cache": False,
    "builder": "auto",
    "cpus": None,
    "memory": "",
    "pids": None,
    "workspace": "",
    "timeout": "",
}


def data(**options: Any) -> dict[str, Any]:
    return request_data({**TYPED, **options})


def problems(**options: Any) -> dict[str, str]:
    with pytest.raises(RequestInvalid) as caught:
        data(**options)
    return {item["field"]: item["message"] for item in caught.value.details["fields"]}


def test_options_that_were_not_given_ask_for_the_defaults() -> None:
    request = parse_request(data())
    assert request == parse_request({"repository_url": TYPED["url"], "image": "team/app"})


def test_every_option_reaches_its_field() -> None:
    request = parse_request(
        data(
            tag=["stable", "v1"],
            push=True,
            label=["a=b", "c=d=e"],
            ref="main",
            git_credentials="key",
            submodules=True,
            lfs=True,
            context="sub",
            dockerfile="Dockerfile.prod",
            target="two",
            build_arg=["A=1", "EMPTY="],
            secret=["npm", "pip"],
            no_cache=True,
            builder="classic",
            cpus=1.5,
            memory="4g",
            pids=99,
            workspace="1g",
            timeout="90s",
        )
    )
    assert request.tags.raw == ["stable", "v1"]
    assert (request.push, request.submodules, request.lfs, request.no_cache) == (True, True, True, True)
    assert request.labels == {"a": "b", "c": "d=e"}
    assert request.build_args == {"A": "1", "EMPTY": ""}
    assert (request.ref, request.git_credentials, request.secrets) == ("main", "key", ["npm", "pip"])
    assert (request.context, request.dockerfile, request.target) == ("sub", "Dockerfile.prod", "two")
    assert request.builder == "classic"
    assert request.limits.model_dump() == {
        "cpus": 1.5,
        "memory": "4g",
        "pids": 99,
        "workspace": "1g",
        "timeout_minutes": 1.5,
    }


@pytest.mark.parametrize(
    ("typed", "minutes"), [("45", 45), ("30m", 30), ("2h", 120), ("90s", 1.5), ("1.5 h", 90), ("10min", 10)]
)
def test_a_bare_number_is_minutes_and_units_are_understood(typed: str, minutes: float) -> None:
    assert data(timeout=typed)["limits"]["timeout_minutes"] == pytest.approx(minutes)


@pytest.mark.parametrize("typed", ["0", "0s", "-5", "soon", "1d", "1e9", "９９", "1m30s"])
def test_a_time_that_is_none_is_refused(typed: str) -> None:
    assert "is not a time" in problems(timeout=typed)["limits.timeout_minutes"]


def test_zero_is_no_limit_that_somebody_can_ask_for() -> None:
    assert problems(cpus=0.0, pids=-3) == {"limits.cpus": "0 is not above 0", "limits.pids": "-3 is not above 0"}


def test_only_tags_sets_none_but_the_given_ones() -> None:
    tags = parse_request(data(tag=["mine"], only_tags=True)).tags
    assert tags.raw == ["mine"]
    assert not any([tags.sha, tags.sha_short, tags.branch, tags.pull_request, tags.semver])
    assert tags.default_branch == "none"


def test_a_build_argument_without_a_value_takes_the_variables_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY_FOR_TEST", "http://proxy:3128")
    assert data(build_arg=["HTTP_PROXY_FOR_TEST"])["build_args"] == {"HTTP_PROXY_FOR_TEST": "http://proxy:3128"}
    assert "no such variable" in problems(build_arg=["NOT_SET_ANYWHERE"])["build_args"]


def test_a_label_needs_a_value() -> None:
    assert problems(label=["lonely"]) == {"labels": "'lonely' has no value; write lonely=VALUE"}
