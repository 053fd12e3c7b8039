"""``caisson up`` when its parts, or it itself, are stopped or killed: nothing runs on, no run is in a false state."""

from __future__ import annotations

import os
import signal
import socket
import time
from pathlib import Path

import pytest

from caisson.errors import SettingsInvalid
from deployments.launcher import down
from deployments.trigger import LogLine, follow
from tests.flows.caisson_host import CaissonHost, free_port, is_alive, started_pid, wait_for


def test_sigterm_cancels_what_the_drain_leaves_and_nothing_runs_on(
    mortal: CaissonHost, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    long, short = tmp_path / "long", tmp_path / "short"
    for marks in (long, short):
        marks.mkdir()
    long_run = mortal.trigger("sample-sleep", seconds=120, marks=str(long))
    pid = started_pid(long)
    short_run = mortal.trigger("sample-sleep", seconds=1, marks=str(short))
    started_pid(short)
    begun = time.monotonic()
    assert mortal.stop() == 0
    with capsys.disabled():
        print(f"\n  SIGTERM with 2 s of drain to the end: {time.monotonic() - begun:.2f} s")
    assert mortal.processes() == {}
    assert not is_alive(pid)
    assert mortal.state_on_disk(long_run) == ("CANCELLED", "Cancelled")
    assert mortal.state_on_disk(short_run) == ("COMPLETED", "Completed")
    assert (long / "finally").exists()
    assert "Caisson has stopped." in mortal.output


def test_an_upgrade_as_the_docs_have_it_loses_no_run_and_repeats_none(mortal: CaissonHost, tmp_path: Path) -> None:
    running = mortal.trigger("sample-sleep", seconds=8, marks=str(tmp_path))
    started_pid(tmp_path)
    mortal.cli("drain")
    queued = mortal.trigger("sample-sleep", seconds=0)
    mortal.cli("drain", "--wait")
    assert mortal.state(running).state_name == "Completed"
    mortal.cli("down")
    assert mortal.process is not None
    assert mortal.process.wait(30) == 0
    assert mortal.processes() == {}
    assert mortal.state_on_disk(queued)[0] == "SCHEDULED"
    mortal.up()
    time.sleep(3)
    assert mortal.state(queued).state_name in ("Scheduled", "Late")
    mortal.cli("undrain")
    mortal.wait_for_state(queued, "Completed")
    for run in (running, queued):
        assert mortal.history(run).count("Running") == 1


def test_a_second_interrupt_ends_the_drain(mortal: CaissonHost, tmp_path: Path) -> None:
    mortal.stop()
    drain = mortal.variables["CAISSON_DRAIN_SECONDS"]
    mortal.variables["CAISSON_DRAIN_SECONDS"] = "300"
    mortal.up()
    mortal.variables["CAISSON_DRAIN_SECONDS"] = drain
    run = mortal.trigger("sample-sleep", seconds=300, marks=str(tmp_path))
    started_pid(tmp_path)
    assert mortal.process is not None
    mortal.process.send_signal(signal.SIGINT)
    time.sleep(1)
    assert mortal.process.poll() is None
    assert mortal.stop(signal.SIGINT) == 0
    assert mortal.state_on_disk(run) == ("CANCELLED", "Cancelled")


def test_a_killed_launcher_takes_everything_with_it_and_the_next_up_tells_the_truth(
    mortal: CaissonHost, tmp_path: Path
) -> None:
    run = mortal.trigger("sample-sleep", seconds=120, marks=str(tmp_path))
    pid = started_pid(tmp_path)
    mortal.stop(signal.SIGKILL)
    wait_for("all children are gone", lambda: not mortal.processes(), seconds=60)
    assert not is_alive(pid)
    mortal.up()
    # A run that is dying may be the first to tell: that it failed, for nobody answers it any more.
    assert mortal.wait_for_state(run, "Crashed", "Cancelled", "Failed").final


def test_a_killed_worker_comes_back_and_settles_the_runs_that_died_with_it(mortal: CaissonHost, tmp_path: Path) -> None:
    run = mortal.trigger("sample-sleep", seconds=120, marks=str(tmp_path))
    flow = started_pid(tmp_path)
    worker = mortal.pid_of("deployments.worker_main")
    # Stopped first, so that neither can report the other's death.
    for pid in (worker, mortal.pid_of("deployments.fork_server"), flow):
        os.kill(pid, signal.SIGSTOP)
    assert mortal.state(run).state_name == "Running"
    for pid in (worker, mortal.pid_of("deployments.fork_server"), flow):
        os.kill(pid, signal.SIGKILL)
    assert "is gone" in mortal.wait_for_state(run, "Crashed").message
    assert "The worker ended (killed by SIGKILL)" in mortal.output
    mortal.wait_for_state(mortal.trigger("sample-hello"), "Completed")


def test_a_run_that_nobody_supervises_is_found_by_the_safety_poll(mortal: CaissonHost) -> None:
    run = mortal.trigger("sample-hello")
    mortal.wait_for_state(run, "Completed")
    with mortal.api as api:
        deployment = api.get("/deployments/name/sample-hello/mortal")["id"]
        create = f"/deployments/{deployment}/create_flow_run"
        pending = api.post(create, {"state": {"type": "PENDING"}})["id"]
        running = api.post(create, {"state": {"type": "RUNNING"}})["id"]
        cancelling = api.post(create, {"state": {"type": "CANCELLING"}})["id"]
    # What had not begun is scheduled again, and runs.
    assert mortal.wait_for_state(pending, "Completed")
    assert mortal.wait_for_state(running, "Crashed")
    assert mortal.wait_for_state(cancelling, "Cancelled")


def test_a_killed_server_comes_back_and_runs_start_again_by_events(caisson: CaissonHost) -> None:
    os.kill(caisson.pid_of("uvicorn"), signal.SIGKILL)
    wait_for("the launcher says so", lambda: "The Prefect server ended (killed by SIGKILL)" in caisson.output)
    wait_for("the server is back", lambda: caisson.processes("uvicorn"))
    # The worker's event stream was cut, and its safety poll is ten minutes away.
    begun = time.monotonic()
    wait_for("the API answers", lambda: _can_trigger(caisson), seconds=120)
    assert time.monotonic() - begun < 120
    caisson.wait_for_state(caisson.trigger("sample-hello"), "Completed")


def test_the_password_is_asked_for_and_in_no_command_line(mortal: CaissonHost) -> None:
    secret = "h0rse-battery"
    assert not [command for command in mortal.processes().values() if secret in command]
    assert secret not in mortal.output + mortal.logs()
    assert secret not in (mortal.state_dir / "server.json").read_text()
    open_door = CaissonHost(mortal.state_dir, "mortal", {"CAISSON_API_AUTH": ""})
    with pytest.raises(Exception, match="asks for a password"):
        open_door.trigger("sample-hello")
    with mortal.api as api:
        lines = [e.message for e in follow(api, mortal.trigger("sample-hello")) if isinstance(e, LogLine)]
    assert lines
    assert not [line for line in lines if secret in line]


def test_down_stops_it(mortal: CaissonHost) -> None:
    said: list[str] = []
    assert mortal.process is not None
    assert down(mortal.settings, say=said.append) == 0
    assert mortal.process.wait(30) == 0
    assert said[-1] == "Caisson has stopped."
    assert down(mortal.settings, say=said.append) == 0
    assert said[-1] == "No Caisson runs on this host."


def test_a_busy_port_is_one_sentence(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        host = CaissonHost(tmp_path, "busy", {"CAISSON_SERVER_PORT": str(port)})
        assert host.launch().wait(60) == SettingsInvalid.exit_code
    assert host.output == (
        f"CAISSON_SERVER_PORT: 127.0.0.1:{port} is taken by another program. Set CAISSON_SERVER_PORT to a free port.\n"
    )
    assert host.processes() == {}


def test_a_server_that_can_not_start_is_one_sentence_that_names_its_log(tmp_path: Path) -> None:
    variables = {"CAISSON_DATABASE_URL": f"postgresql+asyncpg://nobody:s3cret@127.0.0.1:{free_port()}/none"}
    host = CaissonHost(tmp_path, "broken", variables)
    assert host.launch().wait(120) == 60
    assert f"See its log: {tmp_path}/logs/server.log" in host.output
    assert "s3cret" not in host.output
    assert host.processes() == {}


def _can_trigger(host: CaissonHost) -> bool:
    try:
        host.trigger("sample-hello")
    except Exception:
        return False
    return True
