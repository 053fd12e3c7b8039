"""A prune under pressure of a host whose build cache holds layers of its images as well, as BuildKit's does."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from caisson.disk_limits import DiskLimits, parse_limits
from caisson.leases import Leases
from caisson.ledger import Ledger
from caisson.prune import MOST_ROUNDS, apply_plan, make_plan
from caisson.prune_report import PruneReport
from caisson.prune_view import HostView, PruneHost
from caisson.retention.policy import RetentionPolicy
from tests.fake_engine import FakeEngine
from tests.fake_host import MIB, FakeCache, FakeHost
from tests.prune_hosts import NOW


@dataclass(frozen=True)
class CachedHost:
    """Images of their own layer on one of two bases; sizes in MiB. The cache has the layers of some, and more."""

    images: tuple[tuple[int, int], ...]
    """For each image its size and its base's number."""
    cached: frozenset[int]
    is_base_cached: bool
    own_cache: tuple[int, ...]
    reserved: int
    missing: int

    def make(self) -> FakeHost:
        host = FakeHost("overlay2", NOW - timedelta(days=60), total_bytes=20_000 * MIB)
        for number, (size, base) in enumerate(self.images):
            layers = (f"base{base}", f"own{number}")
            host.new_image([(layers[0], 50 * MIB), (layers[1], size * MIB)], tags=[f"app{number}:1"])
            if number in self.cached:
                host.cache.append(FakeCache(size * MIB, layers=layers))
        if self.is_base_cached:
            host.cache += [FakeCache(50 * MIB, layers=(f"base{base}",)) for base in {base for _, base in self.images}]
        host.cache += [FakeCache(size * MIB) for size in self.own_cache]
        return host

    def prune(self, host: FakeHost, state: Path) -> PruneReport:
        ledger = Ledger(state / "ledger.sqlite")
        pruned = PruneHost(
            engines=(FakeEngine(host),),
            ledger=ledger,
            leases=Leases(state / "leases", ledger.leases),
            read_usage=host.read_usage,
            clock=lambda: host.now,
        )
        policy = RetentionPolicy.model_validate(
            {
                "scope": "host",
                "allow_unrecoverable": True,
                "otherwise": {"keep_last": 0, "max_age": "", "min_age": "0s"},
                "build_cache": {"reserved_space": f"{self.reserved}m", "max_used_space": "100g"},
            }
        )
        view = HostView(pruned, policy)
        view.look(pruned.leases.held())
        host.now = NOW
        limits = self._limits(host)
        plan = make_plan(view, limits, force_pressure=True)
        return apply_plan(
            view,
            plan,
            trigger="a test",
            replan=lambda attempt: make_plan(view, limits, force_pressure=True, attempt=attempt),
        )

    def _limits(self, host: FakeHost) -> DiskLimits:
        low = host.read_usage().free_bytes + self.missing * MIB
        bytes_ = {"low": f"{low} free", "high": f"{low - 1} free", "critical": "0 free"}
        return parse_limits(**bytes_, inodes_low="90%", inodes_high="95%", inodes_critical="99%")


_FULLY_CACHED = CachedHost(((40, 0),) * 200, frozenset(range(200)), True, (), 0, 200)
_RESERVE_IS_SHARED = CachedHost(((40, 0),) * 100, frozenset(range(100)), False, (10,), 1000, 200)

_hosts = st.lists(st.tuples(st.integers(1, 60), st.integers(0, 1)), min_size=1, max_size=30).flatmap(
    lambda images: st.builds(
        CachedHost,
        images=st.just(tuple(images)),
        cached=st.frozensets(st.integers(0, len(images) - 1)) | st.just(frozenset(range(len(images)))),
        is_base_cached=st.booleans(),
        own_cache=st.lists(st.integers(1, 100), max_size=4).map(tuple),
        reserved=st.sampled_from([0, 0, 100, 1000]),
        missing=st.integers(1, 600),
    )
)


@given(_hosts)
@example(_FULLY_CACHED)
@example(_RESERVE_IS_SHARED)
@settings(max_examples=max(1, settings.default.max_examples // 2))
def test_no_more_goes_than_is_wanted_and_one_item(script: CachedHost) -> None:
    """ "Stops when statvfs says that the low threshold is reached", whatever the cache holds of what goes."""
    host = script.make()
    images = {image.id: host.size_of(image) for image in host.images.values()}
    with tempfile.TemporaryDirectory() as state:
        report = script.prune(host, Path(state))
    assert report.problem == ""
    one = max([*images.values(), *(size * MIB for size in script.own_cache)])
    assert report.freed_bytes <= script.missing * MIB + one
    # What frees nothing, since the cache holds it, is no reason for more: only a reserve that may not go.
    gone = [size - 50 * MIB for image, size in images.items() if image not in host.images]
    assert sum(gone) <= (script.missing + script.reserved) * MIB + MOST_ROUNDS * one or not host.images


@pytest.mark.parametrize("script", [_FULLY_CACHED, _RESERVE_IS_SHARED])
def test_what_the_cache_holds_of_images_that_went_goes_before_more_images(script: CachedHost, tmp_path: Path) -> None:
    """Cache that images hold as well is left over for builds, so it counts for what is reserved."""
    host = script.make()
    count = len(host.images)
    report = script.prune(host, tmp_path)
    assert (report.ending, report.freed_bytes) == ("target-reached", 240 * MIB)
    assert [(result.item.phase, result.round) for result in report.results if result.outcome == "removed"] == [
        *[("evicted", 1)] * 6,
        ("cache-evicted", 2),
    ]
    assert len(host.images) == count - 6
