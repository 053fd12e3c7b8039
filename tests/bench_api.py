"""Caisson's own API on a Caisson of its own: a trigger, the cost of waiting, steady reads of everything that it tells
while logs are followed, beside Prefect's API, and many builds queued.

    python -m tests.bench_api [--quick]

Requests are sent at the times of a schedule, whether or not earlier ones were answered, and their time counts from
then: a server that stalls can't hide it (coordinated omission).
"""

from __future__ import annotations

import argparse
import itertools
import math
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx

from caisson.tokens import make_grant
from deployments.gateway import answers, gateway_url
from deployments.names import BUILD_FLOW, POOL
from deployments.token_store import TokenStore
from tests.bench_idle import measure_idle
from tests.conftest import EngineHost, find_engines
from tests.engine.repositories import GitDaemon, git_daemon
from tests.figures import Figures
from tests.flows.caisson_host import CaissonHost, free_port, wait_for

RATE = 50
MOST_P99, MOST_START = 0.100, 0.800
IMAGE = f"caisson-bench/api-{os.getpid()}"
BASE = "FROM debian:trixie-slim\n"
EVENTS = {"Accept": "text/event-stream"}
FOLLOWERS, CALLERS = 2, 16
Send = tuple[str, Callable[[httpx.Client], httpx.Response]]
"""What is asked for, and how."""


def bench_api(figures: Figures, *, quick: bool = False) -> None:
    """Print every figure, and whether it is within its reach."""
    print("\nCaisson's API", flush=True)
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
                Bench(figures, host, git).run(
                    turns=3 if quick else 9,
                    idle_seconds=20 if quick else 60,
                    seconds=5 if quick else 30,
                    builds=100 if quick else 1000,
                )
            finally:
                host.stop()
                remove_images(engine, f"reference={IMAGE}")


def remove_images(host: EngineHost, wanted: str) -> None:
    """Remove the images that a filter of ``docker images`` tells: no other's, for it has to be this run's mark."""
    docker = ["docker", "--host", host.docker_host]
    listed = [*docker, "images", "--quiet", "--filter", wanted]
    found = subprocess.run(listed, check=True, capture_output=True, text=True).stdout
    if images := sorted(set(found.split())):
        subprocess.run([*docker, "rmi", "--force", *images], check=True, capture_output=True)


