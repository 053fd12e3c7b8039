"""Random hosts, policies and targets; small, so that what is shared, torn, unknown or at a boundary comes up often."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any
from zlib import crc32

from hypothesis import strategies as st

from caisson.disk import DiskUsage
from caisson.engine import ImageID
from caisson.retention.policy import RetentionPolicy
from caisson.retention.prune_plan import FreeTarget
from caisson.snapshot import CacheEntry, ChainID, ImageState, LeaseState, Snapshot, StoredLayer, VolumeState
from tests.prune_hosts import MIB, NOW, container, days_ago, image_id

IMAGES = [f"i{number}" for number in range(8)]
REPOSITORIES = ["team/app", "team/web", "registry.example.com:5000/app", "caisson.local/build"]
TAGS = [f"{repository}:{tag}" for repository in REPOSITORIES for tag in ("1", "2", "v1", "latest")]
AGES = st.sampled_from([None, -1.0, 0.0, 0.5, 1.0, 2.0, 5.0, 29.0, 30.0, 40.0, 400.0])
SPANS = st.sampled_from(["0s", "12h", "1d", "2d", "30d", "60d"])


@st.composite
def images(draw: st.DrawFn) -> tuple[ImageState, ...]:
    """Images that stand on each other's layers; some made by the classic builder, step by step."""
    # Two tags each at most, so that there are enough of them.
    count = draw(st.integers(0, 7))
    free_tags = draw(st.permutations(TAGS))
    made: list[ImageState] = []
    for number in range(count):
        below = draw(st.none() | st.sampled_from(made)) if made else None
        layers = below.layers if below else ()
        # Few letters, so that now and then another image has the same layer on the same ground.
        for letter in draw(st.text("xyz", max_size=2)):
            layers = (*layers, _layer(f"{layers[-1].chain_id if layers else ''}{letter}"))
        tags = tuple(free_tags.pop() for _ in range(draw(st.sampled_from([0, 0, 1, 1, 1, 2, 2]))))
        if tags and draw(st.integers(0, 30)) == 0:
            tags = (*tags, draw(st.sampled_from(["UPPER:1", TAGS[0]])))
        seen, used = draw(AGES), draw(AGES)
        made.append(
            ImageState(
                id=image_id(IMAGES[number]),
                tags=tuple(dict.fromkeys(tags)),
                registry_digests=(f"team/app@sha256:{number:064}",) if draw(st.booleans()) else (),
                labels=draw(
                    st.sampled_from([{}] * 6 + [{"caisson.keep-until": "2026-06-02"}, {"caisson.keep-until": "?"}])
                ),
                layers=layers,
                parent=below.id if below and draw(st.booleans()) else None,
                size=sum(layer.size for layer in layers),
                first_seen=None if seen is None else days_ago(seen),
                last_used=None if used is None else days_ago(used),
                built_by_caisson=draw(st.integers(0, 3)) > 0,
                deployed=draw(st.sampled_from([None] * 6 + [0, 1, 2, 3])),
                build_seconds=draw(st.sampled_from([None, 0.0, 10.0, 1000.0])),
            )
        )
    return tuple(made)


def _layer(chain: str) -> StoredLayer:
    """Layers on the same ground are the same, so they are of one size."""
    return StoredLayer(ChainID(chain), crc32(chain.encode()) % 50 * MIB)


@st.composite
def leases(draw: st.DrawFn) -> LeaseState:
    return LeaseState(
        holder=draw(st.sampled_from(["build-1", "build-2"])),
        images=frozenset(map(image_id, draw(st.sets(st.sampled_from(IMAGES), max_size=1)))),
        references=frozenset(draw(st.sets(st.sampled_from([*TAGS, "team/app"]), max_size=1))),
        expires=draw(st.sampled_from([None, *(NOW + timedelta(minutes=minutes) for minutes in (-1, 0, 1))])),
        everything=draw(st.integers(0, 20)) == 0,
    )


containers = st.builds(
    lambda name, of, state, age, own: container(
        name, of, state, finished=None if age is None else days_ago(age), made_by_caisson=own, writable_bytes=MIB
    ),
    st.sampled_from(["a", "b"]),
    st.sampled_from(IMAGES),
    st.sampled_from(["created", "running", "exited", "dead"]),
    AGES,
    st.booleans(),
)
cache_entries = st.builds(
    CacheEntry, st.uuids().map(str), st.just("regular"), st.integers(0, 60).map(lambda n: n * MIB), st.booleans()
)
volumes = st.builds(
    lambda name, users, age: VolumeState(name, MIB, users, None if age is None else days_ago(age)),
    st.uuids().map(str),
    st.integers(0, 1),
    AGES,
)


@st.composite
def snapshots(draw: st.DrawFn) -> Snapshot:
    return Snapshot(
        taken=NOW,
        usage=DiskUsage(
            "/",
            total_bytes=1000 * MIB,
            free_bytes=draw(st.integers(0, 300)) * MIB,
            total_inodes=draw(st.sampled_from([0, 10_000])),
            free_inodes=draw(st.integers(0, 3000)),
        ),
        images=draw(images()),
        containers=tuple(draw(st.lists(containers, max_size=2, unique_by=lambda item: item.id))),
        leases=tuple(draw(st.lists(leases(), max_size=2))),
        build_cache=tuple(draw(st.lists(cache_entries, max_size=3))),
        anonymous_volumes=tuple(draw(st.lists(volumes, max_size=2))),
        problems=draw(st.sampled_from([()] * 20 + [("a read failed",)])),
    )


@st.composite
def policies(draw: st.DrawFn) -> RetentionPolicy:
    def retention() -> dict[str, Any]:
        return {
            "keep_last": draw(st.integers(0, 2)),
            "max_age": draw(st.just("") | SPANS),
            "min_age": draw(SPANS),
            "keep_tags": draw(st.lists(st.sampled_from(["v*", "latest", "?"]), max_size=1)),
        }

    rules = [
        {"repositories": pattern, **retention()}
        for pattern in draw(st.lists(st.sampled_from(["team/*", "team/app", "**"]), max_size=2))
    ]
    return RetentionPolicy.model_validate(
        {
            "scope": draw(st.sampled_from(["own", "host"])),
            "rules": rules,
            "otherwise": retention(),
            "keep": draw(st.lists(st.sampled_from(["team/web", "**:v1"]), max_size=1)),
            "keep_deployed": draw(st.integers(0, 2)),
            "allow_unrecoverable": draw(st.booleans()),
            "dangling_age": draw(SPANS),
            "leftovers_age": draw(SPANS),
            "exited_containers_age": draw(st.just("") | SPANS),
            "anonymous_volumes_age": draw(st.just("") | SPANS),
            "build_cache": {
                "reserved_space": "10m",
                "max_used_space": draw(st.sampled_from(["", "50m"])),
                "min_free_space": draw(st.sampled_from(["", "200m"])),
            },
        }
    )


targets = st.builds(FreeTarget, st.integers(0, 500).map(lambda n: n * MIB), st.integers(0, 5000))
EVERYTHING = FreeTarget(10_000 * MIB)
"""More than any of these hosts has: whatever may be evicted at all is."""


def only(snapshot: Snapshot, image: ImageID, **values: Any) -> Snapshot:
    """The same host, but for one image."""
    changed = tuple(replace(item, **values) if item.id == image else item for item in snapshot.images)
    return replace(snapshot, images=changed)
