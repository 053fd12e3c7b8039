"""The file of webhooks: what it may say, and which events build which image by it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from caisson.errors import SettingsInvalid
from caisson.settings import Settings
from caisson.spec import make_spec, parse_request
from caisson.webhooks.decision import decide, reason_against
from caisson.webhooks.event import Event, EventKind, Ignored, Provider
from caisson.webhooks.rules import read_rules
from tests.webhook_deliveries import hook_of, one_event, rules_of

MAIN = 'on = "push"\nbranches = ["main"]\nbuild = { image = "team/app" }'
PUSH = one_event(Provider.GITHUB, "push", "github-push")
TAG = one_event(Provider.GITHUB, "push", "github-push-tag")
PULL_REQUEST = one_event(Provider.GITHUB, "pull_request", "github-pull-request")
FORK = one_event(Provider.GITHUB, "pull_request", "github-pull-request-fork")


def test_a_push_builds_the_commit_of_the_repository_that_the_file_names() -> None:
    (build,) = decide(hook_of(MAIN), [PUSH]).builds
    assert build.request == {
        "repository_url": "https://github.com/team/app.git",
        "ref": "refs/heads/main",
        "commit": "6113728f27ae82c7b1a177c8d03f9e96e0adf246",
        "image": "team/app",
    }
    assert (build.rule, build.supersede, build.context) == (1, True, "caisson/team/app")


def test_each_rule_that_matches_builds() -> None:
    hook = hook_of(
        MAIN,
        'on = "push"\nname = "docs"\nhost = "any"\nbuild = { image = "team/docs", context = "docs" }\npriority = "low"',
        'on = "tag"\nbuild = { image = "team/app" }',
    )
    decision = decide(hook, [PUSH])
    assert [(build.request["image"], build.priority.value, build.host) for build in decision.builds] == [
        ("team/app", "normal", ""),
        ("team/docs", "low", "any"),
    ]
    assert decision.reasons == ("rule 3: it is for tag events",)


@pytest.mark.parametrize("name", ["team/other", "other/app", "app", "team/app/x", "x/team/app", "team/app.git"])
def test_another_repository_builds_nothing(name: str) -> None:
    decision = decide(hook_of(MAIN), [replace(PUSH, repository=name)])
    assert decision.builds == ()
    assert "this hook is for 'team/app'" in decision.reasons[0]


@pytest.mark.parametrize(
    ("rule", "event", "reason"),
    [
        ('branches = ["main"]', replace(PUSH, branch="next"), "'next' is not among its branches"),
        ('branches = ["release/*"]', replace(PUSH, branch="release/1/2"), "not among its branches"),
        ('branches = ["release/**"]', replace(PUSH, branch="release/1/2"), ""),
        ('paths = ["docs/**"]', PUSH, ""),
        ('paths = ["lib/**"]', PUSH, "none of the 3 changed files"),
        ('paths_ignore = ["**"]', PUSH, "none of the 3"),
        ('paths_ignore = ["src/**", "docs/**", "*.txt"]', PUSH, "none of the 3"),
        ('paths_ignore = ["docs/**", "*.txt"]', PUSH, ""),
        ('paths = ["**/*.md"]\npaths_ignore = ["docs/**"]', PUSH, "none of the 3"),
        ('paths = ["lib/**"]', replace(PUSH, paths=None), ""),
        ("", replace(PUSH, message="x [skip ci]"), "the message has '[skip ci]'"),
        ("skip_ci = false", replace(PUSH, message="x [skip ci]"), ""),
        ("", TAG, "it is for push events"),
    ],
)
def test_filters(rule: str, event: Event, reason: str) -> None:
    hook = hook_of(f'on = "push"\n{rule}\nbuild = {{ image = "team/app" }}')
    found = reason_against(hook.rule[0], event)
    assert (reason in found) if reason else found == ""


@pytest.mark.parametrize("event", [PUSH, TAG, PULL_REQUEST], ids=lambda event: event.kind)
@pytest.mark.parametrize("provider", Provider)
def test_every_kind_of_event_can_be_skipped_by_its_message(provider: Provider, event: Event) -> None:
    hook = hook_of(f'on = "{event.kind}"\nbuild = {{ image = "team/app" }}', provider=provider)
    assert len(decide(hook, [event]).builds) == 1
    skipped = decide(hook, [replace(event, message=f"{event.message}\n\n[skip ci]")])
    assert (skipped.builds, skipped.reasons) == ((), ("rule 1: the message has '[skip ci]'",))


def test_tags_are_built_by_their_names() -> None:
    hook = hook_of('on = "tag"\ntags = ["v*"]\nbuild = { image = "team/app", push = true }')
    (build,) = decide(hook, [TAG]).builds
    assert (build.request["ref"], build.request["push"], build.supersede) == ("refs/tags/v1.2.0", True, False)
    assert decide(hook, [replace(TAG, tag="nightly")]).builds == ()


FULL = (
    'image = "team/app", push = true, git_credentials = "deploy", secrets = ["npm"], submodules = true, lfs = true, '
    'tags = { raw = ["stable"], pull_request = false }, build_args = { A = "1" }'
)


def test_a_fork_gets_no_secret_and_pushes_nothing() -> None:
    hook = hook_of(f'on = "pull_request"\nforks = true\nbuild = {{ {FULL} }}')
    (build,) = decide(hook, [FORK]).builds
    assert build.request == {
        "repository_url": "https://github.com/team/app.git",
        "ref": "refs/pull/7/head",
        "commit": "bffeb74224043ba2feb48d137756c8a9331c449a",
        "image": "team/app",
        "build_args": {"A": "1"},
        "tags": {"default_branch": "none"},
    }


def test_forks_are_not_built_unless_a_rule_allows_it() -> None:
    decision = decide(hook_of('on = "pull_request"\nbuild = { image = "team/app" }'), [FORK])
    assert decision.builds == ()
    assert "forks are not built" in decision.reasons[0]


def test_a_pull_request_of_the_repository_itself_has_what_the_rule_gives() -> None:
    hook = hook_of(f'on = "pull_request"\nbranches = ["main"]\nbuild = {{ {FULL} }}')
    (build,) = decide(hook, [PULL_REQUEST]).builds
    assert (build.request["push"], build.request["secrets"]) == (True, ["npm"])
    assert build.context == "caisson/team/app (pull request)"


def test_bitbuckets_pull_requests_move_no_tag_of_their_source_branch() -> None:
    event = one_event(Provider.BITBUCKET, "pullrequest:created", "bitbucket-pull-request")
    hook = hook_of(
        'on = "pull_request"\nbuild = { image = "team/app" }',
        provider="bitbucket",
        repository="https://bitbucket.org/team/app.git",
    )
    (build,) = decide(hook, [event]).builds
    assert build.request["tags"] == {"branch": False, "default_branch": "none", "raw": ["pr-12"]}
    assert "commit" not in build.request


def test_what_is_ignored_has_its_reason() -> None:
    assert decide(hook_of(MAIN), [Ignored("it was deleted")]).reasons == ("it was deleted",)


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://github.com/team/app.git", "team/app"),
        ("git@gitlab.com:team/sub/app.git", "team/sub/app"),
        ("ssh://git@git.example.com:2222/team/app.git", "team/app"),
        ("https://git.example.com/team/app/", "team/app"),
    ],
)
def test_the_name_at_the_provider_is_the_path_of_the_url(url: str, name: str) -> None:
    assert hook_of(MAIN, repository=url).expected_name == name


HOOK = '[[hook]]\nname = "app"\nprovider = "github"\nsecret = "s"\nrepository = "https://github.com/team/app.git"\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[hook", "webhooks.toml: it is not TOML"),
        ("[hok]", "hok: Extra inputs are not permitted"),
        (HOOK, "hook 'app', rule: Field required"),
        (HOOK.replace('"github"', '"gitub"') + f"[[hook.rule]]\n{MAIN}", "hook 'app', provider: 'gitub': Input should"),
        (HOOK.replace('"app"', '"App"') + f"[[hook.rule]]\n{MAIN}", "name: 'App': String should match"),
        (HOOK.replace("https://", "https://u:p4ss@") + f"[[hook.rule]]\n{MAIN}", "has credentials in it"),
        (HOOK.replace("team/app", "app") + f"[[hook.rule]]\n{MAIN}", "set full_name"),
        (HOOK + '[[hook.rule]]\non = "push"', "hook 'app', rule 1, build: Field required"),
        (HOOK + '[[hook.rule]]\non = "push"\nbuild = {}', "hook 'app', rule 1, build, image: Field required"),
        (HOOK + '[[hook.rule]]\non = "push"\nbuild = { image = "a", push = "maybe" }', "build, push: 'maybe': Input"),
        (HOOK + '[[hook.rule]]\non = "push"\nbuild = { image = "a", imag = "b" }', "build, imag: 'b': Extra inputs"),
        (HOOK + '[[hook.rule]]\non = "push"\nbuild = { image = "a", ref = "main" }', "has ref, which comes from"),
        (HOOK + '[[hook.rule]]\non = "push"\nbuild = { image = "a", repository_url = "x" }', "has repository_url, wh"),
        (
            HOOK + '[[hook.rule]]\non = "push"\ntags = ["v*"]\nbuild = { image = "a" }',
            'tags says nothing about on = "p',
        ),
        (HOOK + '[[hook.rule]]\non = "tag"\nbranches = ["v*"]\nbuild = { image = "a" }', "branches says nothing about"),
        (HOOK + '[[hook.rule]]\non = "push"\nforks = true\nbuild = { image = "a" }', "forks says nothing about"),
        (
            HOOK + '[[hook.rule]]\non = "push"\nbranches = ["!x"]\nbuild = { image = "a" }',
            "branches 1: '!x' begins with",
        ),
        (HOOK + '[[hook.rule]]\non = "push"\npaths = ["/x"]\nbuild = { image = "a" }', "begins where no name does"),
        (HOOK + '[[hook.rule]]\non = "push"\npaths = [""]\nbuild = { image = "a" }', "is not a pattern"),
        ('link = "https://x.example.com/"', "link: 'https://x.example.com/': has no {run}"),
        ('link = "ftp://x/{run}"', "is not an http:// or https:// address"),
        (2 * (HOOK + f"[[hook.rule]]\n{MAIN}\n"), "two hooks have the name 'app'"),
    ],
)
def test_an_error_names_file_key_and_value(text: str, message: str) -> None:
    with pytest.raises(SettingsInvalid) as caught:
        read_rules(text, "webhooks.toml")
    assert message in str(caught.value)
    assert str(caught.value).startswith("webhooks.toml: ")
    assert "p4ss" not in str(caught.value)


@pytest.mark.parametrize("key", ["secret", "token"])
def test_a_value_where_a_name_belongs_is_refused_and_not_repeated(key: str) -> None:
    value = "s3cr3t canary"
    head = HOOK.replace('secret = "s"', f'secret = "{value}"') if key == "secret" else HOOK
    text = f"{head}{f'status = {{ token = {value!r} }}' if key == 'token' else ''}\n[[hook.rule]]\n{MAIN}"
    with pytest.raises(SettingsInvalid, match="never its value") as caught:
        read_rules(text, "webhooks.toml")
    assert value not in str(caught.value)


def test_a_file_without_hooks_is_one() -> None:
    assert read_rules("", "webhooks.toml").find("app") is None
    assert rules_of(MAIN).find("app") is not None


def test_no_field_of_a_request_gets_around_the_event() -> None:
    """What a rule may set of a BuildRequest is all of it, but for what the event decides."""
    values: dict[str, Any] = {"repository_url": "x", "ref": "x", "commit": "x"}
    for name, value in values.items():
        with pytest.raises(SettingsInvalid):
            rules_of(f'on = "push"\nbuild = {{ image = "a", {name} = "{value}" }}')
    assert set(EventKind) == {"push", "tag", "pull_request"}


@pytest.mark.parametrize(
    ("provider", "event", "name"),
    [
        ("github", "push", "github-push"),
        ("github", "push", "github-push-tag"),
        ("github", "pull_request", "github-pull-request"),
        ("github", "pull_request", "github-pull-request-fork"),
        ("gitlab", "Push Hook", "gitlab-push"),
        ("gitlab", "Tag Push Hook", "gitlab-tag"),
        ("gitlab", "Merge Request Hook", "gitlab-merge-request"),
        ("gitlab", "Merge Request Hook", "gitlab-merge-request-fork"),
        ("gitea", "push", "gitea-push"),
        ("gitea", "push", "gitea-tag"),
        ("gitea", "pull_request", "gitea-pull-request-fork"),
        ("bitbucket", "repo:push", "bitbucket-push"),
        ("bitbucket", "pullrequest:created", "bitbucket-pull-request"),
    ],
)
def test_what_documented_payloads_build_is_a_valid_request(provider: str, event: str, name: str) -> None:
    found = one_event(Provider(provider), event, name)
    rule = f'on = "{found.kind}"\n{"forks = true" if found.from_fork else ""}\nbuild = {{ {FULL} }}'
    url = f"https://git.example.com/{found.repository}.git"
    settings = Settings(_env_file=None, credential_hosts={"deploy": ("git.example.com",)})
    (build,) = decide(hook_of(rule, provider=provider, repository=url), [found]).builds
    spec = make_spec(parse_request(build.request), settings)
    assert (str(spec.repository_url), spec.ref, spec.commit) == (url, found.ref, found.commit)
    assert bool(spec.secrets) is bool(spec.git_credentials) is spec.push is not found.from_fork
