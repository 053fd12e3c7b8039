"""A real browser, and a real Caisson for it to look at, whose builds run on the host's own engine."""

from __future__ import annotations

import os
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from caisson.docker_engine import DockerEngine
from deployments.git_daemon import make_repository, served
from tests.conftest import find_engines
from tests.flows.caisson_host import CaissonHost

CHROMIUM = "/usr/bin/chromium"
FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
    # No page gets at another host, whatever it asks for.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)
# Slow machines render slowly; what is never there fails all the same.
TIMEOUT_SECONDS = 60.0
IMAGES = "caisson-ui/"
SCREENSHOTS = Path(os.environ.get("CAISSON_TEST_SCREENSHOTS") or tempfile.mkdtemp(prefix="caisson-screenshots-"))

DOCKERFILE = """\
FROM debian:trixie-slim
LABEL run={run}
RUN for i in $(seq {seconds}); do echo "tick $i"; sleep 1; done
"""


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Debian's Chromium; its absence fails the tests."""
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, headless=True, args=list(FLAGS))
        yield chromium
        chromium.close()


@contextmanager
def open_page(browser: Browser) -> Iterator[Page]:
    """A page of a browser that has seen nothing yet."""
    context = browser.new_context(viewport={"width": 1300, "height": 1000})
    context.set_default_timeout(TIMEOUT_SECONDS * 1000)
    yield context.new_page()
    context.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    with open_page(browser) as page:
        yield page


@dataclass(frozen=True)
class Ui:
    """The pages of a Caisson that is up: Prefect's new ones below ``v2``, its older ones below ``v1``."""

    host: CaissonHost
    v1: str
    v2: str
    form: str


@pytest.fixture(scope="session")
def caisson(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CaissonHost]:
    """A Caisson that is up, and afterwards none of its builders and images is left."""
    engine = find_engines()[0]
    host = CaissonHost(
        tmp_path_factory.mktemp("caisson"),
        "ui-host",
        {
            "CAISSON_DOCKER_HOST": engine.docker_host,
            "CAISSON_MIN_FREE_BYTES": "64m",
            "CAISSON_TIMEOUT_MINUTES": "5",
            "CAISSON_DRAIN_SECONDS": "1",
            # The defaults of what runs by a schedule, which other tests do without.
            "CAISSON_MONITOR_SECONDS": "60",
            "CAISSON_PRUNE_SECONDS": "21600",
            "CAISSON_AUDIT_SECONDS": "86400",
        },
    )
    try:
        host.up()
        yield host
    finally:
        host.stop()
        with DockerEngine(engine.docker_host) as docker:
            for image in docker.list_images():
                for tag in image.tags:
                    if tag.startswith(IMAGES):
                        docker.untag_image(tag)
            assert docker.list_containers({"caisson.host": "ui-host"}) == []


@pytest.fixture(scope="session")
def ui(caisson: CaissonHost) -> Ui:
    base = f"http://127.0.0.1:{caisson.settings.server_port}"
    with caisson.api as api:
        deployment = api.get("/deployments/name/build-image/ui-host")["id"]
    return Ui(host=caisson, v1=base, v2=f"{base}/v2", form=f"{base}/v2/deployments/deployment/{deployment}/run")


@contextmanager
def talking(directory: Path, seconds: int) -> Iterator[str]:
    """URL of a repository whose build talks for so long."""
    content = directory / "content"
    content.mkdir()
    # Content of this run alone: the engine still has the steps of earlier ones.
    (content / "Dockerfile").write_text(DOCKERFILE.format(run=uuid.uuid4().hex, seconds=seconds))
    (content / "VERSION").write_text("1.2.3\n")
    with served(make_repository(content, directory / "served" / "app.git"), find_engines()[0].gateway) as url:
        yield url


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[str]:
    with talking(tmp_path, 10) as url:
        yield url