@dataclass
class Bench:
    figures: Figures
    host: CaissonHost
    git: GitDaemon

    def run(self, *, turns: int, idle_seconds: float, seconds: int, builds: int) -> None:
        grant = make_grant(["build", "read"])
        token, _ = TokenStore.of(self.host.settings).create("bench", grant, lifetime=None)
        ours = {"base_url": gateway_url(self.host.settings), "headers": {"Authorization": f"Bearer {token}"}}
        prefects = {"base_url": self.host.api.api_url}
        with httpx.Client(timeout=120, **ours) as client:
            ended = self.trigger(client, turns)
            measure_idle(self.figures, self.host, idle_seconds)
            with self.talking(client) as talks:
                self.reads("a few builds", ours, prefects, ended, ended, talks, seconds)
                self.pause()
                queued = self.queue(client, ours, builds)
                self.reads(f"{builds} queued builds", ours, prefects, queued, ended, talks, seconds)

    def trigger(self, client: httpx.Client, turns: int) -> list[str]:
        """Ask for builds, one after the other; returns their IDs."""
        repository = self.git.repository("trivial", {"Dockerfile": f"{BASE}LABEL bench=api\n"})
        lines, starts, ids = [], [], []
        for turn in range(turns + 1):
            asked, began = time.time(), time.perf_counter()
            build = client.post("/api/builds", json={"repository_url": repository.url, "image": IMAGE}).json()
            first = 0.0
            with client.stream("GET", f"/api/builds/{build['id']}/log", headers=EVENTS) as answer:
                for line in answer.iter_lines():
                    if line == "event: log":
                        first = first or time.perf_counter() - began
            ended = client.get(f"/api/builds/{build['id']}").json()
            ids.append(build["id"])
            # The first of them builds the image, the others only name it.
            if turn:
                lines.append(first)
                starts.append(_moment(ended["started"]) - asked)
        median, start = statistics.median(lines), statistics.median(starts)
        verdict = self.figures.judge(
            "trigger, POST to the run's start", f"{start:.2f} s", f"{MOST_START:g} s", met=start < MOST_START
        )
        print(
            f"  from POST to the run's start: median {start:.2f} s of {turns}, at most {max(starts):.2f} s  {verdict}\n"
            f"  from POST to the log's first line over the API: median {median:.2f} s, at most {max(lines):.2f} s",
            flush=True,
        )
        return ids

    @contextmanager
    def talking(self, client: httpx.Client) -> Iterator[str]:
        """A build that prints ten lines a second for as long as the block lasts."""
        script = "i=0; while sleep 0.1; do i=$((i + 1)); echo line $i; done"
        repository = self.git.repository("talks", {"Dockerfile": f"{BASE}RUN {script}\n"})
        wanted = {"repository_url": repository.url, "image": IMAGE, "no_cache": True}
        build = client.post("/api/builds", json=wanted).json()["id"]
        try:
            wait_for("it talks", lambda: "line 1\n" in client.get(f"/api/builds/{build}/log").text)
            yield build
        finally:
            client.delete(f"/api/builds/{build}")
            wait_for("it is cancelled", lambda: client.get(f"/api/builds/{build}").json()["ended"])

    def reads(
        self,
        what: str,
        ours: dict[str, Any],
        prefects: dict[str, Any],
        ids: list[str],
        ended: list[str],
        talks: str,
        seconds: int,
    ) -> None:
        """Everything that is read of Caisson's API, while a log is followed; of Prefect's what is nearest to it."""
        wanted = {"flows": {"name": {"any_": [BUILD_FLOW]}}, "sort": "EXPECTED_START_TIME_DESC", "limit": 50}
        builds = itertools.cycle(ids[:50])
        logs = itertools.cycle(ended)
        own: list[Send] = []
        their: list[Send] = []
        for _ in range(25):
            for _ in range(4):
                own += [get("/api/builds"), get(f"/api/builds/{next(builds)}", "/api/builds/ID")]
                their.append(("/flow_runs/filter", lambda client: client.post("/flow_runs/filter", json=wanted)))
                their.append(get(f"/flow_runs/{next(builds)}", "/flow_runs/ID"))
            own += [get("/api/images"), get("/api/disk"), get("/metrics")]
            own.append(get(f"/api/builds/{next(logs)}/log", "/api/builds/ID/log"))
        with ExitStack() as stack:
            followed = [stack.enter_context(follow(ours, talks)) for _ in range(FOLLOWERS)]
            for name, arguments, sends in (("Caisson's API", ours, own), ("Prefect's API", prefects, their)):
                seen = sum(map(len, followed))
                times, failed = steady(arguments, sends, seconds)
                whole = sorted(itertools.chain.from_iterable(times.values()))
                p99 = _quantile(whole, 0.99)
                told = ""
                if arguments is ours:
                    assert sum(map(len, followed)) > seen, "nothing of the followed log came"
                    told = "   " + self.figures.judge(
                        f"p99 of {RATE} reads a second with {what}, {FOLLOWERS} logs followed",
                        f"{p99 * 1000:.0f} ms, {failed} failed",
                        f"{MOST_P99 * 1000:g} ms, none failed",
                        met=p99 < MOST_P99 and not failed,
                    )
                print(
                    f"  {name}, {RATE} reads a second with {what}: median {_quantile(whole, 0.5) * 1000:.0f} ms, "
                    f"p99 {p99 * 1000:.0f} ms, {failed} of {len(whole)} failed{told}"
                )
                for path, values in times.items():
                    print(f"    {path:<20} p99 {_quantile(sorted(values), 0.99) * 1000:5.0f} ms of {len(values)}")
                sys.stdout.flush()

    def queue(self, client: httpx.Client, ours: dict[str, Any], builds: int) -> list[str]:
        local = threading.local()
        refused: list[str] = []

        def ask(number: int) -> str:
            if not hasattr(local, "client"):
                local.client = httpx.Client(timeout=120, **ours)
            body = {"repository_url": f"https://example.com/team/app-{number}.git", "image": IMAGE}
            answer = local.client.post("/api/builds", json=body, headers={"Idempotency-Key": f"bench-{number}"})
            if answer.status_code == 202:
                return str(answer.json()["id"])
            refused.append(f"{answer.status_code}: {answer.text}")
            return ""

        began = time.monotonic()
        with ThreadPoolExecutor(8) as pool:
            ids = list(pool.map(ask, range(builds)))
        seconds = time.monotonic() - began
        accepted = [build for build in dict.fromkeys(ids) if build]
        verdict = self.figures.judge(
            f"{builds} builds asked for", f"{len(accepted)} accepted", "all", met=len(accepted) == builds
        )
        print(
            f"  {builds} builds asked for by 8 callers: {len(accepted)} accepted in {seconds:.1f} s, "
            f"{len(accepted) / seconds:.0f} a second   {verdict}",
            *(f"    refused with {answer}" for answer in refused[:5]),
            sep="\n",
            flush=True,
        )
        return accepted

    def pause(self) -> None:
        """Nothing that is asked for from now on begins."""
        with self.host.api as api:
            api.patch(f"/work_pools/{POOL}/queues/{self.host.name}", {"is_paused": True})


