"""Alerts on a real Prefect server: what can't work is refused, what is set up tells, and a host's silence is told too.

A secret is never quoted.
"""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from caisson.errors import RequestInvalid
from caisson.settings import Settings
from deployments.alert_blocks import make_block
from deployments.alerts import set_alert
from deployments.hosts import HostRecord, variable_name
from deployments.prune_switches import silence_within
from deployments.server import client_environment
from deployments.state import StateDir
from tests.flows.caisson_host import ROOT, CaissonHost

Receiver = tuple[str, queue.Queue[dict[str, Any]]]
SETTINGS = Settings(_env_file=None)
SECRET = "s3cr3t-canary"
# The least that Prefect takes, in effect: 10 s of interval and grace.
INTERVAL = timedelta(seconds=5)
# The server looks every five seconds.
LATE_SECONDS = 20
TELL = """
import sys
from caisson.prune_events import prune_event
from tasks.emit_events import emit_events
emit_events(sys.argv[1], [prune_event(sys.argv[2], "as a prune tells it", "/var/lib/docker", {"host": sys.argv[1]})])
"""
KEEP = """
from caisson.settings import load_settings
from deployments.prune_switches import keep_switches
keep_switches(load_settings())
"""
MAKE_BLOCKS = """
import sys
from prefect.blocks.notifications import CustomWebhookNotificationBlock
from prefect.blocks.system import Secret
from prefect.blocks.webhook import Webhook
block = CustomWebhookNotificationBlock(name="ops", url=sys.argv[1], json_data={"told": "{{subject}}: {{body}}"})
block.save("ops", overwrite=True)
Webhook(url=sys.argv[1]).save("ops", overwrite=True)
Secret(value="s3cr3t-canary").save("ops", overwrite=True)
"""


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
        set_alert(SETTINGS, *arguments)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("to", [(), ("ops",), ("ops@example.com", "a b@example.com")])
def test_e_mail_goes_to_addresses(to: tuple[str, ...]) -> None:
    with pytest.raises(RequestInvalid, match=r"to: '.*' is no e-mail address"):
        set_alert(SETTINGS, "email", SECRET, sender="caisson@example.com", to=to)


@pytest.mark.parametrize("name", ["Ops", "a b", "-a", "a" * 41, "ops/team"])
def test_a_name_is_small_letters_digits_and_dashes(name: str) -> None:
    with pytest.raises(RequestInvalid, match="name: "):
        set_alert(SETTINGS, "webhook", "https://example.com/", name=name)


def test_what_slack_and_sendgrid_get_is_what_their_services_take() -> None:
    """Prefect's blocks send nothing at all where they don't know the address; here each knows its own."""
    slack = make_block("slack", "https://hooks.slack.com/services/T0ABCDEFG/B0ABCDEFG/abcdefghijklmnopqrstuvwx", (), "")
    email = make_block("email", "SG.key", ["ops@example.com"], "caisson@example.com")
    assert [str(server.service_name) for server in slack._apprise_client] == ["Slack"]
    assert [str(server.service_name) for server in email._apprise_client] == ["SendGrid"]


# --- on a real server


def run_code(host: CaissonHost, code: str, *arguments: str, **variables: str) -> None:
    """In a process of its own: Prefect reads its settings once in each."""
    env = client_environment(host.settings, StateDir(host.state_dir), host.env) | variables
    subprocess.run([sys.executable, "-c", code, *arguments], env=env, cwd=ROOT, check=True)


def automations(host: CaissonHost) -> dict[str, dict[str, Any]]:
    with host.api as api:
        found: list[dict[str, Any]] = api.post("/automations/filter", {})
    return {item["name"]: item for item in found if item["name"].startswith("caisson-")}


@pytest.fixture
def silent_host(caisson: CaissonHost) -> Iterator[str]:
    """The name of a host that is pruned every five seconds by what it has told of itself, and whose worker is dead."""
    record = HostRecord("silent.example", prune_seconds=int(INTERVAL.total_seconds()))
    name = variable_name(record.host)
    with caisson.api as api:
        api.post("/variables/", {"name": name, "value": record.value})
    yield record.host
    with caisson.api as api:
        api.delete(f"/variables/name/{name}")


def test_a_host_that_tells_of_no_prune_any_more_is_told_of_by_the_server(
    caisson: CaissonHost, silent_host: str, receiver: Receiver
) -> None:
    url, posted = receiver
    within = silence_within(INTERVAL).total_seconds()
    assert within == 15
    caisson.cli("alerts", "set", "webhook", "--name", "dead", stdin=f"{url}\n")
    caisson.cli("alerts", "set", "webhook", "--name", "dead", stdin=f"{url}\n")
    try:
        # This Caisson prunes by no schedule, and so owes none.
        assert sorted(automations(caisson)) == ["caisson-alert-dead", f"caisson-silence-dead@{silent_host}"]
        begun = last = time.monotonic()
        while time.monotonic() - begun < within + 5:
            last = time.monotonic()
            run_code(caisson, TELL, silent_host, "caisson.prune.finished")
            run_code(caisson, TELL, "another.example", "caisson.prune.finished")
        assert posted.empty()
        while True:
            run_code(caisson, TELL, "another.example", "caisson.prune.finished")
            if not posted.empty() or time.monotonic() - last > within + LATE_SECONDS:
                break
        told = posted.get_nowait()
        waited = time.monotonic() - last
        print(f"\n  expected within {within:.0f} s, told after {waited:.1f}")
        assert within < waited < within + LATE_SECONDS
        assert (told["event"], told["host"]) == ("caisson.prune.silent", silent_host)
        assert told["payload"]["interval_seconds"] == INTERVAL.total_seconds()
        assert told["message"].startswith(
            "Nothing was heard of a finished prune of silent.example for 10 s; one is expected every 5 s."
        )
    finally:
        caisson.cli("alerts", "remove", "dead")
    assert automations(caisson) == {}


