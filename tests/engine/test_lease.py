"""A real build holds what it reads and makes, while it runs and no longer."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from caisson.engine import Engine
from caisson.errors import BuildStepFailed
from caisson.leases import Held, Leases
from caisson.ledger import Ledger
from caisson.settings import Settings
from tests.engine.conftest import Builds

BASE = "debian:trixie-slim"


def _leases(settings: Settings) -> Leases:
    return Leases(settings.state_dir / "leases", Ledger(settings.state_dir / "ledger.sqlite").leases)


@contextmanager
def _watched(settings: Settings) -> Iterator[set[str]]:
    """All names that were held at any time."""
    names: set[str] = set()
    stop = threading.Event()

    def watch() -> None:
        while not stop.is_set():
            names.update(name for lease in _leases(settings).held().leases for name in lease.names)
            time.sleep(0.05)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield names
    finally:
        stop.set()
        thread.join()


@pytest.mark.parametrize("builder", ["classic", "buildkit"])
def test_a_build_holds_base_target_and_image_until_it_ends(builds: Builds, engine: Engine, builder: str) -> None:
    if builder == "buildkit":
        builds = builds.with_settings(hold_steps=False)
    base = engine.inspect_image(BASE)
    assert base is not None
    repository = builds.repository(f"FROM {BASE}\nRUN sleep 0.5\nLABEL lease={builder}\n", name=f"lease-{builder}")
    with _watched(builds.settings) as names:
        report = builds(repository, image="caisson-test/lease", builder=builder)
    expected = {f"docker.io/library/{BASE}", base.id, "docker.io/caisson-test/lease:main", report.image_id}
    assert expected <= names
    assert _leases(builds.settings).held() == Held()
    used = Ledger(builds.settings.state_dir / "ledger.sqlite").images.known()
    assert used[next(image for image in used if image == report.image_id)].last_use == "tagged"


def test_a_build_that_fails_gives_its_lease_back(builds: Builds) -> None:
    repository = builds.repository(f"FROM {BASE}\nRUN exit 3\n", name="lease-fails")
    with pytest.raises(BuildStepFailed):
        builds(repository, image="caisson-test/lease")
    assert _leases(builds.settings).held() == Held()
