"""The worker on a real Prefect server: how runs start, are cancelled, and die."""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import time
import uuid
from pathlib import Path

import pytest

from deployments.trigger import LogLine, RunChanged, cancel, follow, trigger_build
from tests.flows.caisson_host import CaissonHost, is_alive, started_pid, wait_for


def test_from_the_api_call_to_the_first_line_of_the_flow(
    caisson: CaissonHost, capsys: pytest.CaptureFixture[str]
) -> None:
    wait_for("the fork server", lambda: caisson.processes("deployments.fork_server"))
    latencies, ends = [], []
    for _ in range(6):
        with caisson.api as api:
            begun = time.time()
            run = trigger_build(api, {}, deployment="sample-hello/first")
            events = list(follow(api, run))
        (line,) = [e for e in events if isinstance(e, LogLine) and e.message.startswith("first line")]
        states = [e for e in events if isinstance(e, RunChanged)]
        assert states[-1].state_name == "Completed"
        latencies.append(float(line.message.split()[-1]) - begun)
        ends.append(states[-1].at.timestamp() - begun)
    with capsys.disabled():
        print(
            f"\n  POST to first line of the flow: median {statistics.median(latencies[1:]):.2f} s, to its final state "
            f"{statistics.median(ends[1:]):.2f} s, all {[round(latency, 2) for latency in latencies]}"
        )
    # The safety poll is at 600 s and Prefect's own poll takes 7.5 s: this holds on a busy machine, too.
    assert min(latencies) < 5


def test_the_same_idempotency_key_gives_the_same_run(caisson: CaissonHost) -> None:
    with caisson.api as api:
        first, again = (
            trigger_build(api, {"words": words}, deployment="sample-hello/first", idempotency_key="once")
            for words in ("one", "two")
        )
        assert first == again
        events = list(follow(api, first))
    assert [e for e in events if isinstance(e, LogLine) and "first line: one" in e.message]


def test_log_lines_arrive_complete_and_in_order(caisson: CaissonHost) -> None:
    with caisson.api as api:
        run = trigger_build(api, {"count": 1000}, deployment="sample-many-lines/first")
        lines = [e.message for e in follow(api, run) if isinstance(e, LogLine) and e.message.startswith("line ")]
    assert lines == [f"line {number}" for number in range(1000)]


def test_a_failing_flow_is_failed_by_its_own_engine(caisson: CaissonHost) -> None:
    run = caisson.trigger("sample-raise")
    assert "as asked" in caisson.wait_for_state(run, "Failed").message
    assert caisson.history(run)[-1] == "Failed"


def test_cancel_runs_finally_and_ends_in_cancelled_within_seconds(
    caisson: CaissonHost, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = caisson.trigger("sample-sleep", marks=str(tmp_path))
    pid = started_pid(tmp_path)
    begun = time.monotonic()
    with caisson.api as api:
        final = cancel(api, run)
    seconds = time.monotonic() - begun
    with capsys.disabled():
        print(f"\n  cancel to Cancelled: {seconds:.2f} s")
    assert final.state_name == "Cancelled"
    assert (tmp_path / "finally").exists()
    assert "Crashed" not in caisson.history(run)
    wait_for("the process is gone", lambda: not is_alive(pid), seconds=15)
    assert seconds < 15


def test_a_run_cancelled_while_it_starts_is_cancelled(caisson: CaissonHost, tmp_path: Path) -> None:
    run = caisson.trigger("sample-sleep", seconds=30, marks=str(tmp_path))
    caisson.wait_for_state(run, "Pending", "Submitting", "Running")
    with caisson.api as api:
        assert cancel(api, run).state_name == "Cancelled"
    wait_for("no process executes it", lambda: not (caisson.state_dir / "runs" / f"{run}.json").exists())


@pytest.mark.parametrize(
    ("code", "words"), [(3, "ended with exit code 3"), (-signal.SIGKILL, "killed by SIGKILL"), (0, "exit code 0")]
)
def test_a_process_that_ends_without_a_word_leaves_a_crashed_run(caisson: CaissonHost, code: int, words: str) -> None:
    run = caisson.trigger("sample-exit", code=code)
    assert words in caisson.wait_for_state(run, "Crashed").message


def test_a_killed_run_is_crashed_soon_and_its_builder_is_reaped(
    caisson: CaissonHost, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = caisson.trigger("sample-sleep", marks=str(tmp_path))
    pid = started_pid(tmp_path)
    container = create_builder(run)
    try:
        begun = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        caisson.wait_for_state(run, "Crashed")
        with capsys.disabled():
            print(f"\n  SIGKILL of the flow to Crashed, its builder reaped: {time.monotonic() - begun:.2f} s")
        assert not container_exists(container)
    finally:
        subprocess.run(["docker", "rm", "-f", container], capture_output=True, check=False)


def test_runs_start_without_the_fork_server_and_it_comes_back(caisson: CaissonHost, tmp_path: Path) -> None:
    run = caisson.trigger("sample-sleep", marks=str(tmp_path))
    flow = started_pid(tmp_path)
    server = caisson.pid_of("deployments.fork_server")
    os.kill(server, signal.SIGKILL)
    # The run that it had forked is told, cleans up, and is in no false state.
    caisson.wait_for_state(run, "Crashed")
    assert (tmp_path / "finally").exists()
    wait_for("its run is gone", lambda: not is_alive(flow), seconds=15)
    caisson.wait_for_state(caisson.trigger("sample-hello"), "Completed")
    assert caisson.pid_of("deployments.fork_server") != server


def test_a_second_up_finds_the_first(caisson: CaissonHost) -> None:
    before = caisson.output
    assert caisson.launch().wait(30) == 0
    assert caisson.process is not None
    said = caisson.output.removeprefix(before)
    assert f"http://127.0.0.1:{caisson.settings.server_port} (pid {caisson.process.pid})" in said


def test_no_path_of_this_machine_is_in_a_deployment(caisson: CaissonHost) -> None:
    with caisson.api as api:
        deployment = api.get("/deployments/name/build-image/first")
        pool = api.get("/work_pools/caisson")
    assert deployment["entrypoint"] == "flows.build_image.build_image"
    assert not deployment["path"]
    assert not deployment["pull_steps"]
    assert str(caisson.state_dir) not in str(deployment) + str(pool)
    assert pool["base_job_template"]["variables"]["properties"]["stream_output"]["default"] is False


def create_builder(flow_run_id: str) -> str:
    """A container that looks as if a run had left it."""
    build = uuid.uuid4().hex[:12]
    labels = ["--label", f"caisson.build={build}", "--label", f"caisson.flow-run={flow_run_id}"]
    command = ["docker", "create", "--name", f"caisson-build-{build}", *labels]
    return subprocess.run(
        [*command, "debian:trixie-slim", "sleep", "600"], capture_output=True, text=True, check=True
    ).stdout.strip()


def container_exists(container: str) -> bool:
    return subprocess.run(["docker", "inspect", container], capture_output=True, check=False).returncode == 0
