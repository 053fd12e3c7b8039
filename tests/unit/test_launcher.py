"""What ``caisson up`` and ``caisson server`` refuse before they start anything."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from caisson.errors import SettingsInvalid
from caisson.settings import Settings, load_settings
from deployments.launcher import Service, up
from deployments.server import run_server


def start_up(settings: Settings) -> None:
    stop = threading.Event()
    stop.set()
    up(settings, stop=stop, say=lambda _: None)


@pytest.mark.parametrize("start", [run_server, start_up])
@pytest.mark.parametrize(("address", "told"), [("0.0.0.0", r"0\.0\.0\.0"), ("", "every address"), ("::", "::")])
def test_a_server_without_a_password_listens_to_this_host_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start: Callable[[Settings], None], address: str, told: str
) -> None:
    def started(service: Service) -> None:
        raise AssertionError(f"{service.name} was started")

    monkeypatch.setattr(Service, "start", started)
    settings = load_settings(_env_file=None, state_dir=tmp_path, server_host=address)
    with pytest.raises(SettingsInvalid, match=rf"^CAISSON_SERVER_HOST: {told} can be reached by others"):
        start(settings)
