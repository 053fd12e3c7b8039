"""What looks after the host runs by schedules that people see in Prefect's UI, and switch off and on there."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import Page, expect

from deployments.names import audit_deployment, monitor_deployment, prune_deployment
from tests.flows.caisson_host import wait_for
from tests.ui.conftest import SCREENSHOTS, TIMEOUT_SECONDS, Ui

expect.set_options(timeout=TIMEOUT_SECONDS * 1000)
NAMES = {monitor_deployment: "Every 1 minute", prune_deployment: "Every 6 hours", audit_deployment: "Every 1 day"}


@pytest.mark.parametrize("name", NAMES, ids=lambda name: name.__name__.removesuffix("_deployment"))
def test_a_schedule_is_seen_with_its_next_run_and_can_be_paused(name: Any, page: Page, ui: Ui) -> None:
    def schedule() -> dict[str, Any]:
        with ui.host.api as api:
            (found,) = api.get(f"/deployments/name/{name(ui.host.settings)}")["schedules"]
        return dict(found)

    with ui.host.api as api:
        deployment = api.get(f"/deployments/name/{name(ui.host.settings)}")["id"]
        if not schedule()["active"]:
            # An earlier try has left it so.
            api.patch(f"/deployments/{deployment}/schedules/{schedule()['id']}", {"active": True})
        # Prefect's scheduler makes the runs to come once a minute, and the page looks for the next one as it opens.
        coming = {"state": {"type": {"any_": ["SCHEDULED"]}}}
        ahead = {"deployments": {"id": {"any_": [deployment]}}, "flow_runs": coming}
        wait_for("its next run", lambda: api.post("/flow_runs/count", ahead), seconds=150)
    page.goto(f"{ui.v2}/deployments/deployment/{deployment}")
    switch = page.get_by_role("switch", name=f"toggle {NAMES[name]}")
    expect(switch).to_be_checked()
    expect(page.get_by_text("Next Run")).to_be_visible()
    page.screenshot(path=SCREENSHOTS / f"schedule-{name.__name__}.png", full_page=True)
    switch.click()
    wait_for("it is paused", lambda: not schedule()["active"])
    # What a click means depends on what the page shows.
    expect(switch).not_to_be_checked()
    switch.click()
    wait_for("it is active again", lambda: schedule()["active"])
    expect(switch).to_be_checked()