def get(path: str, name: str = "") -> Send:
    """A request for a path, told by its name."""
    return name or path, lambda client: client.get(path)


@contextmanager
def follow(arguments: dict[str, Any], build: str) -> Iterator[list[str]]:
    """Follow a build's log while the block lasts; the list takes its lines. It has to be one that talks."""
    over = threading.Event()
    lines: list[str] = []

    def read() -> None:
        with (
            httpx.Client(timeout=60, **arguments) as client,
            client.stream("GET", f"/api/builds/{build}/log", headers=EVENTS) as answer,
        ):
            for line in answer.iter_lines():
                if over.is_set():
                    return
                if line.startswith("data: "):
                    lines.append(line)

    thread = threading.Thread(target=read)
    thread.start()
    try:
        yield lines
    finally:
        over.set()
        thread.join()


def steady(arguments: dict[str, Any], sends: list[Send], seconds: int) -> tuple[dict[str, list[float]], int]:
    """Send at the times of the schedule; returns how long each took from then, by name, and how many failed."""
    times: dict[str, list[float]] = {name: [] for name, _ in sends}
    failures: list[int] = []
    lock = threading.Lock()

    def work(client: httpx.Client) -> None:
        while True:
            with lock:
                at, name, send = next(due, (0.0, "", None))
            if send is None:
                return
            time.sleep(max(0.0, at - time.perf_counter()))
            answer = send(client)
            times[name].append(time.perf_counter() - at)
            if answer.status_code != 200:
                failures.append(answer.status_code)

    with ExitStack() as stack:
        # Made before the first is due: a client takes longer to be made than most requests to be answered.
        clients = [stack.enter_context(httpx.Client(timeout=60, **arguments)) for _ in range(CALLERS)]
        begin = time.perf_counter() + 0.2
        due = iter([(begin + number / RATE, *sends[number % len(sends)]) for number in range(RATE * seconds)])
        threads = [threading.Thread(target=work, args=(client,)) for client in clients]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return times, len(failures)


def _quantile(ordered: list[float], share: float) -> float:
    """The value that no more than that share of them is below: the nearest rank."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def _moment(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="3 triggers, 5 s of reads, 100 builds")
    figures = Figures()
    bench_api(figures, quick=parser.parse_args().quick)
    return figures.conclude()


if __name__ == "__main__":
    sys.exit(main())
