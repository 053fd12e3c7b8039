"""The form that starts a prune in Prefect's UI, as a person sees it: as it stands it removes nothing."""

from __future__ import annotations

import re
from contextlib import suppress

from playwright.sync_api import Locator, Page, expect
from playwright.sync_api import TimeoutError as PlaywrightTimeoutError

from deployments.names import prune_deployment
from deployments.trigger import FlowRunId
from tests.ui.conftest import SCREENSHOTS, TIMEOUT_SECONDS, Ui

expect.set_options(timeout=TIMEOUT_SECONDS * 1000)
_RUNS = re.compile(r"\?tab=Runs$")


def _field(page: Page, label: str) -> Locator:
    return page.locator(f'//label[.="{label} (Optional)"]/../../../fieldset').first


def _submit(page: Page) -> None:
    """A picture of the whole page has resized it, and a click may have met a button that was on its way."""
    with suppress(PlaywrightTimeoutError):
        page.get_by_role("button", name="Submit").click()
        page.wait_for_url(_RUNS, timeout=15_000)
        return
    page.get_by_role("button", name="Submit").click()
    expect(page).to_have_url(_RUNS)


def test_the_form_as_it_stands_is_a_dry_run_by_the_hosts_policy(page: Page, ui: Ui) -> None:
    with ui.host.api as api:
        deployment = api.get(f"/deployments/name/{prune_deployment(ui.host.settings)}")["id"]
    page.goto(f"{ui.v2}/deployments/deployment/{deployment}/run")
    for name, on in {"dry_run": True, "under_pressure": False, "own_policy": False}.items():
        expect(_field(page, name).get_by_role("switch")).to_be_checked(checked=on)
    expect(_field(page, "Goes after").get_by_role("textbox")).to_have_value("30d")
    expect(_field(page, "At most").get_by_role("textbox")).to_have_value("20g")
    for title in ("Rules", "Otherwise", "Keep", "Build cache"):
        expect(page.get_by_text(f"{title} (Optional)", exact=True).first).to_be_visible()
    expect(page.get_by_text("Only show what would go, and why")).to_be_visible()
    page.screenshot(path=SCREENSHOTS / "prune-form.png", full_page=True)

    _submit(page)
    with ui.host.api as api:
        found = api.post("/flow_runs/filter", {"deployments": {"id": {"any_": [deployment]}}})
    run = max((run for run in found if not run["auto_scheduled"]), key=lambda run: str(run["created"]))
    state = ui.host.wait_for_state(FlowRunId(run["id"]), "Completed", "Failed", "Crashed", seconds=120)
    assert state.state_name == "Completed", state
    assert state.message.startswith("A dry run: nothing was removed. ")

    page.goto(f"{ui.v2}/runs/flow-run/{run['id']}?tab=Artifacts")
    page.get_by_text("prune-plan-ui-host", exact=True).first.click()
    page.get_by_role("link", name=re.compile(r"^[0-9a-f]{8}$")).first.click()
    expect(page.get_by_role("heading", name=re.compile("^(Would remove|Nothing would be removed)"))).to_be_visible()
    page.screenshot(path=SCREENSHOTS / "prune-plan.png", full_page=True)
