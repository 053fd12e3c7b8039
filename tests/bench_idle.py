"""What a Caisson costs that waits for builds: processor time of each of its processes, and of one look at the disks.

``tests.bench_api`` measures it, on the Caisson that it has started: the schedules are off there, so that nothing runs.
"""

from __future__ import annotations

import time

import psutil

from tests.figures import Figures
from tests.flows.caisson_host import CaissonHost, wait_for

MOST_IDLE = 0.005
LOOKS = 3
# As often as the monitor looks by default.
_LOOK_EVERY_SECONDS = 60
# What each of them runs; the launcher has no such name.
_CLIENT = {"worker": "deployments.worker_main", "fork server": "deployments.fork_server"}
_SERVERS = {"Prefect's server": "deployments.server_app", "the API": "deployments.api.main"}


def measure_idle(figures: Figures, host: CaissonHost, seconds: float) -> None:
    """Print what each process uses while nothing happens for that long; the client's share is the one with a reach."""
    assert host.process is not None
    client = {"launcher": psutil.Process(host.process.pid)}
    client |= {name: psutil.Process(host.pid_of(command)) for name, command in _CLIENT.items()}
    # A run's process is counted as it ends, after all that the run has told of itself.
    wait_for("no run's process is left", lambda: not client["fork server"].children())
    servers = {name: psutil.Process(host.pid_of(command)) for name, command in _SERVERS.items()}
    shares = _shares({**client, **servers}, seconds)
    for name, process in {**client, **servers}.items():
        memory = process.memory_info().rss / 1e6
        print(f"  {name:<18} {shares[name]:7.2%} of a core, {memory:.0f} MB", flush=True)
    whole = sum(shares[name] for name in client)
    verdict = figures.judge(
        "idle client (launcher, worker, fork server)",
        f"{whole:.2%}",
        f"{MOST_IDLE:.1%} of a core",
        met=whole < MOST_IDLE,
    )
    print(f"  {'the client':<18} {whole:7.2%} of a core   {verdict}", flush=True)
    looks = _looks(host, client)
    print(
        f"  a look at the disks {looks:6.2f} s of the client's processor time, "
        f"{looks / _LOOK_EVERY_SECONDS:.2%} of a core at one in {_LOOK_EVERY_SECONDS} s",
        flush=True,
    )


def cpu_seconds(process: psutil.Process) -> float:
    """Processor time of a process and of its children that have ended, in seconds."""
    times = process.cpu_times()
    return float(times.user + times.system + times.children_user + times.children_system)


def _shares(processes: dict[str, psutil.Process], seconds: float) -> dict[str, float]:
    began, used = time.monotonic(), {name: cpu_seconds(process) for name, process in processes.items()}
    time.sleep(seconds)
    elapsed = time.monotonic() - began
    return {name: (cpu_seconds(process) - used[name]) / elapsed for name, process in processes.items()}


def _looks(host: CaissonHost, client: dict[str, psutil.Process]) -> float:
    """Processor seconds of one run of the monitor, the first of which does more than the others."""
    used = 0.0
    for look in range(LOOKS + 1):
        run = host.trigger("monitor-disk")
        host.wait_for_state(run, "Completed")
        wait_for("it is gone, and counted", lambda: not client["fork server"].children())
        if look == 0:
            used = sum(map(cpu_seconds, client.values()))
    return (sum(map(cpu_seconds, client.values())) - used) / LOOKS
