"""A delivery counts when its signature holds for the body as it arrived, by the hook's scheme, never the sender's."""

from __future__ import annotations

from datetime import timedelta

import pytest

from caisson.webhooks.event import Provider
from caisson.webhooks.signature import NotAuthentic, authenticate
from tests.webhook_deliveries import NOW, SECRET, SIGNING_TOKEN, signed_headers

BODY = b'{"ref": "refs/heads/main"}'
ALL = [(provider, SECRET) for provider in Provider] + [(Provider.GITLAB, SIGNING_TOKEN)]


def test_githubs_documented_example_holds() -> None:
    """GitHub Docs, "Testing the webhook payload validation"."""
    headers = {
        "x-hub-signature-256": "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17",
        "x-github-delivery": "1",
        "x-github-event": "push",
    }
    found = authenticate(Provider.GITHUB, headers, b"Hello, World!", "It's a Secret to Everybody", now=NOW)
    assert (found.event, found.id) == ("push", "1")


def test_standard_webhooks_documented_example_holds() -> None:
    """The example of standard-webhooks, whose form GitLab's signing tokens have."""
    headers = {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }
    now = NOW.fromtimestamp(1614265330, NOW.tzinfo)
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    found = authenticate(Provider.GITLAB, headers, b'{"test": 2432232314}', secret, now=now)
    assert found.id == "msg_p5jXN8AQM9LWM0D4loKWxJek"


@pytest.mark.parametrize(("provider", "secret"), ALL)
def test_each_provider_is_known_by_its_own_headers(provider: Provider, secret: str) -> None:
    found = authenticate(provider, signed_headers(provider, "push", BODY, secret), BODY, secret, now=NOW)
    assert (found.event, found.id) == ("push", "f6266f16-1bf3-46a5-9ea4-602e06ead473")
    # Where the ID is signed, or the secret was sent along, the body tells nothing more.
    assert bool(found.digest) is (provider is not Provider.GITLAB)


@pytest.mark.parametrize(("provider", "secret"), ALL)
def test_another_secret_is_refused_and_neither_is_told(provider: Provider, secret: str) -> None:
    other = SIGNING_TOKEN.replace("AAEC", "AAEZ") if secret == SIGNING_TOKEN else "another"
    with pytest.raises(NotAuthentic, match="does not match") as caught:
        authenticate(provider, signed_headers(provider, "push", BODY, other), BODY, secret, now=NOW)
    assert secret not in str(caught.value)
    assert other not in str(caught.value)


@pytest.mark.parametrize(("provider", "secret"), ALL)
def test_without_a_signature_nothing_is_authentic(provider: Provider, secret: str) -> None:
    headers = signed_headers(provider, "push", BODY, secret)
    for name in [name for name in headers if "signature" in name or "token" in name]:
        del headers[name]
    with pytest.raises(NotAuthentic, match="is missing"):
        authenticate(provider, headers, BODY, secret, now=NOW)
    with pytest.raises(NotAuthentic):
        authenticate(provider, {}, b"", secret, now=NOW)


@pytest.mark.parametrize("provider", Provider)
def test_an_empty_secret_lets_nobody_in(provider: Provider) -> None:
    with pytest.raises(NotAuthentic, match="secret is empty"):
        authenticate(provider, signed_headers(provider, "push", BODY, ""), BODY, "", now=NOW)


@pytest.mark.parametrize("secret", ["whsec_", "whsec_AAAA", "whsec_not base64!"])
def test_a_signing_token_without_a_key_lets_nobody_in(secret: str) -> None:
    headers = signed_headers(Provider.GITLAB, "Push Hook", BODY, SIGNING_TOKEN)
    with pytest.raises(NotAuthentic, match="no signing token"):
        authenticate(Provider.GITLAB, headers, BODY, secret, now=NOW)


def test_a_signing_token_is_not_sent_along_instead_of_a_signature() -> None:
    headers = {"x-gitlab-event": "Push Hook", "x-gitlab-token": SIGNING_TOKEN, "idempotency-key": "1"}
    with pytest.raises(NotAuthentic, match="webhook-signature is missing"):
        authenticate(Provider.GITLAB, headers, BODY, SIGNING_TOKEN, now=NOW)


@pytest.mark.parametrize("seconds", [-301, 301, 86_400])
def test_a_signed_time_that_is_not_now_is_refused(seconds: int) -> None:
    headers = signed_headers(Provider.GITLAB, "Push Hook", BODY, SIGNING_TOKEN, now=NOW + timedelta(seconds=seconds))
    with pytest.raises(NotAuthentic, match="five minutes"):
        authenticate(Provider.GITLAB, headers, BODY, SIGNING_TOKEN, now=NOW)


def test_one_of_several_signatures_is_enough_while_a_token_is_changed() -> None:
    headers = signed_headers(Provider.GITLAB, "Push Hook", BODY, SIGNING_TOKEN)
    headers["webhook-signature"] = f"v1,bm90IHRoaXM= v1a,x {headers['webhook-signature']}"
    assert authenticate(Provider.GITLAB, headers, BODY, SIGNING_TOKEN, now=NOW).event == "Push Hook"


def test_forgejos_own_header_is_the_one_that_counts() -> None:
    headers = signed_headers(Provider.GITEA, "push", BODY)
    assert authenticate(
        Provider.GITEA, headers | {"x-forgejo-signature": headers["x-gitea-signature"]}, BODY, SECRET, now=NOW
    )
    with pytest.raises(NotAuthentic, match="x-forgejo-signature does not match"):
        authenticate(Provider.GITEA, headers | {"x-forgejo-signature": "00"}, BODY, SECRET, now=NOW)


@pytest.mark.parametrize("given", ["a b", "x" * 129, "é", "a.b", "a\n"])
def test_an_id_is_short_and_plain(given: str) -> None:
    with pytest.raises(NotAuthentic, match="ID"):
        authenticate(
            Provider.GITHUB, signed_headers(Provider.GITHUB, "push", BODY, delivery=given), BODY, SECRET, now=NOW
        )


def test_without_an_id_the_body_is_the_id() -> None:
    headers = {"x-gitlab-event": "Push Hook", "x-gitlab-token": SECRET}
    one, other = (authenticate(Provider.GITLAB, headers, body, SECRET, now=NOW) for body in (b"1", b"2"))
    assert one.id.startswith("sha256=")
    assert one.id != other.id
