"""What planning a prune costs: 10,000 images with 40 layers each, in time and in memory.

    python -m tests.bench_plan [--images N]

Every figure is measured in this run, each plan in a process of its own; one that misses its reach is printed as such.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from random import Random

from caisson.disk import DiskUsage
from caisson.engine import ContainerID, ImageID
from caisson.retention.plan import plan_prune
from caisson.retention.plan_json import plan_to_json
from caisson.retention.policy import RetentionPolicy
from caisson.retention.prune_plan import FreeTarget, RemoveImage
from caisson.snapshot import ChainID, ContainerState, ImageState, Snapshot, StoredLayer
from tests.figures import Figures

IMAGES, LAYERS = 10_000, 40
MOST_SECONDS, MOST_MB = 3.0, 300
_NOW = datetime(2026, 6, 1, tzinfo=UTC)
_SHARES = {"30 of 40 layers shared by 100": 30, "no layer shared": 0, "all but one layer shared by all": 39}


@dataclass(frozen=True)
class _Measured:
    """Of one plan; memory and JSON in MB."""

    seconds: float
    peak: float
    before: float
    removed: int
    json: float
    json_seconds: float


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--images", type=int, default=IMAGES, help=f"how many images; default {IMAGES}")
    arguments.add_argument("--one", choices=_SHARES, help=argparse.SUPPRESS)
    options = arguments.parse_args()
    if options.one:
        print(json.dumps(_measure(options.images, options.one)))
        return 0
    figures = Figures()
    bench_plan(figures, options.images)
    return figures.conclude()


def bench_plan(figures: Figures, images: int = IMAGES) -> None:
    """Print a row for each way in which layers are shared."""
    print(f"\nplanning a prune of {images:,} images with {LAYERS} layers each, {os.cpu_count()} cores", flush=True)
    for way in _SHARES:
        command = [sys.executable, "-m", "tests.bench_plan", "--images", str(images), "--one", way]
        # A process of its own, for the peak of memory can't be set back.
        told = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        found = _Measured(**json.loads(told))
        verdict = figures.judge(
            f"planning {images:,} images, {way}",
            f"{found.seconds:.2f} s, {found.peak:.0f} MB",
            f"{MOST_SECONDS:g} s, {MOST_MB} MB",
            met=found.seconds < MOST_SECONDS and found.peak < MOST_MB,
        )
        print(
            f"  {way:32} {found.seconds:5.2f} s, peak {found.peak:4.0f} MB (the snapshot alone {found.before:4.0f}), "
            f"{found.removed:,} removed, JSON of {found.json:.0f} MB in {found.json_seconds:.2f} s   {verdict}",
            flush=True,
        )


def make_host(images: int, shared: int, random: Random) -> Snapshot:
    """A host whose images stand, a hundred to a base, on ``shared`` layers; the others are their own.

    With all but one layer shared, there is one base for all.
    """
    made = []
    for number in range(images):
        base = 0 if shared == LAYERS - 1 else number // 100
        layers = tuple(
            StoredLayer(ChainID(f"sha256:{base if depth < shared else f'{number}-own':0>56}{depth:08}"), 1 << 20)
            for depth in range(LAYERS)
        )
        used = _NOW - timedelta(hours=random.randint(30, 24 * 29))
        made.append(
            ImageState(
                id=ImageID(f"sha256:{random.getrandbits(256):064x}"),
                tags=(f"team/app-{number % 200}:sha-{number}", f"team/app-{number % 200}:{number}"),
                registry_digests=(f"team/app-{number % 200}@sha256:{number:064x}",),
                layers=layers,
                size=LAYERS << 20,
                first_seen=used,
                last_used=used,
                built_by_caisson=True,
                build_seconds=60.0,
            )
        )
    containers = tuple(
        ContainerState(ContainerID(f"{number:064x}"), made[number * 97 % images].id, f"web-{number}", "running")
        for number in range(100)
    )
    usage = DiskUsage("/var/lib/docker", 1 << 44, 1 << 30, 1 << 28, 1 << 27)
    return Snapshot(taken=_NOW, usage=usage, images=tuple(made), containers=containers)


def _measure(images: int, way: str) -> dict[str, float]:
    snapshot = make_host(images, _SHARES[way], Random(1))
    before = _peak()
    started = time.perf_counter()
    # More than there is, so that every candidate is weighed and evicted: the longest way through.
    plan = plan_prune(snapshot, RetentionPolicy(), _NOW, pressure=FreeTarget(1 << 44))
    seconds = time.perf_counter() - started
    peak = _peak()
    started = time.perf_counter()
    text = plan_to_json(plan)
    as_json = time.perf_counter() - started
    removed = sum(isinstance(item, RemoveImage) for item in plan.items)
    return asdict(_Measured(seconds, peak, before, removed, len(text) / 1e6, as_json))


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


if __name__ == "__main__":
    sys.exit(main())
