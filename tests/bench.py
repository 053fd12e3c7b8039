"""What Caisson adds to a build: the same repository by plain shell and by Caisson, in turns, warm, on one engine.

    python -m tests.bench [--quick]

On each engine, with the builder that Caisson chooses there. The builds over the API are those of a Caisson that is
started for this, and ended.

Then what the guard alone adds, by ``tests.bench_guard``, on each engine; what planning a prune costs, by
``tests.bench_plan``; what a prune costs and deletes, by Caisson and by others, by ``tests.bench_prune``; and how fast
Caisson's own API answers, and what it costs to wait, by ``tests.bench_api``.

Every figure is measured in this run. At the end all of those that have a reach are told once more; the exit code is 1
where one misses it.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import io
import itertools
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
from dataclasses import dataclass
from pathlib import Path

from caisson.build import log_file
from caisson.docker_engine import DockerEngine
from caisson.engine import ImageInfo
from caisson.plan import LABEL_IMAGE_FLOW_RUN, choose_builder
from caisson.request import Builder, BuildRequest
from caisson.settings import Settings
from caisson.spec import parse_request
from deployments.names import build_deployment
from deployments.prefect_api import PrefectApi
from deployments.trigger import FlowRunId, run_state, trigger_build
from flows.build_image import as_function, run_build
from tests.bench_api import bench_api, remove_images
from tests.bench_disk import bench_disk
from tests.bench_guard import FULL, QUICK, bench_guard
from tests.bench_plan import bench_plan
from tests.bench_prune import bench_prune
from tests.conftest import EngineHost, find_engines
from tests.engine.repositories import GitDaemon, Repository, git_daemon
from tests.figures import Figures
from tests.flows.caisson_host import CaissonHost

BASE = "FROM debian:trixie-slim\n"
IMAGE = "caisson-bench/app"
# Of this run's images, so that they can be told from all others.
LABEL, MARK = "bench", uuid.uuid4().hex
LINES = 50_000
_MOST_SECONDS = 300
Ways = dict[str, Callable[[], float | None]]
"""How something is done; what it returns is when its image had its tag, in seconds by the monotonic clock."""
TO_TAG = ", to the tag"


@dataclass(frozen=True)
class Plan:
    """How often each build is made, and for how many seconds the long one sleeps."""

    turns: int
    long_turns: int
    long_seconds: int


FULL_PLAN = Plan(turns=7, long_turns=3, long_seconds=28)
QUICK_PLAN = Plan(turns=2, long_turns=1, long_seconds=5)


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--quick", action="store_true", help="two turns each, a build of 5 s instead of 30 s")
    arguments.add_argument("--builds-only", action="store_true", help="no guard, plan, prune and API by themselves")
    options = arguments.parse_args()
    quick, figures = options.quick, Figures()
    for host in find_engines():
        plan = QUICK_PLAN if quick else FULL_PLAN
        figures.measure(f"builds, engine {host.name}", lambda host=host, plan=plan: bench_builds(figures, host, plan))
    if not options.builds_only:
        figures.measure("disk", lambda: bench_disk(figures))
        figures.measure("guard", lambda: bench_guard(figures, QUICK if quick else FULL))
        figures.measure("plan", lambda: bench_plan(figures))
        figures.measure("prune", lambda: bench_prune(figures, 200 if quick else 1000))
        figures.measure("API", lambda: bench_api(figures, quick=quick))
    return figures.conclude()


def bench_builds(figures: Figures, host: EngineHost, plan: Plan) -> None:
    """Print a row for each way to build, on one engine."""
    logging.getLogger("caisson.build").addHandler(logging.NullHandler())
    logging.getLogger("caisson.build").propagate = False
    with tempfile.TemporaryDirectory(prefix="caisson-bench-") as directory:
        variables = {
            "CAISSON_DOCKER_HOST": host.docker_host,
            "CAISSON_ENGINE_SOCKET": host.socket_in_engine,
            "CAISSON_GUARD_DIR": str(host.guard_dir),
            "CAISSON_ENGINE_GUARD_DIR": host.engine_guard_dir,
            "CAISSON_DOCKER_DATA_ROOT": host.data_root,
            "CAISSON_DRAIN_SECONDS": "0",
            "CAISSON_MIN_FREE_BYTES": "64m",
        }
        caisson = CaissonHost(Path(directory) / "state", f"bench-{os.getpid()}", variables)
        with git_daemon(Path(directory) / "git", host.gateway) as daemon:
            try:
                caisson.up()
                Bench(figures, host, caisson, daemon, plan).run()
            finally:
                caisson.stop()
                remove_images(host, f"label={LABEL}={MARK}")


class Bench:
    """One engine, one Caisson, one git server; prints a row a comparison."""

    def __init__(self, figures: Figures, host: EngineHost, caisson: CaissonHost, daemon: GitDaemon, plan: Plan) -> None:
        self.figures, self.host, self.caisson, self.daemon, self.plan = figures, host, caisson, daemon, plan
        # Beside the Caisson that runs, not in its files.
        state = caisson.state_dir.with_name("in-process")
        self.settings: Settings = caisson.settings.model_copy(update={"state_dir": state})
        self.builder = Builder.AUTO
        self.last_log = Path()

    def run(self) -> None:
        with DockerEngine(self.settings.docker_host) as engine:
            info = engine.info()
        trivial = self.daemon.repository("trivial", {"Dockerfile": BASE + "RUN true\n"})
        self.builder = choose_builder(
            Builder.AUTO, engine=info, needs_buildkit=False, require_limits=False, hold_steps=self.settings.hold_steps
        ).builder
        print(
            f"\nengine {info.version} ({info.storage_driver}), {self.builder.value} builder, {os.cpu_count()} cores, "
            f"medians of {self.plan.turns} turns",
            flush=True,
        )
        self.compare("trivial build", trivial, self.plan.turns, most_added=1.5)
        seconds = self.plan.long_seconds
        long = self.daemon.repository("long", {"Dockerfile": f"{BASE}RUN sleep {seconds}\n"})
        self.compare(f"build of about {seconds + 2} s", long, self.plan.long_turns, most_ratio=1.05)
        self.repeated(trivial)
        self.many_lines()

    def compare(
        self, title: str, repository: Repository, turns: int, *, most_added: float = 0, most_ratio: float = 0
    ) -> None:
        times = self.in_turns(
            title,
            {
                "plain shell": lambda: self.plain(repository),
                "in-process": lambda: self.in_process(repository),
                "API call": lambda: self.over_the_api(repository),
            },
            turns,
        )
        # The whole of it, with the builder's removal; and from the call to the tagged image.
        for way, peer in (("in-process", "plain shell"), (f"API call{TO_TAG}", f"plain shell{TO_TAG}")):
            median, plain = times[way], times[peer]
            added, ratio = median - plain, median / plain
            verdict = (
                self.judge(f"{title}, {way}", f"{added:+.2f} s", f"+{most_added:g} s", met=added <= most_added)
                if most_added
                else self.judge(f"{title}, {way}", f"x{ratio:.3f}", f"x{most_ratio:g}", met=ratio <= most_ratio)
            )
            print(f"  {peer:<24} {plain:7.2f} s")
            print(f"  {way:<24} {median:7.2f} s   x{ratio:.3f}   {added:+.2f} s   {verdict}", flush=True)

    def repeated(self, repository: Repository) -> None:
        ways: Ways = {
            "in-process": lambda: self.in_process(repository, no_cache=False),
            "API call to the run's end": lambda: self.again_over_the_api(repository),
        }
        for way, median in self.in_turns("the same commit again", ways, self.plan.turns).items():
            verdict = self.judge(f"the same commit again, {way}", f"{median:.2f} s", "1.0 s", met=median < 1.0)
            print(f"  {way:<26} {median:7.2f} s   {verdict}", flush=True)

    def many_lines(self) -> None:
        # BuildKit drops what a step prints beyond 200 KiB for each second that it has run.
        parts = (18_000, 36_000, LINES) if self.builder is Builder.BUILDKIT else (LINES,)
        printed = " && sleep 1 && ".join(
            f"seq -f 'line %.0f' {before + 1} {last}" for before, last in itertools.pairwise((0, *parts))
        )
        loud = self.daemon.repository("loud", {"Dockerfile": f"{BASE}RUN ({printed})\n"})
        quiet = self.daemon.repository("quiet", {"Dockerfile": f"{BASE}RUN ({printed}) > /dev/null\n"})
        ways: dict[str, tuple[Callable[[Repository], float | None], str]] = {
            "in-process": (self.in_process, ""),
            "API call": (self.over_the_api, TO_TAG),
        }
        for way, (build, end) in ways.items():
            both: Ways = {"none": functools.partial(build, quiet), "all": functools.partial(build, loud)}
            times = self.in_turns(f"{LINES} log lines, {way}", both, self.plan.long_turns)
            arrived_lines = _lines(self.last_log)
            whole, cost = arrived_lines == list(range(1, LINES + 1)), times[f"all{end}"] - times[f"none{end}"]
            arrived = "complete and in order" if whole else f"only {len(arrived_lines)} in order"
            verdict = self.judge(
                f"{LINES} log lines, {way}",
                f"{cost:+.2f} s, {arrived}",
                "2 s, complete, in order",
                met=whole and cost < 2,
            )
            print(f"  {cost:+.2f} s against none; {arrived}   {verdict}", flush=True)

    def in_turns(self, title: str, ways: Ways, turns: int) -> dict[str, float]:
        """Medians of seconds, of one way after the other, ``turns`` times; a first turn of each warms the caches."""
        print(f"\n{title}", flush=True)
        times: dict[str, list[float]] = {}
        for turn in range(turns + 1):
            for way, call in ways.items():
                begin = time.monotonic()
                tagged = call()
                ends = {way: time.monotonic(), f"{way}{TO_TAG}": tagged}
                for what, end in ends.items() if turn else ():
                    if end is not None:
                        times.setdefault(what, []).append(end - begin)
            if turn:
                now = ", ".join(f"{way} {seconds[-1]:.2f} s" for way, seconds in times.items())
                print(f"    turn {turn} of {turns}: {now}", flush=True)
        return {way: statistics.median(seconds) for way, seconds in times.items()}

    def judge(self, what: str, measured: str, reach: str, *, met: bool) -> str:
        return self.figures.judge(f"engine {self.host.name}: {what}", measured, reach, met=met)

    def plain(self, repository: Repository) -> float:
        gid = self.host.socket.stat().st_gid
        socket = self.host.socket_in_engine or self.host.socket
        name = f"caisson-bench-{uuid.uuid4().hex[:8]}"
        docker = f"docker --host {shlex.quote(self.host.docker_host)}"
        build = "docker buildx build --provenance=false" if self.builder is Builder.BUILDKIT else "docker build"
        build += f" --no-cache --label {LABEL}={MARK}"
        script = (
            f"{docker} run -d --name {name} --user 10001:10001 --group-add {gid} --cap-drop ALL --read-only "
            f"--tmpfs /tmp --tmpfs /app:exec,uid=10001 -e HOME=/tmp -v {socket}:/var/run/docker.sock:ro "
            f"{self.settings.builder_image} sleep 600\n"
            f"{docker} exec {name} git clone --depth 1 {repository.url} /app\n"
            f"{docker} exec -e DOCKER_BUILDKIT=0 {name} {build} -t {IMAGE}:built /app\n"
            f"{docker} tag {IMAGE}:built {IMAGE}:plain\n"
        )
        _shell(script)
        tagged = time.monotonic()
        _shell(f"{docker} rm -f {name}")
        return tagged

    def in_process(self, repository: Repository, *, no_cache: bool = True) -> None:
        """Build in this process."""
        with contextlib.redirect_stderr(io.StringIO()):
            report = run_build(self._request(repository, no_cache=no_cache), self.settings, call=as_function)
        self.last_log = Path(report.log_file)

    def over_the_api(self, repository: Repository) -> float:
        """Build by a call to the API, and wait for the run's end. The tag is looked for on the engine alone."""
        request = self._request(repository, no_cache=True).model_dump(mode="json")
        with self.caisson.api as api, DockerEngine(self.settings.docker_host) as engine:
            run = trigger_build(api, {"request": request}, deployment=build_deployment(self.caisson.settings))
            deadline = time.monotonic() + _MOST_SECONDS
            while not _is_of(engine.inspect_image(f"{IMAGE}:main"), run):
                if time.monotonic() > deadline:
                    raise RuntimeError(f"run {run} has made no image in {_MOST_SECONDS} s: {run_state(api, run)}")
                time.sleep(0.02)
            tagged = time.monotonic()
            self._wait_for_end(api, run, pause=0.5)
        return tagged

    def again_over_the_api(self, repository: Repository) -> None:
        """Ask for the image that is there; its tag does not move, so the run's end is what can be seen."""
        request = self._request(repository, no_cache=False).model_dump(mode="json")
        with self.caisson.api as api:
            run = trigger_build(api, {"request": request}, deployment=build_deployment(self.caisson.settings))
            self._wait_for_end(api, run, pause=0.05)

    def _wait_for_end(self, api: PrefectApi, run: FlowRunId, *, pause: float) -> None:
        while not (state := run_state(api, run)).final:
            time.sleep(pause)
        if state.state_type != "COMPLETED":
            raise RuntimeError(f"the run ended {state.state_name}: {state.message}")
        self.last_log = log_file(self.caisson.settings, run)

    def _request(self, repository: Repository, *, no_cache: bool) -> BuildRequest:
        return parse_request(
            {
                "repository_url": repository.url,
                "image": IMAGE,
                "no_cache": no_cache,
                "builder": self.builder.value,
                "labels": {LABEL: MARK},
            }
        )


def _lines(log: Path) -> list[int]:
    """The numbers of the lines that a loud build printed, in the order of its log."""
    words = (line.split(" ") for line in log.read_text().splitlines())
    return [int(found[-1]) for found in words if found[-2:-1] == ["line"] and found[-1].isdigit()]


def _is_of(image: ImageInfo | None, run: FlowRunId) -> bool:
    return image is not None and image.labels.get(LABEL_IMAGE_FLOW_RUN) == run


def _shell(script: str) -> None:
    subprocess.run(["sh", "-ec", script], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


if __name__ == "__main__":
    sys.exit(main())
