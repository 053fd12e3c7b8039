"""A build that is cancelled by a click on its page in Prefect's UI."""

from __future__ import annotations

import time
from pathlib import Path

from playwright.sync_api import Page, expect

from caisson.docker_engine import DockerEngine
from tests.conftest import find_engines
from tests.flows.caisson_host import wait_for
from tests.ui.conftest import SCREENSHOTS, TIMEOUT_SECONDS, Ui, talking

expect.set_options(timeout=TIMEOUT_SECONDS * 1000)


def test_a_build_that_is_cancelled_on_its_page_is_gone_within_ten_seconds(page: Page, ui: Ui, tmp_path: Path) -> None:
    with talking(tmp_path, 120) as repository:
        _cancel_by_hand(page, ui, repository)


def _cancel_by_hand(page: Page, ui: Ui, repository: str) -> None:
    run = ui.host.trigger("build-image", request={"repository_url": repository, "image": "caisson-ui/cancelled"})
    page.goto(f"{ui.v2}/runs/flow-run/{run}")
    # Of a log's many lines the page shows the first ones, in the order that is chosen.
    page.get_by_role("combobox", name="log sort order").click()
    page.get_by_role("option", name="Newest to oldest").click()
    expect(page.get_by_text("tick 1").first).to_be_visible()
    page.get_by_role("button", name="Open menu").first.click()
    page.get_by_role("menuitem", name="Cancel").click()
    page.screenshot(path=SCREENSHOTS / "cancel.png")
    page.get_by_role("alertdialog").get_by_role("button", name="Cancel").last.click()
    clicked = time.monotonic()
    with DockerEngine(find_engines()[0].docker_host) as docker:
        wait_for("the builder is gone", lambda: not docker.list_containers({"caisson.flow-run": str(run)}), seconds=10)
    assert ui.host.wait_for_state(run, "Cancelled", seconds=10).state_name == "Cancelled"
    assert time.monotonic() - clicked < 10