def test_a_host_keeps_its_place_in_alerts_by_its_own_settings(caisson: CaissonHost, receiver: Receiver) -> None:
    url, _ = receiver
    name = "caisson-silence-ops@first"
    caisson.cli("alerts", "set", "webhook", "--name", "ops", stdin=f"{url}\n")
    try:
        assert sorted(automations(caisson)) == ["caisson-alert-ops"]
        run_code(caisson, KEEP, CAISSON_PRUNE_SECONDS="3600")
        made = automations(caisson)[name]
        assert (made["trigger"]["posture"], made["trigger"]["threshold"]) == ("Proactive", 1)
        assert made["trigger"]["within"] == 2 * 3600 + 600
        assert made["actions"][0]["block_document_id"] in json.dumps(automations(caisson)["caisson-alert-ops"])
        # An update would begin the wait anew.
        run_code(caisson, KEEP, CAISSON_PRUNE_SECONDS="3600")
        assert automations(caisson)[name]["updated"] == made["updated"]
        with caisson.api as api:
            api.patch(f"/automations/{made['id']}", {"enabled": False})
        run_code(caisson, KEEP, CAISSON_PRUNE_SECONDS="60")
        changed = automations(caisson)[name]
        assert (changed["id"], changed["trigger"]["within"], changed["enabled"]) == (made["id"], 180, False)
        run_code(caisson, KEEP, CAISSON_PRUNE_SECONDS="0")
        assert sorted(automations(caisson)) == ["caisson-alert-ops"]
    finally:
        caisson.cli("alerts", "remove", "ops")


@pytest.fixture
def peoples_blocks(caisson: CaissonHost, receiver: Receiver) -> Iterator[None]:
    """Blocks as people make them in Prefect, each of the name ``ops``."""
    run_code(caisson, MAKE_BLOCKS, receiver[0])
    yield
    with caisson.api as api:
        # Other tests take this database over, and look for the address: of such a block Prefect keeps it as it is.
        for block in api.post("/block_documents/filter", {}):
            if block["name"] == "ops":
                api.delete(f"/block_documents/{block['id']}")


@pytest.mark.usefixtures("peoples_blocks")
def test_an_alert_goes_through_any_notification_block_that_people_have_made(
    caisson: CaissonHost, receiver: Receiver
) -> None:
    url, posted = receiver
    caisson.cli("alerts", "set", "custom-webhook/ops")
    assert caisson.cli("alerts", "list").split() == ["ops", "custom-webhook/ops", "enabled"]
    caisson.cli("alerts", "test", "ops")
    told = posted.get(timeout=30)["told"]
    assert told.startswith("caisson.alert.test.ops on first: A test of Caisson's alert 'ops' from first")
    # A webhook of their own has the payload that one of ours has; the alert of that name goes there now.
    caisson.cli("alerts", "set", "webhook/ops")
    caisson.cli("alerts", "test", "ops")
    assert posted.get(timeout=30)["event"] == "caisson.alert.test.ops"
    caisson.cli("alerts", "set", "webhook", "--name", "ops", stdin=f"{url}\n")
    caisson.cli("alerts", "set", "webhook/ops")
    assert block_names(caisson) >= {"custom-webhook/ops", "webhook/ops"}
    assert not {name for name in block_names(caisson) if "caisson-alert" in name}
    caisson.cli("alerts", "remove", "ops")
    assert block_names(caisson) >= {"custom-webhook/ops", "webhook/ops"}, "what people have made stays"
    assert posted.empty()


@pytest.mark.usefixtures("peoples_blocks")
@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("sms", "kind: 'sms' is none of webhook, slack, email, and names no block of Prefect's."),
        ("discord-webhook/", "kind: 'discord-webhook/' is none of webhook, slack, email"),
        ("discord-webhook/../x", "kind: 'discord-webhook/../x' is none of webhook, slack, email"),
        ("pigeon-post/ops", "kind: Prefect has no type of block pigeon-post."),
        ("discord-webhook/ops", "kind: there is no block discord-webhook/ops in Prefect."),
        ("secret/ops", "kind: the block secret/ops is of a type that can send no notifications."),
    ],
)
def test_a_block_that_can_not_tell_is_refused_in_one_sentence(caisson: CaissonHost, kind: str, message: str) -> None:
    command = [str(Path(sys.executable).with_name("caisson")), "alerts", "set", kind]
    done = subprocess.run(command, env=caisson.env, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (RequestInvalid.exit_code, "")
    assert message in done.stderr.replace("\n", " ")
    assert "Traceback" not in done.stderr
    assert automations(caisson) == {}


def block_names(host: CaissonHost) -> set[str]:
    with host.api as api:
        found = api.post("/block_documents/filter", {})
    return {f"{block['block_type']['slug']}/{block['name']}" for block in found}
