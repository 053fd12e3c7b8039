"""The report in a real browser, on Prefect's new pages and on its older ones: all is seen, and nothing runs."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from playwright.sync_api import Browser, Dialog, Page, expect

from caisson.report import (
    BuildReport,
    DockerfileStepReport,
    GuardCount,
    GuardDenial,
    GuardReport,
    LimitsReport,
    PostureReport,
    StepReport,
    TagReport,
)
from caisson.report_markdown import render_markdown, summary
from caisson.untrusted import clean, markdown
from tests.ui.conftest import SCREENSHOTS, TIMEOUT_SECONDS, Ui, open_page

expect.set_options(timeout=TIMEOUT_SECONDS * 1000)

EVIL = (
    "a|b`c`<img src=x onerror=alert(1)>![](http://evil.example/i.png)[x](javascript:alert(2))"
    "<script>alert(3)</script><!-- </code></pre></details> **b** ~~s~~ http://evil.example www.evil.example"
)


def _report(text: str) -> BuildReport:
    return BuildReport(
        outcome="failed",
        build_id="0123456789ab",
        host=text,
        engine="26.1.5",
        repository_url=text,
        ref=text,
        sha="a" * 40,
        spec_hash="b" * 64,
        builder="buildkit",
        builder_reason=text,
        image_id=f"sha256:{'c' * 64}",
        image="team/app",
        tags=[TagReport(reference="team/app:main", rule="branch", reason=text, previous=f"sha256:{'d' * 64}")],
        size=1 << 28,
        started=datetime(2025, 3, 1, tzinfo=UTC),
        seconds=12.5,
        steps=[StepReport(name="build", state="failed", seconds=9, reason=text)],
        dockerfile_steps=[
            DockerfileStepReport(name="[1/2] FROM debian", seconds=0, cached=True),
            DockerfileStepReport(name=text, seconds=8, cached=False, error=text),
        ],
        limits=LimitsReport(status="verified", reason=text, asked_memory=2 << 30, memory=2 << 30),
        posture=[
            PostureReport(title=text, status="fail", reason=text, source=text),
            PostureReport(title="An init process", status="pass", reason=text),
        ],
        guard=GuardReport(
            counts=[GuardCount(verdict="deny", rule="endpoint", count=1)],
            denied=1,
            denials=[GuardDenial(time="2025-03-01", method="GET", path=text, rule="endpoint", reason=text)],
            audit_file="/var/lib/caisson/builds/run.guard.jsonl",
        ),
        builder_removed=True,
        notes=[text],
        log_tail=["the first line", "", text, "the last line"],
        log_file="/var/lib/caisson/builds/run.log",
        failure={"kind": "build-step-failed", "message": text, "hint": text, "details": {"last_lines": [text]}},
    )


@pytest.fixture(scope="module", params=["v1", "v2"])
def report_page(request: pytest.FixtureRequest, browser: Browser, ui: Ui) -> Iterator[Page]:
    """The page of an artifact with a stranger's text everywhere; it fails the last test when anything of that ran."""
    with open_page(browser) as page:
        yield from _show(page, ui, request.param)


def _show(page: Page, ui: Ui, version: str) -> Iterator[Page]:
    ran: list[str] = []

    def on_dialog(dialog: Dialog) -> None:
        ran.append(dialog.message)
        dialog.dismiss()

    page.on("dialog", on_dialog)
    page.on("request", lambda asked: ran.append(asked.url) if "evil" in asked.url else None)
    report = _report(EVIL)
    with ui.host.api as api:
        body = {
            "key": "build-report",
            "type": "markdown",
            "description": markdown(summary(report)),
            "data": render_markdown(report),
        }
        artifact = api.post("/artifacts/", body)["id"]
    page.goto(f"{getattr(ui, version)}/artifacts/artifact/{artifact}")
    expect(page.get_by_role("img", name="The duration of each step")).to_be_visible()
    page.set_viewport_size({"width": 1300, "height": 2400})
    page.screenshot(path=SCREENSHOTS / f"report-{version}.png")
    yield page
    assert ran == []


def test_a_strangers_text_is_text(report_page: Page) -> None:
    shown = " ".join(report_page.locator("body").inner_text().split())
    # Message, way out, last lines, why of the tag, repository, ref, builder, host, limits, posture, guard, note.
    assert shown.count(clean(EVIL)) >= 12
    assert report_page.locator("[href*=evil], [href^=javascript], [src*=evil], [onerror]").count() == 0
    assert report_page.locator("main img, section img, article img").count() <= 1


def test_the_picture_is_drawn(report_page: Page) -> None:
    picture = report_page.get_by_role("img", name="The duration of each step")
    assert picture.evaluate("image => [image.naturalWidth, image.naturalHeight]") == [720, 146]


def test_the_log_opens_at_a_click_and_is_whole(report_page: Page) -> None:
    first, last = report_page.get_by_text("the first line"), report_page.get_by_text("the last line")
    expect(first).to_be_hidden()
    report_page.get_by_text("The last 4 lines of the log").click()
    expect(first).to_be_visible()
    expect(last).to_be_visible()


def test_what_passes_is_seen_at_a_click(report_page: Page) -> None:
    passed = report_page.get_by_text("✓ An init process")
    expect(passed).to_be_hidden()
    report_page.get_by_text("The 1 that pass").click()
    expect(passed).to_be_visible()


def test_tables_are_tables(report_page: Page) -> None:
    expect(report_page.get_by_role("columnheader", name="The kernel has")).to_be_visible()
    expect(report_page.get_by_role("cell", name="2 GiB").first).to_be_visible()
    expect(report_page.get_by_role("cell", name="✗ fail")).to_be_visible()
    expect(report_page.get_by_role("heading", name="team/app").first).to_be_visible()
