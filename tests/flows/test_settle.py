"""Which state is true of a run whose process is gone; and what a process is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from prefect.client.schemas.objects import State, StateType
from prefect.states import AwaitingRetry, Cancelled, Cancelling, Completed, Crashed, Failed, Pending, Running

from deployments.backoff import Backoff
from deployments.processes import ProcessIdentity, names_flow_run, terminate
from deployments.settle import Why, needs_reaping, true_state
from deployments.state import StateDir, forget_dead_runs, record_run, recorded_run
from deployments.tether import tethered
from tests.flows.caisson_host import is_alive, wait_for


@pytest.mark.parametrize("state", [Completed(), Failed(), Cancelled(), Crashed()])
@pytest.mark.parametrize("why", list(Why))
def test_a_final_state_stays(state: State, why: Why) -> None:
    assert true_state(state, why=why, exit_code=-9) is None


@pytest.mark.parametrize("state", [Pending(), Running()])
def test_what_ended_without_a_word_has_crashed_and_says_how(state: State) -> None:
    killed = true_state(state, why=Why.ENDED, exit_code=-signal.SIGKILL)
    assert killed is not None
    assert (killed.type, killed.message) == (StateType.CRASHED, "The run's process was killed by SIGKILL.")
    ended = true_state(state, why=Why.ENDED, exit_code=0)
    assert ended is not None
    assert ended.is_crashed()


def test_what_had_not_begun_when_its_worker_died_is_scheduled_again() -> None:
    state = true_state(Pending(), why=Why.LOST)
    assert state is not None
    assert state.is_scheduled()


def test_what_had_begun_when_its_worker_died_has_crashed() -> None:
    state = true_state(Running(), why=Why.LOST)
    assert state is not None
    assert state.is_crashed()


@pytest.mark.parametrize("why", list(Why))
def test_what_was_being_cancelled_is_cancelled(why: Why) -> None:
    state = true_state(Cancelling(), why=why, exit_code=-15)
    assert state is not None
    assert state.is_cancelled()


@pytest.mark.parametrize("state", [Pending(), Running(), Crashed()])
def test_a_cancellation_that_the_engine_took_for_a_crash_is_a_cancellation(state: State) -> None:
    truth = true_state(state, why=Why.ENDED, exit_code=-15, cancelled="as asked")
    assert truth is not None
    assert (truth.type, truth.message) == (StateType.CANCELLED, "as asked")


def test_a_run_that_finished_before_its_cancellation_stays_finished() -> None:
    assert true_state(Completed(), why=Why.ENDED, exit_code=0, cancelled="too late") is None


def test_a_run_that_waits_for_its_retry_goes_on_waiting() -> None:
    assert true_state(AwaitingRetry(), why=Why.ENDED, exit_code=0) is None


def test_only_a_flow_that_ended_in_order_needs_no_reaping() -> None:
    assert [needs_reaping(state) for state in (Completed(), Failed(), Cancelled(), Crashed(), None)] == [
        *(False, False, True, True, True)
    ]


def test_a_process_with_the_same_pid_and_another_start_is_another() -> None:
    me = ProcessIdentity.of(os.getpid())
    assert me is not None
    assert me.alive
    assert ProcessIdentity.parse(me.dump()) == me
    assert not ProcessIdentity(me.pid, me.started - 1, me.boot).alive
    assert not ProcessIdentity(me.pid, me.started, "another boot").alive


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"pid": "x", "started": 1, "boot": ""}', "null"])
def test_a_damaged_record_names_no_process(text: str) -> None:
    assert ProcessIdentity.parse(text) is None


def test_what_died_after_the_worker_that_recorded_it_is_forgotten(tmp_path: Path) -> None:
    state = StateDir(tmp_path).create()
    with subprocess.Popen(["sleep", "60"]) as process:
        dead = ProcessIdentity.of(process.pid)
        process.kill()
    living = ProcessIdentity.of(os.getpid())
    assert dead is not None
    assert living is not None
    for flow_run_id, identity in (("dead", dead), ("living", living)):
        record_run(state, flow_run_id, identity)
    forget_dead_runs(state)
    assert [path.stem for path in state.runs.iterdir()] == ["living"]
    assert recorded_run(state, "living") == living


def test_terminate_leaves_a_recycled_pid_alone_and_kills_what_ignores_sigterm() -> None:
    deaf = "import signal, sys, time; signal.signal(15, signal.SIG_IGN); print(flush=True); time.sleep(60)"
    with (
        subprocess.Popen([sys.executable, "-c", deaf], stdout=subprocess.PIPE) as ours,
        subprocess.Popen(["sleep", "60"]) as other,
    ):
        assert ours.stdout is not None
        ours.stdout.readline()
        identity, stranger = ProcessIdentity.of(ours.pid), ProcessIdentity.of(other.pid)
        assert identity is not None
        assert stranger is not None
        terminate([identity, ProcessIdentity(other.pid, stranger.started - 1, stranger.boot)], grace_seconds=0.2)
        assert ours.wait(5) == -signal.SIGKILL
        assert other.poll() is None
        other.kill()


def test_a_process_is_ours_when_its_environment_names_the_run() -> None:
    with subprocess.Popen(["sleep", "60"], env={"PREFECT__FLOW_RUN_ID": "this"}) as process:
        # Between exec and its end, the kernel shows an empty environment for a moment.
        wait_for("its environment", lambda: names_flow_run(process.pid, "this"))
        assert not names_flow_run(process.pid, "thi")
        process.kill()
    assert not names_flow_run(process.pid, "this")


def test_a_tethered_child_dies_with_a_killed_parent(tmp_path: Path) -> None:
    parent = (
        "import pathlib, subprocess, sys, time\n"
        "from deployments.tether import tethered\n"
        "child = subprocess.Popen(tethered(['sleep', '60']))\n"
        f"pathlib.Path({str(tmp_path / 'pid')!r}).write_text(str(child.pid))\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", parent]) as process:
        child = int(wait_for("the child", lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text()))
        wait_for("it sleeps", lambda: "sleep" in Path(f"/proc/{child}/comm").read_text())
        process.kill()
    wait_for("it is gone", lambda: not is_alive(child), seconds=5)


def test_a_tethered_child_of_a_parent_that_is_already_gone_never_starts() -> None:
    command = tethered(["echo", "started"])
    command[5] = "1"  # the pid of another parent
    result = subprocess.run(command, capture_output=True, check=False)
    assert (result.returncode, result.stdout) == (-signal.SIGTERM, b"")


def test_delays_double_up_to_a_bound_and_start_over_after_a_healthy_run() -> None:
    backoff = Backoff(first=1, most=5, healthy_seconds=10)
    assert [backoff.after(ran_seconds=1) for _ in range(4)] == [1, 2, 4, 5]
    assert backoff.after(ran_seconds=10) == 1
