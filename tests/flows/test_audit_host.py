"""The audit in a real Caisson: by hand, its page, its event once, and what is new the next time."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from caisson.docker_engine import DockerEngine
from deployments.names import audit_deployment
from deployments.trigger import FlowRunId
from tests.conftest import find_engines
from tests.flows.caisson_host import CaissonHost, wait_for


@pytest.fixture
def privileged() -> Iterator[str]:
    """A privileged container that is never started, on the first engine; its name."""
    name = f"caisson-test-audit-{uuid.uuid4().hex[:8]}"
    with DockerEngine(find_engines()[0].docker_host) as engine:
        body = {"Image": "debian:trixie-slim", "Cmd": ["true"], "HostConfig": {"Privileged": True}}
        container = engine.create_container(name, body)
        try:
            yield name
        finally:
            engine.remove_container(container)


def audit(host: CaissonHost) -> FlowRunId:
    run = host.trigger("audit-host")
    host.wait_for_state(run, "Completed")
    return run


def page(host: CaissonHost, run: FlowRunId) -> str:
    with host.api as api:
        (artifact,) = api.post("/artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [run]}}})
    assert artifact["key"] == "audit-first"
    return str(artifact["data"])


def events(host: CaissonHost) -> list[dict[str, Any]]:
    wanted = {"filter": {"event": {"name": ["caisson.audit.finding"]}, "order": "ASC"}, "limit": 50}
    with host.api as api:
        found: list[dict[str, Any]] = api.post("/events/filter", wanted)["events"]
    return found


def test_an_audit_has_a_page_an_event_and_a_memory(caisson: CaissonHost, privileged: str) -> None:
    with caisson.api as api:
        deployment = api.get(f"/deployments/name/{audit_deployment(caisson.settings)}")
    assert deployment["work_queue_name"] == "care-first"

    first = page(caisson, audit(caisson))
    row = next(line for line in first.splitlines() if "`privileged`" in line and privileged in line)
    assert "**new**" not in row
    assert "CAISSON\\_AUDIT\\_SECONDS is 0" in first
    told = wait_for("the event", lambda: events(caisson))
    assert privileged in {item["container"] for item in told[0]["payload"]["findings"]}

    with DockerEngine(find_engines()[0].docker_host) as engine:
        late = f"{privileged}-late"
        body = {"Image": "debian:trixie-slim", "Cmd": ["true"], "HostConfig": {"Privileged": True}}
        container = engine.create_container(late, body)
        try:
            second = page(caisson, audit(caisson))
        finally:
            engine.remove_container(container)
    row = next(line for line in second.splitlines() if "`privileged`" in line and late in line)
    assert "**new**" in row
    again = wait_for("the next one", lambda: events(caisson)[len(told) :])[0]
    findings = {item["container"] for item in again["payload"]["findings"] if item["rule"] == "privileged"}
    assert late in findings
    assert privileged not in findings
    third = page(caisson, audit(caisson))
    assert f"- `privileged@{late}`" in third.split("## Mended")[1]
