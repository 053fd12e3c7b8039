"""What the guard adds: the same requests and builds on the engine's own socket and on a guarded one, in turns.

    python -m tests.bench_guard [--quick]

Clients and guard are processes of their own. Every figure is measured in this run, on each engine that there is; one
that misses its reach is printed as such.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from caisson.guard.policy import GuardPolicy
from caisson.reference import parse_reference
from caisson.unix_http import UnixConnection
from tests.conftest import EngineHost, ask_engine, find_engines
from tests.engine.buildx import copy_buildx
from tests.engine.guard_processes import GuardProcess, guard_processes
from tests.figures import Figures

REPOSITORY = "caisson-bench/guard"
PING_REACH, THROUGHPUT_REACH, BUILD_REACH, MEMORY_REACH = 3.0, 0.8, 1.03, 40_000_000
GUARDS_AT_ONCE = 10
_RANDOM = 8 << 20
# Only what is larger can be this measurement's own context in a build cache that others use too.
_LEAST_CACHED = 64 << 20


@dataclass(frozen=True)
class Plan:
    """How much is measured."""

    pings: int
    context_bytes: int
    context_turns: int
    build_seconds: int
    build_turns: int


FULL = Plan(pings=2_000, context_bytes=1 << 30, context_turns=3, build_seconds=20, build_turns=3)
QUICK = Plan(pings=400, context_bytes=200 << 20, context_turns=2, build_seconds=5, build_turns=2)


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--quick", action="store_true", help="fewer turns, a context of 200 MiB, shorter builds")
    figures = Figures()
    bench_guard(figures, QUICK if arguments.parse_args().quick else FULL)
    return figures.conclude()


def bench_guard(figures: Figures, plan: Plan) -> None:
    """Measure on each engine, and print."""
    for host in find_engines():
        with tempfile.TemporaryDirectory(prefix="caisson-bench-") as directory:
            print(f"\nguard, engine {host.name}, {os.cpu_count()} cores, medians", flush=True)
            GuardBench(host, plan, Path(directory), figures).run()


class GuardBench:
    """One engine; prints a row a comparison."""

    def __init__(self, host: EngineHost, plan: Plan, directory: Path, figures: Figures) -> None:
        self.host, self.plan, self.directory, self.figures = host, plan, directory, figures
        self.buildx = copy_buildx(directory / "docker-buildx")
        self.image = f"{REPOSITORY}:{uuid.uuid4().hex[:8]}"

    def run(self) -> None:
        policy = GuardPolicy(image=parse_reference(self.image), cache_mount_namespace="caisson-bench")
        with self._cleaned(), guard_processes(self.directory, self.host.socket, [policy]) as (guard,):
            self.pings(guard)
            self.contexts(guard)
            self.whole_builds(guard)
            print(f"  {'memory of that guard, added':<34} {guard.added_memory() / (1 << 20):9.1f} MiB")
        self.ten_at_once()

    def pings(self, guard: GuardProcess) -> None:
        for title, kept in (("/_ping on one connection", True), ("/_ping, each on a new connection", False)):
            raw, guarded = in_turns(
                lambda kept=kept: _pings(self.host.socket, self.plan.pings // 20, kept=kept),
                lambda kept=kept: _pings(guard.socket, self.plan.pings // 20, kept=kept),
                turns=20,
            )
            ratio = guarded / raw
            print(
                f"  {title:<34} {guarded * 1e3:9.3f} ms  raw {raw * 1e3:.3f} ms  x{ratio:.2f}   "
                f"{self._judge(title, f'x{ratio:.2f}', f'at most x{PING_REACH:g} of the raw', ratio <= PING_REACH)}",
                flush=True,
            )

    def contexts(self, guard: GuardProcess) -> None:
        context = self.directory / "context"
        context.mkdir()
        (context / "tiny").write_text("tiny\n")
        with (context / "big").open("wb") as big:
            for _ in range(self.plan.context_bytes // _RANDOM):
                big.write(os.urandom(_RANDOM))
        # The classic builder takes all of a context, BuildKit only what is copied.
        for title, build, copied in (("classic", self.classic, "tiny"), ("BuildKit", self.buildkit, "big")):
            (context / "Dockerfile").write_text(f"FROM scratch\nCOPY {copied} /\n")
            raw, guarded = in_turns(
                lambda build=build: build(self.host.docker_host, context),
                lambda build=build: build(guard.host, context),
                turns=self.plan.context_turns,
            )
            size, ratio = self.plan.context_bytes, raw / guarded
            what = f"context of {size >> 20} MiB, {title}"
            reach = f"x{THROUGHPUT_REACH:g} of the raw throughput"
            print(
                f"  {what:<34} {size / guarded / 1e6:9.0f} MB/s  raw {size / raw / 1e6:.0f} MB/s  x{ratio:.2f}   "
                f"{self._judge(what, f'x{ratio:.2f}', reach, ratio >= THROUGHPUT_REACH)}",
                flush=True,
            )

    def whole_builds(self, guard: GuardProcess) -> None:
        context = self.directory / "whole"
        context.mkdir()
        steps = "".join(f"RUN echo {step} && sleep {self.plan.build_seconds / 4}\n" for step in range(4))
        (context / "Dockerfile").write_text(f"FROM debian:trixie-slim\nCOPY Dockerfile /\n{steps}")
        for title, build in (("classic", self.classic), ("BuildKit", self.buildkit)):
            raw, guarded = in_turns(
                lambda build=build: build(self.host.docker_host, context),
                lambda build=build: build(guard.host, context),
                turns=self.plan.build_turns,
            )
            what, ratio = f"whole build, {title}", guarded / raw
            print(
                f"  {what:<34} {guarded:9.2f} s  raw {raw:.2f} s  x{ratio:.3f}   "
                f"{self._judge(what, f'x{ratio:.3f}', f'x{BUILD_REACH:g}', ratio <= BUILD_REACH)}",
                flush=True,
            )

    def ten_at_once(self) -> None:
        """Ten guards, each with a build of its own whose context is large enough to fill every buffer."""
        directory = self.directory / "ten"
        context = directory / "context"
        context.mkdir(parents=True)
        (context / "big").write_bytes(os.urandom(_RANDOM) * 4)
        (context / "Dockerfile").write_text("FROM scratch\nCOPY big /\n")
        images = [f"{self.image}-{number}" for number in range(GUARDS_AT_ONCE)]
        policies = [GuardPolicy(image=parse_reference(image)) for image in images]
        for title, buildkit in (("classic", False), ("BuildKit", True)):
            own = directory / title
            own.mkdir()
            with self._cleaned(*images), guard_processes(own, self.host.socket, policies) as guards:
                builds = [
                    subprocess.Popen(
                        self._command(guard.host, context, image, buildkit=buildkit),
                        env=self._environment(guard.host),
                        stdout=subprocess.DEVNULL,
                        stderr=subprocess.DEVNULL,
                    )
                    for guard, image in zip(guards, images, strict=True)
                ]
                failed = sum(build.wait(timeout=600) != 0 for build in builds)
                memory = [guard.added_memory() for guard in guards]
            whole, most = sum(memory) / 1e6, max(memory) / 1e6
            what = f"{GUARDS_AT_ONCE} builds at once, {title}"
            verdict = self._judge(
                f"a guard's memory, {what}",
                f"{most:.1f} MB, {failed} failed",
                f"{MEMORY_REACH / 1e6:g} MB",
                not failed and max(memory) < MEMORY_REACH,
            )
            print(
                f"  {what:<34} {most:9.1f} MB added at most by one guard, {whole:.1f} MB by all, {failed} failed   "
                f"{verdict}",
                flush=True,
            )

    def _judge(self, what: str, measured: str, reach: str, met: bool) -> str:
        return self.figures.judge(f"guard, engine {self.host.name}: {what}", measured, reach, met=met)

    def classic(self, docker_host: str, context: Path) -> None:
        self._run(docker_host, context, buildkit=False)

    def buildkit(self, docker_host: str, context: Path) -> None:
        # What BuildKit has of a directory already is not sent again.
        for file in context.iterdir():
            os.utime(file)
        self._run(docker_host, context, buildkit=True)

    def _run(self, docker_host: str, context: Path, *, buildkit: bool) -> None:
        command = self._command(docker_host, context, self.image, buildkit=buildkit)
        subprocess.run(command, check=True, capture_output=True, env=self._environment(docker_host))

    def _command(self, docker_host: str, context: Path, image: str, *, buildkit: bool) -> list[str]:
        program = [str(self.buildx), "build", "--provenance=false"] if buildkit else ["docker", "build"]
        return [*program, "--no-cache", "--tag", image, str(context)]

    def _environment(self, docker_host: str) -> dict[str, str]:
        own = {"DOCKER_HOST": docker_host, "DOCKER_BUILDKIT": "0", "HOME": str(self.directory)}
        return {**own, "PATH": os.environ["PATH"]}

    @contextlib.contextmanager
    def _cleaned(self, *images: str) -> Iterator[None]:
        """Remove what was made in the block: the images, and the large part of the build cache."""
        before = self._cached()
        try:
            yield
        finally:
            for image in images or (self.image,):
                subprocess.run(
                    ["docker", "--host", self.host.docker_host, "rmi", "-f", image], capture_output=True, check=False
                )
            for record in self._cached() - before:
                connection = UnixConnection(self.host.socket, timeout=60)
                connection.request("POST", f"/build/prune?filters={quote(json.dumps({'id': [record]}))}")
                connection.getresponse().read()
                connection.close()

    def _cached(self) -> set[str]:
        records = ask_engine(self.host, "/system/df")["BuildCache"] or []
        return {record["ID"] for record in records if record["Size"] >= _LEAST_CACHED}


def in_turns(raw: Callable[[], object], guarded: Callable[[], object], *, turns: int) -> tuple[float, float]:
    """Medians of seconds, of one after the other, ``turns`` times; a first turn of each warms the caches.

    A call that returns seconds has measured by itself.
    """
    times: tuple[list[float], list[float]] = ([], [])
    for turn in range(turns + 1):
        for call, into in zip((raw, guarded), times, strict=True):
            # What one has written is on the disk before the next is measured.
            os.sync()
            begin = time.monotonic()
            found = call()
            seconds = found if isinstance(found, float) else time.monotonic() - begin
            if turn:
                into.append(seconds)
    return statistics.median(times[0]), statistics.median(times[1])


def _pings(path: Path, count: int, *, kept: bool) -> float:
    """The median of seconds of one, with its connection where that is new.

    By bare sockets: a client that does more of its own would make the guard look better.
    """
    connection, times = None, []
    for _ in range(count):
        begin = time.perf_counter()
        if connection is None:
            connection = socket.socket(socket.AF_UNIX)
            connection.connect(str(path))
        connection.sendall(b"GET /_ping HTTP/1.1\r\nHost: docker\r\n\r\n")
        answer = b""
        while not answer.endswith((b"\r\n\r\nOK", b"\r\n0\r\n\r\n")):
            answer += connection.recv(4_096)
        if not kept:
            connection.close()
            connection = None
        times.append(time.perf_counter() - begin)
    if connection is not None:
        connection.close()
    return statistics.median(times)


if __name__ == "__main__":
    sys.exit(main())
