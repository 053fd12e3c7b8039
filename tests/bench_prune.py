"""What a prune costs and what it deletes, by Caisson and by others, on the same 1,000 images of one engine in one run.

    python -m tests.bench_prune [--images N]

Of the images, by what really happened to them:

- 6 in 10 were not used for 60 days: they should go;
- 2 in 10 were used yesterday by containers that are gone: having to pull or build them again helps nobody;
- 1 in 10 are what a stopped container was made from, with two tags each: it could not start again, or by that name;
- 1 in 10 are the newest of their repository: what is rolled back to.

All of them were created long ago, as base images and reproducible builds are. Each tool is told to remove what was not
used for 30 days, as far as it has words for that. Calls are counted by the engine itself, in its debug log.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

from docker import APIClient

from caisson.disk import read_file_system
from caisson.disk_limits import parse_limits
from caisson.docker_engine import DockerEngine
from caisson.event_replay import replay_events
from caisson.leases import Leases
from caisson.ledger import Ledger
from caisson.prune import apply_plan, make_plan
from caisson.prune_view import HostView, PruneHost
from caisson.retention.policy import RepositoryRule, Retention, RetentionPolicy, Scope
from tests.figures import Figures
from tests.image_archive import ArchiveImage, Layer, load_images
from tests.own_engine import OwnEngine, own_engine

IMAGES = 1000
MOST_PLANNING_SECONDS, MOST_RATIO = 1.0, 1.3
_DAYS = 30
_CALL = re.compile(rb'msg="Calling (?!HEAD /_ping|GET /_ping)')
# An engine keeps its last 256 events: the monitor reads them more often than that.
_AT_ONCE = 100
_CUSTODIAN = "docker-custodian==0.7.4"
# The latest; a pre-release, as all of its are.
_IMAGE_CLEANER = "docker-image-cleaner==1.0.0b3"
_IS_CLEAN = re.compile(r"Deleted \d+ images, freed")
POLICY = RetentionPolicy(
    scope=Scope.HOST,
    allow_unrecoverable=True,
    rules=(RepositoryRule(repositories="newest*", keep_last=1, max_age=timedelta(days=_DAYS)),),
    otherwise=Retention(keep_last=0, max_age=timedelta(days=_DAYS)),
)


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--images", type=int, default=IMAGES, help=f"how many images; default {IMAGES}")
    figures = Figures()
    bench_prune(figures, arguments.parse_args().images)
    return figures.conclude()


@dataclass(frozen=True)
class Truth:
    """Which images should go, and which tags must stay."""

    unused: frozenset[str]
    used_lately: frozenset[str]
    in_use: frozenset[str]
    newest: frozenset[str]

    @property
    def must_stay(self) -> frozenset[str]:
        return self.used_lately | self.in_use | self.newest


@dataclass(frozen=True)
class Row:
    """One tool's turn."""

    tool: str
    calls: int
    seconds: float
    gone: frozenset[str]


