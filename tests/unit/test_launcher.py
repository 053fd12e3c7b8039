"""What ``caisson up`` and ``caisson server`` refuse before they start; the launcher while its children live."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from caisson.errors import SettingsInvalid
from caisson.settings import Settings, load_settings
from deployments import launcher
from deployments.launcher import Service, up
from deployments.server import run_server
from deployments.state import find_running


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


READY_AND_WAITING = "import os, sys, time; os.write(int(sys.argv[1]), b'ready\\n'); time.sleep(60)"


def test_who_asks_learns_that_the_worker_died_and_that_the_next_one_takes_builds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = load_settings(_env_file=None, state_dir=tmp_path, api_url="http://127.0.0.1:1/api", gateway_port=0)
    workers: list[Service] = []

    def start(service: Service) -> None:
        workers.append(service)
        # It says that it is ready on the same descriptor as the real one.
        service.command = [sys.executable, "-c", READY_AND_WAITING, service.command[-1]]
        service.env = {}
        plain_start(service)

    plain_start = Service.start
    monkeypatch.setattr(Service, "start", start)
    stop = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(up, settings, stop=stop, say=lambda _: None)
        try:
            wait_until(lambda: is_ready(settings))
            (first,) = workers
            assert first.process is not None
            pid = first.process.pid
            # Long enough that nobody misses the time without a worker.
            first.backoff.first = 2
            first.process.kill()
            wait_until(lambda: not is_ready(settings))
            wait_until(lambda: is_ready(settings))
            assert first.process.pid != pid
        finally:
            stop.set()
        assert done.result(timeout=30) == 0
    assert find_running(settings) is None


def is_ready(settings: Settings) -> bool:
    running = find_running(settings)
    return running is not None and running.ready


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_the_launcher_looks_at_its_children_seldom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(_env_file=None, state_dir=tmp_path, api_url="http://127.0.0.1:9/api", gateway_port=0)
    looked: list[float] = []
    monkeypatch.setattr(launcher.Service, "start", lambda self: None)
    monkeypatch.setattr(launcher.Service, "keep", lambda self, say: looked.append(time.monotonic()))
    monkeypatch.setattr(launcher._Launcher, "_tell_readiness", lambda self: True)
    stop = threading.Event()
    running = threading.Thread(target=launcher.up, args=(settings,), kwargs={"stop": stop, "say": lambda words: None})
    running.start()
    time.sleep(1.2)
    stop.set()
    running.join(10)
    assert not running.is_alive()
    assert 1 <= len(looked) <= 4
