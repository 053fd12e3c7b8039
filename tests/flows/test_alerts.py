"""What can't work as an alert is refused before Prefect is asked, and a secret is never quoted."""

from __future__ import annotations

from typing import Any

import pytest

from caisson.errors import RequestInvalid
from deployments.alerts import _block, set_alert

SECRET = "s3cr3t-canary"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("webhook", ""), "URL: it is empty"),
        (("webhook", f"ftp://example.com/{SECRET}"), "URL: it is no http"),
        (("slack", SECRET), "URL: it is no http"),
        (("slack", f"https://example.com/services/T0/B0/{SECRET}"), "URL: it is no webhook of Slack's"),
        (("webhook", f"https:///{SECRET}"), "URL: it is no http"),
        (("webhook", f"https://example.com/{SECRET} x"), "URL: it is no http"),
        (("email", ""), "API key: it is empty"),
        (("email", SECRET), "from: '' is no e-mail address"),
    ],
)
def test_what_is_no_address_is_refused_without_being_quoted(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(RequestInvalid, match=message) as caught:
        set_alert(*arguments)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("to", [(), ("ops",), ("ops@example.com", "a b@example.com")])
def test_e_mail_goes_to_addresses(to: tuple[str, ...]) -> None:
    with pytest.raises(RequestInvalid, match=r"to: '.*' is no e-mail address"):
        set_alert("email", SECRET, sender="caisson@example.com", to=to)


@pytest.mark.parametrize("name", ["Ops", "a b", "-a", "a" * 41, "ops/team"])
def test_a_name_is_small_letters_digits_and_dashes(name: str) -> None:
    with pytest.raises(RequestInvalid, match="name: "):
        set_alert("webhook", "https://example.com/", name=name)


def test_what_slack_and_sendgrid_get_is_what_their_services_take() -> None:
    """Prefect's blocks send nothing at all where they don't know the address; here each knows its own."""
    slack = _block("slack", "https://hooks.slack.com/services/T0ABCDEFG/B0ABCDEFG/abcdefghijklmnopqrstuvwx", (), "")
    email = _block("email", "SG.key", ["ops@example.com"], "caisson@example.com")
    assert [str(server.service_name) for server in slack._apprise_client] == ["Slack"]
    assert [str(server.service_name) for server in email._apprise_client] == ["SendGrid"]