def bench_prune(figures: Figures, images: int = IMAGES) -> None:
    """Print a row for each tool, and whether Caisson's figures are within their reach."""
    print(f"\npruning {images:,} images, engine {_version()}", flush=True)
    with own_engine("10.231.83.1", "--debug", disk_bytes=8 << 30, inodes=1 << 20) as engine:
        bench = _Bench(engine, images)
        bare = bench.turn("DELETE alone, in a loop", bench.delete_all)
        ours = bench.turn("caisson prune", bench.caisson)
        rows = [bare, ours]
        rows.append(bench.turn("docker image prune --all --filter until=720h", bench.docker_prune))
        for package, program, tool, prune in (
            (_IMAGE_CLEANER, "docker-image-cleaner", "docker-image-cleaner 1.0.0b3", bench.image_cleaner),
            (_CUSTODIAN, "dcgc", "docker-custodian --max-image-age 30days", bench.custodian),
        ):
            with _installed(package, program) as path:
                if path:
                    rows.append(bench.turn(tool, partial(prune, path)))
                else:
                    figures.judge(f"{package} beside it", "not measured", "the peers in one run", met=False)
        truth = bench.truth
        print(
            f"  {'':46} {'calls':>6} {'seconds':>8} {'removed':>8} {'wrongly':>8}  of which used lately, in use, newest"
        )
        for row in rows:
            wrong = row.gone & truth.must_stay
            parts = (len(wrong & part) for part in (truth.used_lately, truth.in_use, truth.newest))
            print(
                f"  {row.tool:46} {row.calls:6,} {row.seconds:8.2f} {len(row.gone):8,} {len(wrong):8,}  "
                f"{', '.join(map(str, parts))}",
                flush=True,
            )
        removed, astray = len(ours.gone), len(ours.gone & truth.must_stay)
        most_calls = 2 + 3 * removed
        ratio = ours.seconds / bare.seconds * len(bare.gone) / max(1, removed)
        planning = bench.planning_seconds
        for what, measured, reach, met in (
            ("engine calls", f"{ours.calls:,}", f"{most_calls:,}: 2 + new + removed x 3", ours.calls <= most_calls),
            ("planning", f"{planning:.2f} s", f"{MOST_PLANNING_SECONDS:g} s", planning < MOST_PLANNING_SECONDS),
            ("the whole", f"x{ratio:.2f}", f"x{MOST_RATIO} of the bare DELETEs", ratio <= MOST_RATIO),
            ("deleted that should stay", f"{astray}", "none", not astray),
        ):
            verdict = figures.judge(f"pruning {images:,} images: {what}", measured, reach, met=met)
            print(f"  caisson prune, {what}: {measured}   {verdict}", flush=True)


