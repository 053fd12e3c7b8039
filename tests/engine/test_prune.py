"""Prunes on real engines whose disks are the tests' own: what goes, what must not, and whether the disk agrees."""

from __future__ import annotations

import pytest

from caisson.prune import apply_plan
from caisson.prune_report import ItemResult
from tests.engine.own_disks import HOST_WIDE, MIB, UNDER_PRESSURE, Disk, family, low_at
from tests.image_archive import ArchiveImage, Layer


def test_hundreds_of_images_free_what_the_plan_says(disk: Disk) -> None:
    # What an engine keeps beside a layer, some 80 KB, is in no image's size: with smaller layers it would be seen.
    count = 200
    disk.load(*family(count, size=2 * MIB))
    before = disk.usage
    report = disk.prune(HOST_WIDE)
    assert report.counts == {"removed": count}
    freed = disk.usage.free_bytes - before.free_bytes
    print(f"\n  {count} images: {freed / report.plan.reclaimable_bytes:.1%} of what was planned was freed")
    assert report.freed_bytes == pytest.approx(freed, abs=4 * MIB)
    assert freed == pytest.approx(report.plan.reclaimable_bytes, rel=0.05)
    # The containerd store keeps the archive's layers as they came, too.
    layers = (4 * 8 + count // 5 * 2 + count // 5 * 2 * 2) * MIB * (2 if disk.engine.containerd_store else 1)
    assert report.plan.reclaimable_bytes == pytest.approx(layers, rel=0.01)
    assert disk.tags == set()
    (recorded,) = disk.ledger.prunes.list()
    assert (recorded.outcome, recorded.freed_bytes) == ("done", report.freed_bytes)
    # And again there is nothing to do.
    assert disk.prune(HOST_WIDE).plan.items == ()


def test_what_is_used_kept_held_or_changed_since_the_plan_stays(disk: Disk) -> None:
    names = ("free", "running", "pattern", "leased", "moved", "tagged", "newly-used", "newly-leased")
    disk.load(*(ArchiveImage((f"{name}:1", f"{name}:2"), [Layer("base", MIB), Layer(name, MIB)]) for name in names))
    body = {"Image": "running:1"}
    disk.docker.create_container("user", body)
    policy = HOST_WIDE.model_copy(update={"keep": ("pattern",)})
    with disk.leases.hold("build one", ["leased:1"], taken=disk.now):
        view, plan = disk.plan(policy)
        planned = {tag for item in plan.items for tag in item.image.tags}  # type: ignore[union-attr]
        assert planned == {
            f"{n}:{v}" for n in ("free", "moved", "tagged", "newly-used", "newly-leased") for v in (1, 2)
        }
        # Others go on with their work between plan and apply.
        disk.docker.tag_image(disk.id("free:1"), "moved:1")
        disk.docker.tag_image(disk.id("tagged:1"), "important:1")
        disk.docker.create_container("user2", {"Image": "newly-used:2"})
        with disk.leases.hold("build two", ["newly-leased:2"], taken=disk.now):
            report = apply_plan(view, plan, trigger="a test")
    try:
        results = {result.item.image.tags[0]: result for result in report.results}  # type: ignore[union-attr]
        assert results["moved:1"].outcome == "removed"
        assert {name: (result.outcome, result.rule) for name, result in results.items() if name != "moved:1"} == {
            # It has a name that it had not in the plan.
            "free:1": ("kept", "changed"),
            "tagged:1": ("kept", "changed"),
            "newly-used:1": ("kept", "in-use"),
            "newly-leased:1": ("kept", "lease"),
        }
        every = {f"{name}:{version}" for name in names for version in (1, 2)}
        assert disk.tags == (every - {"moved:2"}) | {"important:1"}
    finally:
        for container in disk.docker.list_containers({}):
            disk.docker.remove_container(container.id)


def test_under_pressure_the_least_worth_goes_until_there_is_room_and_no_more(disk: Disk) -> None:
    disk.load(*family(20, size=2 * MIB))
    total = len(disk.tags)
    wanted = disk.usage.free_bytes + 20 * MIB
    report = disk.prune(UNDER_PRESSURE, low_at(wanted))
    assert report.ending == "target-reached"
    # Some more go where several are removed at once.
    assert wanted < disk.usage.free_bytes < wanted + (40 if disk.engine.containerd_store else 12) * MIB
    assert 0 < len(disk.tags) == total - report.counts["removed"]


def test_what_is_protected_is_told_where_room_can_not_be_made(disk: Disk) -> None:
    disk.load(*family(4, siblings=2))
    policy = UNDER_PRESSURE.model_copy(update={"keep": ("app1", "app2", "app3")})
    report = disk.prune(policy, low_at(disk.usage.free_bytes + 100 * MIB))
    assert (report.ending, report.counts) == ("short", {"removed": 1})
    assert report.kept_bytes["keep-pattern"] > 10 * MIB
    assert report.shortfall.endswith("MiB")


def test_a_prune_that_is_asked_to_stop_stops_between_two_removals(disk: Disk) -> None:
    disk.load(*family(6))
    view, plan = disk.plan(HOST_WIDE)
    seen: list[ItemResult] = []
    report = apply_plan(view, plan, trigger="a test", on_result=seen.append, should_stop=lambda: len(seen) >= 2)
    removed = report.counts["removed"]
    assert (report.ending, report.counts) == ("stopped", {"removed": removed, "not-reached": 6 - removed})
    assert 2 <= removed <= 4
    assert disk.prune(HOST_WIDE).counts == {"removed": 6 - removed}
