"""Caisson's own API on a Caisson of its own: steady reads beside Prefect's API, many builds queued, a trigger.

    python -m tests.bench_api [--quick]

Requests are sent at the times of a schedule, whether or not earlier ones were answered, and their time counts from
then: a server that stalls can't hide it (coordinated omission).
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx

from caisson.tokens import make_grant
from deployments.gateway import answers, gateway_url
from deployments.names import BUILD_FLOW, POOL
from deployments.token_store import TokenStore
from tests.conftest import find_engines
from tests.engine.repositories import GitDaemon, git_daemon
from tests.flows.caisson_host import CaissonHost, free_port, wait_for

RATE = 50
MOST_P99, MOST_START, MOST_IDLE = 0.100, 0.800, 0.005
IMAGE = "caisson-bench/api"
Send = Callable[[httpx.Client], httpx.Response]


def bench_api(*, quick: bool = False) -> None:
    """Print every figure, and where one misses its reach."""
    engine = find_engines()[0]
    with tempfile.TemporaryDirectory(prefix="caisson-bench-api-") as directory:
        variables = {
            "CAISSON_DOCKER_HOST": engine.docker_host,
            "CAISSON_GATEWAY_PORT": str(free_port()),
            "CAISSON_GATEWAY_RATE": "10000",
            "CAISSON_DRAIN_SECONDS": "0",
            "CAISSON_MIN_FREE_BYTES": "64m",
        }
        host = CaissonHost(Path(directory) / "state", f"bench-api-{os.getpid()}", variables)
        with git_daemon(Path(directory) / "git", engine.gateway) as git:
            try:
                host.up()
                wait_for("the API answers", lambda: answers(gateway_url(host.settings)))
                Bench(host, git).run(turns=3 if quick else 9, seconds=5 if quick else 30, builds=100 if quick else 1000)
            finally:
                host.stop()


@dataclass
class Bench:
    host: CaissonHost
    git: GitDaemon

    def run(self, *, turns: int, seconds: int, builds: int) -> None:
        token, _ = TokenStore.of(self.host.settings).create("bench", make_grant(["build", "read"]), lifetime=None)
        ours = {"base_url": gateway_url(self.host.settings), "headers": {"Authorization": f"Bearer {token}"}}
        prefects = {"base_url": self.host.api.api_url}
        with httpx.Client(timeout=120, **ours) as client:
            ids = self.trigger(client, turns)
            self.idle()
            self.reads("a few builds", ours, prefects, ids, seconds)
            with self.paused():
                ids = self.queue(client, ours, builds)
                self.reads(f"{builds} queued builds", ours, prefects, ids, seconds)

    def trigger(self, client: httpx.Client, turns: int) -> list[str]:
        repository = self.git.repository("trivial", {"Dockerfile": "FROM debian:trixie-slim\nLABEL bench=api\n"})
        lines, starts, ids = [], [], []
        for _ in range(turns):
            began = time.perf_counter()
            build = client.post("/api/builds", json={"repository_url": repository.url, "image": IMAGE}).json()
            headers = {"Accept": "text/event-stream"}
            with client.stream("GET", f"/api/builds/{build['id']}/log", headers=headers) as answer:
                for line in answer.iter_lines():
                    if line == "event: log" and len(lines) == len(ids):
                        lines.append(time.perf_counter() - began)
            ended = client.get(f"/api/builds/{build['id']}").json()
            starts.append(_moment(ended["started"]) - _moment(ended["created"]))
            ids.append(build["id"])
        print(f"from POST to the first line over the API: median {statistics.median(lines):.2f} s of {turns}")
        _tell("from the run's creation to its start", statistics.median(starts), MOST_START)
        return ids

    def idle(self) -> None:
        pid = self.host.pid_of("deployments.api.main")
        began, used = time.monotonic(), _cpu_seconds(pid)
        time.sleep(10)
        share = (_cpu_seconds(pid) - used) / (time.monotonic() - began)
        memory = next(
            int(line.split()[1]) >> 10
            for line in Path(f"/proc/{pid}/status").read_text().splitlines()
            if line.startswith("VmRSS")
        )
        print(f"the API's process, idle: {share:.2%} of a core{_missed(share, MOST_IDLE)}, {memory} MB")

    def reads(self, what: str, ours: dict[str, Any], prefects: dict[str, Any], ids: list[str], seconds: int) -> None:
        """The same question to both: a list of 50, and one build after the other."""
        wanted = {"flows": {"name": {"any_": [BUILD_FLOW]}}, "sort": "EXPECTED_START_TIME_DESC", "limit": 50}
        own = [lambda client: client.get("/api/builds")]
        own += [lambda client, build=build: client.get(f"/api/builds/{build}") for build in ids[:50]]
        their = [lambda client: client.post("/flow_runs/filter", json=wanted)]
        their += [lambda client, build=build: client.get(f"/flow_runs/{build}") for build in ids[:50]]
        for name, arguments, sends in (("Caisson's API", ours, own), ("Prefect's API", prefects, their)):
            mixed: list[Send] = [
                sends[0] if turn % 2 else sends[1 + turn // 2 % (len(sends) - 1)] for turn in range(100)
            ]
            times, failed = steady(arguments, mixed, seconds)
            quantiles = statistics.quantiles(times, n=100)
            reach = _missed(quantiles[98], MOST_P99) if name.startswith("Caisson") else ""
            print(
                f"{name}, {RATE} reads a second with {what}: median {quantiles[49] * 1000:.0f} ms, "
                f"p99 {quantiles[98] * 1000:.0f} ms{reach}, {failed} of {len(times)} failed"
            )

    def queue(self, client: httpx.Client, ours: dict[str, Any], builds: int) -> list[str]:
        local = threading.local()

        def ask(number: int) -> str:
            if not hasattr(local, "client"):
                local.client = httpx.Client(timeout=120, **ours)
            body = {"repository_url": f"https://example.com/team/app-{number}.git", "image": IMAGE}
            answer = local.client.post("/api/builds", json=body, headers={"Idempotency-Key": f"bench-{number}"})
            return str(answer.json()["id"]) if answer.status_code == 202 else ""

        began = time.monotonic()
        with ThreadPoolExecutor(8) as pool:
            ids = list(pool.map(ask, range(builds)))
        seconds = time.monotonic() - began
        accepted = len({build for build in ids if build})
        print(
            f"{builds} builds asked for by 8 callers: {accepted} accepted{_missed(builds - accepted, 0)} "
            f"in {seconds:.1f} s, {accepted / seconds:.0f} a second"
        )
        return [build for build in ids if build]

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Nothing that is asked for begins."""
        with self.host.api as api:
            api.patch(f"/work_pools/{POOL}/queues/{self.host.name}", {"is_paused": True})
        yield


def steady(arguments: dict[str, Any], sends: list[Send], seconds: int) -> tuple[list[float], int]:
    """Send at the times of the schedule; returns how long each took from then, and how many failed."""
    times: list[float] = []
    failures: list[int] = []
    begin = time.perf_counter() + 0.2
    due = iter([begin + number / RATE for number in range(RATE * seconds)])
    lock = threading.Lock()

    def work(first: int) -> None:
        with httpx.Client(timeout=60, **arguments) as client:
            number = first
            while True:
                with lock:
                    at = next(due, None)
                if at is None:
                    return
                time.sleep(max(0.0, at - time.perf_counter()))
                answer = sends[number % len(sends)](client)
                times.append(time.perf_counter() - at)
                if answer.status_code != 200:
                    failures.append(answer.status_code)
                number += 16

    threads = [threading.Thread(target=work, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return times, len(failures)


def _tell(what: str, seconds: float, most: float) -> None:
    print(f"{what}: median {seconds:.2f} s{_missed(seconds, most)}")


def _missed(value: float, most: float) -> str:
    return "" if value <= most else f" (misses its reach of {most:g})"


def _moment(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="3 triggers, 5 s of reads, 100 builds")
    bench_api(quick=parser.parse_args().quick)
    sys.exit(0)
