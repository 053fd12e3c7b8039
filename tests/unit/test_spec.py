"""Requests that are taken, and those that are not, field by field."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from caisson.errors import RequestInvalid
from caisson.request import Builder, BuildRequest
from caisson.settings import Settings, load_settings
from caisson.spec import BuildSpec, fit_cpus, make_spec, parse_request

GOOD = {"repository_url": "https://git.example.com/team/app.git", "image": "registry.example.com:5000/team/app"}


@pytest.fixture
def settings() -> Settings:
    return load_settings(_env_file=None)


def _spec(settings: Settings, **fields: Any) -> BuildSpec:
    return make_spec(parse_request({**GOOD, **fields}), settings)


def _problems(settings: Settings, **fields: Any) -> set[str]:
    with pytest.raises(RequestInvalid) as caught:
        _spec(settings, **fields)
    return {problem["field"] for problem in caught.value.details["fields"]}


def test_a_path_like_an_option_gets_a_hint_that_helps(settings: Settings) -> None:
    for path in ("-x", "./-x"):
        with pytest.raises(RequestInvalid, match="begins with '-', like an option; rename it in the repository"):
            _spec(settings, context=path)
    assert _spec(settings, context="./a/-x", dockerfile=".github/Dockerfile").context == "a/-x"


def test_a_git_credential_goes_to_its_own_host_only(settings: Settings) -> None:
    bound = settings.model_copy(update={"credential_hosts": {"key": ("git.example.com",)}})
    assert _spec(bound, git_credentials="key").git_credentials == "key"
    assert _problems(bound, git_credentials="key", repository_url="https://evil.test/a") == {"git_credentials"}
    assert _problems(bound, git_credentials="key", repository_url="http://git.example.com/a") == {"git_credentials"}
    assert _problems(bound, git_credentials="other") == {"git_credentials"}


def test_a_git_credential_is_no_secret_of_a_dockerfile_by_any_spelling(settings: Settings) -> None:
    bound = settings.model_copy(update={"credential_hosts": {"deploy-key": ("git.example.com",)}})
    for name in ("deploy-key", "Deploy_Key"):
        assert _problems(bound, secrets=["npm", name]) == {"secrets"}
    assert _spec(bound, secrets=["npm"]).secrets == ("npm",)


def test_arguments_and_labels_fit_one_command_line_together(settings: Settings) -> None:
    half = {f"A{n}": "x" * 24_990 for n in range(2)}
    labels = {f"a{n}": "x" * 24_990 for n in range(2)}
    assert len(_spec(settings, build_args=half, labels=labels).labels) == 2
    with pytest.raises(RequestInvalid, match="with the labels they have 100008 bytes; 100000 at most"):
        _spec(settings, build_args=half | {"A0": "ä" * 12_515}, labels=labels)


def test_loopback_is_for_hosts_that_allow_it(settings: Settings) -> None:
    allowed = settings.model_copy(update={"allow_loopback": True})
    assert _spec(allowed, repository_url="http://localhost:3000/app").repository_url.host == "localhost"


def test_a_plain_request_takes_the_hosts_defaults(settings: Settings) -> None:
    spec = _spec(settings)
    assert (spec.limits.cpus, spec.limits.memory, spec.limits.pids) == (settings.cpus, settings.memory, settings.pids)
    assert spec.limits.timeout_seconds == 60 * settings.timeout_minutes
    assert str(spec.image) == GOOD["image"]


def test_every_wrong_field_is_named_not_only_the_first(settings: Settings) -> None:
    assert _problems(settings, repository_url="file:///etc", image="Team/App", context="/etc", target="a b") == {
        "repository_url",
        "image",
        "context",
        "target",
    }


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("repository_url", "--upload-pack=touch /tmp/x"),
        ("repository_url", "-oProxyCommand=x"),
        ("repository_url", "ssh://-oProxyCommand=x/y"),
        ("repository_url", "ext::sh -c id"),
        ("repository_url", "file:///etc"),
        ("repository_url", "/etc"),
        ("repository_url", "https://host/a\nb"),
        ("repository_url", "https://host/a\x00b"),
        ("repository_url", "https://user:secret@host/a"),
        ("repository_url", ""),
        ("ref", "--upload-pack=x"),
        ("commit", "abcdef0"),
        ("commit", "main"),
        ("ref", "-x"),
        ("ref", "a..b"),
        ("ref", "a b"),
        ("ref", "a\nb"),
        ("ref", "a\x00b"),
        ("image", "team/app:tag"),
        ("image", "TEAM/app"),
        ("image", ""),
        ("image", "caisson.local/build"),
        ("image", "caisson-builder"),
        ("image", "docker.io/library/caisson-builder"),
        ("build_args", {"BUILDKIT_SYNTAX": "evil/frontend"}),
        ("build_args", {"A": "\ud800"}),
        ("image", "host:99999999/"),
        ("context", "../x"),
        ("context", "a/../../x"),
        ("context", "/abs"),
        ("context", "a\x00b"),
        ("context", "a\nb"),
        ("dockerfile", "/etc/passwd"),
        ("dockerfile", "../Dockerfile"),
        ("target", "--target"),
        ("build_args", {"a b": "x"}),
        ("build_args", {"A": "x\x00"}),
        ("build_args", {"A": "x" * 40_000}),
        ("build_args", {f"A{n}": "" for n in range(200)}),
        ("labels", {"caisson.build": "x"}),
        ("labels", {"Upper": "x"}),
        ("labels", {"org.opencontainers.image.revision": "x"}),
        ("labels", {"team": "a\u202eb"}),
        ("repository_url", "http://169.254.169.254/latest"),
        ("repository_url", "http://localhost/app"),
        ("repository_url", "git@0x7f000001:app"),
        ("context", ".git"),
        ("context", "sub/.GIT/hooks"),
        ("context", "./.git"),
        ("context", "-x"),
        ("context", "./-x"),
        ("dockerfile", ".git/description"),
        ("git_credentials", "unbound"),
        ("secrets", ["a b"]),
        ("secrets", ["-x"]),
        ("git_credentials", "ghp_token with spaces"),
    ],
)
def test_bad_values_are_refused_by_field(settings: Settings, field: str, value: Any) -> None:
    assert field in _problems(settings, **{field: value})


@pytest.mark.parametrize(
    ("limits", "field"),
    [
        ({"memory": "lots"}, "limits.memory"),
        ({"memory": "1t"}, "limits.memory"),
        ({"memory": "1m"}, "limits.memory"),
        ({"cpus": 1000}, "limits.cpus"),
        ({"pids": 3}, "limits.pids"),
        ({"pids": 4_000_000}, "limits.pids"),
        ({"workspace": "63g", "memory": "64g"}, "limits.workspace"),
        ({"workspace": "2g", "memory": "1g"}, "limits.workspace"),
        ({"timeout_minutes": 5000}, "limits.timeout_minutes"),
    ],
)
def test_limits_are_within_the_hosts_ceiling(settings: Settings, limits: dict[str, Any], field: str) -> None:
    assert field in _problems(settings, limits=limits)


def test_asking_for_less_memory_shrinks_the_workspace_that_was_not_named(settings: Settings) -> None:
    assert _spec(settings, limits={"memory": "256m"}).limits.workspace == 128 << 20


@pytest.mark.parametrize(
    "data",
    [
        {"image": "a"},
        {**GOOD, "unknown": 1},
        {**GOOD, "repository_url": "https://h/" + "x" * 10_000_000},
        {**GOOD, "builder": "magic"},
        {**GOOD, "limits": {"memory": ["2g"]}},
        {**GOOD, "build_args": {"A": {"b": "c"}}},
    ],
)
def test_structure_is_checked_and_no_value_is_repeated(data: dict[str, Any]) -> None:
    with pytest.raises(RequestInvalid) as caught:
        parse_request(data)
    assert len(str(caught.value)) < 500


def test_the_hash_is_over_everything_that_decides_the_image(settings: Settings) -> None:
    settings = settings.model_copy(update={"credential_hosts": {"token": ("git.example.com",)}})

    def digest(sha: str = "a" * 40, labels: dict[str, str] | None = None, **fields: Any) -> str:
        return _spec(settings, **fields).hash(sha, Builder.BUILDKIT, labels or {})

    same = digest()
    assert digest(image="other/app", push=True, limits={"cpus": 2}, git_credentials="token") == same
    assert digest(repository_url="https://GIT.example.com/team/app.git") == same
    different = [
        digest(sha="b" * 40),
        digest(labels={"x": "y"}),
        digest(context="sub"),
        digest(dockerfile="D"),
        digest(target="t"),
        digest(build_args={"A": "1"}),
        digest(secrets=["s"]),
        digest(submodules=True),
        digest(lfs=True),
        digest(repository_url="https://git.example.com/team/other.git"),
        _spec(settings).hash("a" * 40, Builder.CLASSIC, {}),
    ]
    assert same not in different
    assert len(set(different)) == len(different)


def test_the_classic_builder_has_no_secrets(settings: Settings) -> None:
    assert "builder" in _problems(settings, builder="classic", secrets=["x"])


def test_the_form_has_a_title_and_a_default_for_every_optional_field() -> None:
    schema = BuildRequest.model_json_schema()
    assert schema["required"] == ["repository_url", "image"]
    for name, field in schema["properties"].items():
        assert "title" in field or "$ref" in field, name
        assert "anyOf" not in field, name


def test_a_request_for_more_cores_than_the_engine_has_is_refused_before_anything_is_made(settings: Settings) -> None:
    spec = _spec(settings, limits={"cpus": 3})
    with pytest.raises(RequestInvalid, match=r"limits\.cpus: 3 is more than the engine has; it has 2 CPUs"):
        fit_cpus(spec, asked=3, engine_cpus=2)
    for enough in (3, 64):
        assert fit_cpus(spec, asked=3, engine_cpus=enough) == (spec, "")


def test_a_default_of_more_cores_than_the_engine_has_is_lowered_and_told() -> None:
    spec = _spec(load_settings(_env_file=None, cpus=4))
    fitted, note = fit_cpus(spec, asked=0, engine_cpus=1)
    assert fitted == replace(spec, limits=replace(spec.limits, cpus=1.0))
    assert note == "The default of 4 CPUs was lowered to 1: the engine has 1 CPU."
    assert fit_cpus(spec, asked=0, engine_cpus=0) == (spec, "")


@pytest.mark.parametrize(
    ("image", "allowed"),
    [
        ("team/app", True),
        ("team/sub/app", True),
        ("registry.example.com:5000/x", True),
        ("debian", False),
        ("other/team/app", False),
        ("registry.example.com/x", False),
    ],
)
def test_a_host_can_say_which_images_it_builds(image: str, allowed: bool) -> None:
    settings = load_settings(_env_file=None, images=("team/*", "registry.example.com:5000/*"))
    request = parse_request({"repository_url": "https://h.example/a.git", "image": image})
    if allowed:
        make_spec(request, settings)
        return
    with pytest.raises(RequestInvalid, match="CAISSON_IMAGES"):
        make_spec(request, settings)
