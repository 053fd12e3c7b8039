"""A real ``caisson server`` and one host: when that is lost, no run goes on for ever by its state."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from deployments.server import is_healthy
from tests.flows.caisson_host import ROOT, START_SECONDS, CaissonHost, started_pid, wait_for

HEARTBEAT_SECONDS = 2


def test_what_the_only_host_left_going_on_has_crashed(tmp_path: Path) -> None:
    heartbeat = {"CAISSON_HEARTBEAT_SECONDS": str(HEARTBEAT_SECONDS)}
    server = CaissonHost(tmp_path / "server", "server", dict(heartbeat))
    api_url = f"http://127.0.0.1:{server.variables['CAISSON_SERVER_PORT']}/api"
    worker = CaissonHost(tmp_path / "worker", "lost", heartbeat | {"CAISSON_API_URL": api_url})
    program = str(Path(sys.executable).with_name("caisson"))
    process = subprocess.Popen([program, "server"], env=server.env, cwd=ROOT)
    try:
        wait_for("the server answers", lambda: is_healthy(api_url), seconds=START_SECONDS)
        worker.up()
        worker.apply_samples()
        run = worker.trigger("sample-sleep", seconds=300, marks=str(tmp_path))
        started_pid(tmp_path)
        for pid in worker.processes():
            os.kill(pid, signal.SIGKILL)
        lost = time.monotonic()
        state = worker.wait_for_state(run, "Crashed", seconds=3 * HEARTBEAT_SECONDS + 30)
        assert state.message == "The host of this run is gone: its worker has not been heard of for too long."
        assert time.monotonic() - lost > HEARTBEAT_SECONDS
    finally:
        process.terminate()
        process.wait(30)
