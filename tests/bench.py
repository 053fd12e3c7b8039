"""What Caisson adds to a build: the same repository by plain shell and by Caisson, in turns, warm, on one engine.

    python -m tests.bench [--quick]

Then what the guard alone adds, by ``tests.bench_guard``, on each engine; what planning a prune costs, by
``tests.bench_plan``; what a prune costs and deletes, by Caisson and by others, by ``tests.bench_prune``; and how fast
Caisson's own API answers, beside Prefect's, by ``tests.bench_api``.

Every figure is measured in this run; a figure that misses its reach is printed as such.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path

from caisson.docker_engine import DockerEngine
from caisson.settings import Settings, load_settings
from caisson.spec import parse_request
from deployments.launcher import find_running
from deployments.names import build_deployment
from deployments.prefect_api import PrefectApi
from deployments.trigger import run_state, trigger_build
from flows.build_image import as_function, run_build
from tests.bench_api import bench_api
from tests.bench_disk import bench_disk
from tests.bench_guard import FULL, QUICK, bench_guard
from tests.bench_plan import bench_plan
from tests.bench_prune import bench_prune
from tests.conftest import find_engines
from tests.engine.repositories import GitDaemon, Repository, git_daemon

BASE = "FROM debian:trixie-slim\n"
IMAGE = "caisson-bench/app"


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--quick", action="store_true", help="two turns each, a build of 5 s instead of 30 s")
    quick = arguments.parse_args().quick
    host = find_engines()[0]
    logging.getLogger("caisson.build").addHandler(logging.NullHandler())
    logging.getLogger("caisson.build").propagate = False
    with tempfile.TemporaryDirectory(prefix="caisson-bench-") as directory:
        settings = load_settings(docker_host=host.docker_host, state_dir=Path(directory) / "state")
        with git_daemon(Path(directory) / "git", host.gateway) as daemon:
            Bench(settings, daemon, turns=2 if quick else 7, long_seconds=5 if quick else 28).run()
    bench_disk()
    bench_guard(QUICK if quick else FULL)
    bench_plan()
    bench_prune(200 if quick else 1000)
    bench_api(quick=quick)
    return 0


class Bench:
    """One engine, one git server; prints a row a comparison."""

    def __init__(self, settings: Settings, daemon: GitDaemon, *, turns: int, long_seconds: int) -> None:
        self.settings, self.daemon, self.turns, self.long_seconds = settings, daemon, turns, long_seconds
        self.service = find_running(load_settings())

    def run(self) -> None:
        with DockerEngine(self.settings.docker_host) as engine:
            info = engine.info()
        print(f"engine {info.version} ({info.storage_driver}), {os.cpu_count()} cores, medians of {self.turns} turns")
        trivial = self.daemon.repository("trivial", {"Dockerfile": BASE + "RUN true\n"})
        self.compare("trivial build", trivial, self.turns, reach_added=1.5)
        long = self.daemon.repository("long", {"Dockerfile": f"{BASE}RUN sleep {self.long_seconds}\n"})
        self.compare(f"build of about {self.long_seconds + 2} s", long, 1, reach_ratio=1.05)
        self.repeated(trivial)
        self.many_lines()

    def compare(
        self, title: str, repository: Repository, turns: int, *, reach_added: float = 0, reach_ratio: float = 0
    ) -> None:
        ways: dict[str, Callable[[], None]] = {
            "plain shell": lambda: self.plain(repository),
            "in-process": lambda: self.in_process(repository, no_cache=True),
        }
        if self.service is not None:
            ways["API call to image"] = lambda: self.over_the_api(repository)
        times: dict[str, list[float]] = {way: [] for way in ways}
        for turn in range(turns + 1 if turns > 1 else 1):
            for way, call in ways.items():
                seconds = _timed(call)
                # The first turn of several warms the engine's and the kernel's caches.
                if turn or turns == 1:
                    times[way].append(seconds)
        plain = statistics.median(times["plain shell"])
        print(f"\n{title}")
        for way, values in times.items():
            median = statistics.median(values)
            verdict = ""
            if way != "plain shell" and reach_added:
                verdict = _verdict(median - plain <= reach_added, f"reach: +{reach_added:g} s")
            elif way != "plain shell" and reach_ratio:
                verdict = _verdict(median / plain <= reach_ratio, f"reach: x{reach_ratio:g}")
            print(f"  {way:<18} {median:7.2f} s   x{median / plain:.2f}   {median - plain:+.2f} s   {verdict}")
        if self.service is None:
            print("  API call to image: not measured, for no Caisson runs here (`caisson up`)")

    def repeated(self, repository: Repository) -> None:
        self.in_process(repository, no_cache=False)
        times = [_timed(lambda: self.in_process(repository, no_cache=False)) for _ in range(self.turns)]
        median = statistics.median(times)
        print(f"\nthe same commit again, in-process: {median:.2f} s   {_verdict(median < 1.0, 'reach: 1.0 s')}")

    def many_lines(self) -> None:
        lines = 50_000
        loud = self.daemon.repository("loud", {"Dockerfile": f"{BASE}RUN seq -f 'line %.0f' {lines}\n"})
        quiet = self.daemon.repository("quiet", {"Dockerfile": f"{BASE}RUN seq -f 'line %.0f' {lines} > /dev/null\n"})
        self.in_process(quiet, no_cache=True)
        silent = _timed(lambda: self.in_process(quiet, no_cache=True))
        begin = time.monotonic()
        log = self.in_process(loud, no_cache=True)
        seconds = time.monotonic() - begin
        seen = [line for line in Path(log).read_text().splitlines() if line.split(" ")[-2:-1] == ["line"]]
        numbers = [int(line.rsplit(" ", 1)[1]) for line in seen if line.rsplit(" ", 1)[1].isdigit()]
        whole = numbers == list(range(1, lines + 1))
        cost = seconds - silent
        print(
            f"\n{lines} log lines, in-process: {cost:+.2f} s against none; "
            f"{'complete and in order' if whole else f'{len(numbers)} arrived'}   "
            f"{_verdict(whole and cost < 2, 'reach: 2 s, complete, in order')}"
        )

    def plain(self, repository: Repository) -> None:
        gid = Path(self.settings.docker_socket).stat().st_gid
        name = f"caisson-bench-{uuid.uuid4().hex[:8]}"
        docker = f"docker --host {shlex.quote(self.settings.docker_host)}"
        script = (
            f"{docker} run -d --name {name} --user 10001:10001 --group-add {gid} --cap-drop ALL --read-only "
            "--tmpfs /tmp --tmpfs /app:exec,uid=10001 -e HOME=/tmp -v /var/run/docker.sock:/var/run/docker.sock:ro "
            f"{self.settings.builder_image} sleep 600\n"
            f"{docker} exec {name} git clone --depth 1 {repository.url} /app\n"
            f"{docker} exec -e DOCKER_BUILDKIT=0 {name} docker build --no-cache -t {IMAGE}:built /app\n"
            f"{docker} tag {IMAGE}:built {IMAGE}:plain\n"
            f"{docker} rm -f {name}\n"
        )
        subprocess.run(["sh", "-ec", script], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def in_process(self, repository: Repository, *, no_cache: bool) -> str:
        with contextlib.redirect_stderr(io.StringIO()):
            return run_build(self._request(repository, no_cache), self.settings, call=as_function).log_file

    def over_the_api(self, repository: Repository) -> None:
        request = self._request(repository, no_cache=True).model_dump(mode="json")
        service = load_settings()
        with PrefectApi.of(service) as api:
            run = trigger_build(api, {"request": request}, deployment=build_deployment(service))
            while not (state := run_state(api, run)).final:
                time.sleep(0.05)
        if state.state_type != "COMPLETED":
            raise SystemExit(f"bench: the run ended {state.state_name}: {state.message}")

    def _request(self, repository: Repository, no_cache: bool):  # type: ignore[no-untyped-def]
        return parse_request(
            {"repository_url": repository.url, "image": IMAGE, "no_cache": no_cache, "builder": "classic"}
        )


def _timed(call: Callable[[], object]) -> float:
    begin = time.monotonic()
    call()
    return time.monotonic() - begin


def _verdict(good: bool, reach: str) -> str:
    return f"{'within' if good else 'MISSED'} ({reach})"


if __name__ == "__main__":
    sys.exit(main())