class _Bench:
    """One engine, filled anew before each turn."""

    def __init__(self, engine: OwnEngine, images: int) -> None:
        self.engine = engine
        self.api = APIClient(base_url=engine.host.docker_host, version="auto", timeout=600)
        self.planning_seconds = 0.0
        self._images, self.truth = _make(images)

    def turn(self, tool: str, prune: Callable[[], float | None]) -> Row:
        """Fill the engine, let a tool prune it, and see what is gone; a tool may say its own seconds."""
        self._clear()
        load_images(self.engine.host, self._images)
        for tag in sorted(self.truth.in_use):
            if tag.endswith(":a"):
                self.api.create_container(tag, ["/none"])
        with tempfile.TemporaryDirectory(prefix="caisson-bench-") as state:
            self._host = self._remember(Path(state))
            before = self._tags()
            log = self.engine.directory / "log"
            offset = log.stat().st_size
            began = time.monotonic()
            seconds = prune() or time.monotonic() - began
            with log.open("rb") as file:
                file.seek(offset)
                calls = len(_CALL.findall(file.read()))
        return Row(tool, calls, seconds, frozenset(before - self._tags()))

    def _remember(self, state: Path) -> PruneHost:
        """A ledger that has seen these images for 60 days, and the uses of yesterday."""
        ledger = Ledger(state / "ledger.sqlite")
        now = datetime.now(UTC)
        host = PruneHost(
            engines=(DockerEngine(self.engine.host.docker_host),),
            ledger=ledger,
            leases=Leases(state / "leases", ledger.leases),
            read_usage=lambda: read_file_system(self.engine.data_root),
            clock=lambda: now - timedelta(days=60),
        )
        HostView(host, POLICY).look(host.leases.held())
        used = sorted(self.truth.used_lately)
        for number, tag in enumerate(used, start=1):
            container = self.api.create_container(tag, ["/none"])["Id"]
            self.api.remove_container(container)
            if number % _AT_ONCE == 0 or number == len(used):
                replay_events(host.engine, ledger, now=now - timedelta(days=1))
        return PruneHost(host.engines, ledger, host.leases, host.read_usage)

    def caisson(self) -> float:
        limits = parse_limits(
            low="2 free", high="1 free", critical="0 free",
            inodes_low="2 free", inodes_high="1 free", inodes_critical="0 free",
        )  # fmt: skip
        began = time.monotonic()
        view = HostView(self._host, POLICY)
        plan = make_plan(view, limits)
        planned = time.monotonic()
        apply_plan(view, plan, trigger="the benchmark")
        self.planning_seconds = planned - began
        return time.monotonic() - began

    def delete_all(self) -> None:
        for tag in sorted(self.truth.unused):
            self.api.remove_image(tag)

    def docker_prune(self) -> None:
        self._docker("image", "prune", "--all", "--force", "--filter", f"until={_DAYS * 24}h")

    def image_cleaner(self, program: Path) -> float:
        """One round of its loop, as when the disk is above its threshold; it has no other word for what is to go."""
        prefix = "DOCKER_IMAGE_CLEANER_"
        env = {
            "DOCKER_HOST": self.engine.host.docker_host,
            f"{prefix}PATH_TO_CHECK": str(self.engine.data_root),
            f"{prefix}THRESHOLD_HIGH": "0",
            f"{prefix}TIMEOUT_SECONDS": "600",
        }
        began = time.monotonic()
        with subprocess.Popen([str(program)], env=env, stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr is not None
            try:
                ended = next((time.monotonic() for line in process.stderr if _IS_CLEAN.search(line)), None)
            finally:
                # It would wait for its next round.
                process.kill()
        assert ended is not None, "it ended before its round did"
        return ended - began

    def custodian(self, program: Path) -> None:
        command = [str(program), "--max-image-age", f"{_DAYS}days", "--timeout", "600"]
        subprocess.run(command, env={"DOCKER_HOST": self.engine.host.docker_host}, check=True, capture_output=True)

    def _docker(self, *arguments: str) -> None:
        subprocess.run(["docker", "-H", self.engine.host.docker_host, *arguments], check=True, capture_output=True)

    def _tags(self) -> set[str]:
        return {tag for image in self.api.images() for tag in image["RepoTags"] or () if tag != "<none>:<none>"}

    def _clear(self) -> None:
        for container in self.api.containers(all=True):
            self.api.remove_container(container["Id"], force=True)
        for image in self.api.images():
            self.api.remove_image(image["Id"], force=True)


def _make(count: int) -> tuple[list[ArchiveImage], Truth]:
    images: list[ArchiveImage] = []
    groups: dict[str, set[str]] = {"unused": set(), "used_lately": set(), "in_use": set(), "newest": set()}
    kinds = ["unused"] * 6 + ["used_lately"] * 2 + ["in_use", "newest"]
    for number in range(count):
        kind = kinds[number % 10]
        if kind == "in_use":
            tags = (f"app{number}:a", f"app{number}:b")
        elif kind == "newest":
            tags = (f"{kind}{number}:1",)
        else:
            tags = (f"{kind}:{number}",)
        groups[kind].update(tags)
        layers = [Layer(f"base{number % 20}", 4096), Layer(f"own{number}", 4096)]
        images.append(ArchiveImage(tags, layers))
    return images, Truth(**{name: frozenset(tags) for name, tags in groups.items()})


@contextmanager
def _installed(package: str, program: str) -> Iterator[Path | None]:
    """A program in an environment of its own; None where it can't be had, which is said."""
    with tempfile.TemporaryDirectory(prefix="caisson-peer-") as directory:
        subprocess.run([sys.executable, "-m", "venv", directory], check=True)
        pip = [str(Path(directory) / "bin" / "pip"), "install", "--quiet", package]
        if subprocess.run(pip, check=False, capture_output=True).returncode:
            print(f"  {package} could not be installed, so it is not measured")
            yield None
        else:
            yield Path(directory) / "bin" / program


def _version() -> str:
    return (
        subprocess.run(["dockerd", "--version"], check=True, capture_output=True, text=True)
        .stdout.split()[2]
        .rstrip(",")
    )


if __name__ == "__main__":
    sys.exit(main())
