"""Webhooks: any changed byte is refused, and no rule reaches another repository than its own."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from caisson.webhooks.decision import decide
from caisson.webhooks.event import Malformed, Provider
from caisson.webhooks.patterns import matches
from caisson.webhooks.providers import parse_events
from caisson.webhooks.signature import NotAuthentic, authenticate
from tests.webhook_deliveries import DATA, NOW, SECRET, SIGNING_TOKEN, hook_of, one_event, signed_headers

SCHEMES = [(provider, SECRET) for provider in Provider if provider is not Provider.GITLAB]
SCHEMES.append((Provider.GITLAB, SIGNING_TOKEN))
EVENTS = {
    Provider.GITHUB: ("push", "pull_request"),
    Provider.GITLAB: ("Push Hook", "Tag Push Hook", "Merge Request Hook"),
    Provider.GITEA: ("push", "pull_request"),
    Provider.BITBUCKET: ("repo:push", "pullrequest:created"),
}
PUSH = one_event(Provider.GITHUB, "push", "github-push")
RULE = 'on = "push"\nbuild = { image = "team/app" }'


@given(st.sampled_from(SCHEMES), st.binary(min_size=1, max_size=200), st.data())
def test_any_changed_byte_of_the_body_is_refused(
    scheme: tuple[Provider, str], body: bytes, data: st.DataObject
) -> None:
    provider, secret = scheme
    headers = signed_headers(provider, "push", body, secret)
    assert authenticate(provider, headers, body, secret, now=NOW)
    at = data.draw(st.integers(0, len(body) - 1))
    changed = bytes([*body[:at], body[at] ^ data.draw(st.integers(1, 255)), *body[at + 1 :]])
    for other in (changed, body[:-1], body + b"\n"):
        with pytest.raises(NotAuthentic):
            authenticate(provider, headers, other, secret, now=NOW)


@given(st.sampled_from(SCHEMES), st.binary(max_size=50), st.data())
def test_any_changed_character_of_the_signature_is_refused(
    scheme: tuple[Provider, str], body: bytes, data: st.DataObject
) -> None:
    provider, secret = scheme
    headers = signed_headers(provider, "push", body, secret)
    (name,) = (name for name in headers if "signature" in name)
    right = headers[name]
    at = data.draw(st.integers(0, len(right) - 1))
    character = data.draw(st.characters().filter(lambda found: found not in (right[at], " ")))
    for wrong in (right[:at] + character + right[at + 1 :], right[:-1], right[1:], right + "0", right.swapcase()):
        with pytest.raises(NotAuthentic):
            authenticate(provider, {**headers, name: wrong}, body, secret, now=NOW)


@given(st.text(max_size=60))
def test_a_token_is_the_whole_secret(given_token: str) -> None:
    headers = {"x-gitlab-event": "Push Hook", "x-gitlab-token": given_token}
    if given_token == SECRET:
        return
    with pytest.raises(NotAuthentic):
        authenticate(Provider.GITLAB, headers, b"{}", SECRET, now=NOW)


@given(
    st.text(max_size=40) | st.sampled_from(["team/app ", "Team/App", "team//app", "team/app\n", "https://x/team/app"])
)
def test_a_rule_never_matches_another_repository(name: str) -> None:
    decision = decide(hook_of(RULE), [replace(PUSH, repository=name)])
    if name.casefold() != "team/app":
        assert decision.builds == ()
    for build in decision.builds:
        assert build.request["repository_url"] == "https://github.com/team/app.git"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(st.sampled_from(sorted(path.name for path in DATA.glob("*.json"))), JSON, st.data())
def test_whatever_stands_in_a_payload_is_read_or_refused_by_name(name: str, value: object, data: st.DataObject) -> None:
    """Strangers choose what is in a payload; nothing but ``Malformed`` may come of it."""
    payload = json.loads((DATA / name).read_text())
    place = payload
    while isinstance(place, dict | list) and place:
        keys = sorted(place) if isinstance(place, dict) else range(len(place))
        key = data.draw(st.sampled_from(list(keys)))
        if not isinstance(place[key], dict | list) or not place[key] or data.draw(st.booleans()):
            place[key] = value
            break
        place = place[key]
    provider = Provider(name.split("-")[0])
    body = json.dumps(payload).encode()
    for event in EVENTS[provider]:
        try:
            found = parse_events(provider, event, body)
        except Malformed:
            continue
        for build in decide(hook_of(RULE), found).builds:
            assert build.request["repository_url"] == "https://github.com/team/app.git"


def _as_regex(pattern: str) -> str:
    text = "".join(
        {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}.get(piece) or re.escape(piece)
        for piece in re.split(r"((?:(?<=/)|^)\*\*/|\*\*|\*|\?)", pattern)
    )
    return f"(?s:{text})"


PIECES = st.lists(st.sampled_from(["a", "b", "/", "*", "**", "**/", "?", "."]), min_size=1, max_size=7)


@given(PIECES.map("".join).filter(lambda text: "***" not in text), st.text("ab/.", max_size=8))
def test_patterns_mean_what_the_regular_expression_means(pattern: str, text: str) -> None:
    assert matches(pattern, text) is bool(re.fullmatch(_as_regex(pattern), text))
