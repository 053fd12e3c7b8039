"""The form that starts a build in Prefect's UI, and what its pages show of the run, as a person sees them."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Locator, Page, expect
from pydantic import BaseModel

from caisson.request import BuildRequest
from deployments.names import BUILD_FLOW
from deployments.trigger import FlowRunId
from tests.ui.conftest import SCREENSHOTS, TIMEOUT_SECONDS, Ui, open_page

expect.set_options(timeout=TIMEOUT_SECONDS * 1000)


def _fields(model: type[BaseModel]) -> list[tuple[str, str]]:
    """Label and description of every field, boxes before what is in them, as the form is to show them."""
    rows: list[tuple[str, str]] = []
    for field in model.model_fields.values():
        label = f"{field.title}{'' if field.is_required() else ' (Optional)'}"
        nested = field.annotation if isinstance(field.annotation, type) else None
        if nested is not None and issubclass(nested, BaseModel):
            rows.append((label, (nested.__doc__ or "").strip()))
            rows.extend(_fields(nested))
        else:
            rows.append((label, field.description or ""))
    return rows


def _box(page: Page, label: str) -> Locator:
    """What is filled in below a label."""
    return page.locator(f'//label[.="{label}"]/../../../fieldset')


def _open(page: Page, ui: Ui) -> Page:
    page.goto(ui.form)
    expect(page.get_by_label("Repository", exact=True)).to_be_visible()
    return page


@pytest.fixture(scope="module")
def form(browser: Browser, ui: Ui) -> Iterator[Page]:
    """The form, for tests that only look at it."""
    with open_page(browser) as page:
        _open(page, ui)
        page.screenshot(path=SCREENSHOTS / "form.png", full_page=True)
        yield page


def test_every_field_has_its_title_and_its_description_in_the_order_of_the_request(form: Page) -> None:
    rows = [
        (label.inner_text(), label.locator("xpath=following-sibling::p").inner_text())
        for label in form.locator('//label[.="request"]/../../../fieldset//label').all()
    ]
    assert rows == _fields(BuildRequest)


def test_no_description_shows_markup(form: Page) -> None:
    assert "`" not in form.locator("form").inner_text()


def test_defaults_are_filled_in(form: Page) -> None:
    switches = {"Push": False, "No cache": False, "Submodules": False, "Git LFS": False}
    switches |= dict.fromkeys(("Commit", "Short commit", "Branch", "Pull request", "Version"), True)
    for title, on in switches.items():
        expect(_box(form, f"{title} (Optional)").get_by_role("switch")).to_be_checked(checked=on)
    for title in ("CPUs", "Processes", "Timeout"):
        expect(_box(form, f"{title} (Optional)").get_by_role("spinbutton")).to_have_value("0")
    for title in ("Build arguments", "Labels"):
        expect(_box(form, f"{title} (Optional)").get_by_role("textbox")).to_have_text("{}")
    for title in ("Builder", "Default branch"):
        expect(form.get_by_role("button", name=f"Select {title}")).to_have_text("auto")


@pytest.mark.parametrize(
    ("title", "choices"),
    [("Builder", ["auto", "buildkit", "classic"]), ("Default branch", ["auto", "latest", "edge", "none"])],
)
def test_a_choice_is_chosen_from_a_list(form: Page, title: str, choices: list[str]) -> None:
    form.get_by_role("button", name=f"Select {title}").click()
    expect(form.get_by_role("option")).to_have_text(choices)
    form.keyboard.press("Escape")
    expect(form.get_by_role("option")).to_have_count(0)


def test_tags_and_limits_are_boxes_of_their_own(form: Page) -> None:
    expect(_box(form, "Tags (Optional)").get_by_role("switch")).to_have_count(5)
    expect(_box(form, "Limits (Optional)").get_by_role("spinbutton")).to_have_count(3)


def test_a_required_field_that_is_empty_is_told_where_it_is(page: Page, ui: Ui) -> None:
    form = _open(page, ui)
    form.get_by_role("button", name="Submit").click()
    for label, name in (("Repository", "repository_url"), ("Image", "image")):
        told = _box(form, label).locator("xpath=following-sibling::p")
        expect(told).to_have_text(f"'{name}' is a required property")


def test_a_url_with_a_password_is_refused_at_the_field_and_kept_nowhere(page: Page, ui: Ui) -> None:
    form = _open(page, ui)
    form.get_by_label("Repository", exact=True).fill("https://user:s3cr3t-canary@git.example/app.git")
    form.get_by_label("Image", exact=True).fill("caisson-ui/app")
    form.get_by_role("button", name="Submit").click()
    expect(_box(form, "Repository").locator("xpath=following-sibling::p")).to_contain_text("does not match")
    kept = [path for path in ui.host.state_dir.rglob("*") if path.is_file() and b"s3cr3t-canary" in path.read_bytes()]
    assert kept == []


def test_a_filled_form_becomes_a_build_that_is_seen_live_and_a_report_with_its_picture(
    page: Page, ui: Ui, repository: str
) -> None:
    form = _open(page, ui)
    form.get_by_label("Repository", exact=True).fill(repository)
    form.get_by_label("Ref (Optional)", exact=True).fill("v1.2.3")
    form.get_by_label("Image", exact=True).fill("caisson-ui/app")
    form.get_by_role("button", name="Submit").click()
    expect(form).to_have_url(re.compile(r"\?tab=Runs$"))
    with ui.host.api as api:
        newest = {"flows": {"name": {"any_": [BUILD_FLOW]}}, "sort": "EXPECTED_START_TIME_DESC"}
        run = FlowRunId(api.post("/flow_runs/filter", newest)[0]["id"])

    page.goto(f"{ui.v2}/runs/flow-run/{run}")
    # The page draws only the lines that are in view.
    page.get_by_role("combobox").filter(has_text="Oldest to newest").click()
    page.get_by_role("option", name="Newest to oldest").click()
    expect(page.get_by_text("tick 3").first).to_be_visible()
    assert ui.host.state(run).state_name == "Running", "the log is seen only when all is over"
    state = ui.host.wait_for_state(run, "Completed", "Failed", "Crashed", seconds=120)
    assert state.state_name == "Completed", state.message

    page.goto(f"{ui.v2}/runs/flow-run/{run}?tab=Artifacts")
    page.get_by_text("build-report", exact=True).click()
    # Of the reports of all builds that of this one.
    with ui.host.api as api:
        wanted = {"artifacts": {"flow_run_id": {"any_": [run]}, "key": {"any_": ["build-report"]}}}
        (artifact,) = api.post("/artifacts/filter", wanted)
    page.get_by_role("link", name=artifact["id"][:8], exact=True).click()
    expect(page.get_by_role("heading", name="Built caisson-ui/app at")).to_be_visible()
    picture = page.get_by_role("img", name="The duration of each step")
    expect(picture).to_be_visible()
    assert picture.evaluate("image => image.naturalWidth") > 0
    for tag in ("1.2.3", "1.2", "latest"):
        expect(page.get_by_role("cell", name=tag, exact=True)).to_be_visible()
    page.screenshot(path=SCREENSHOTS / "report-of-a-build.png", full_page=True)
