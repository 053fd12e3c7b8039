"""Bounds of a disk: how they are written, in which order, and where a reading is between them."""

from __future__ import annotations

import pytest

from caisson.disk import DiskUsage
from caisson.disk_limits import Bound, DiskLimits, Zone, parse_limits
from caisson.errors import SettingsInvalid
from caisson.settings import Settings, load_settings

GIB = 1 << 30


def limits(**changes: str) -> DiskLimits:
    values = {"low": "75%", "high": "85%", "critical": "95%"}
    values |= {f"inodes_{name}": value for name, value in values.items()}
    return parse_limits(**(values | changes))


def usage(free: int, *, free_inodes: int = 1000, total_inodes: int = 1000, reserved: int = 0) -> DiskUsage:
    return DiskUsage("/d", 100 + reserved, free, total_inodes, free_inodes, reserved)


@pytest.mark.parametrize(
    ("free", "zone"),
    [
        (100, Zone.LOW),
        (26, Zone.LOW),
        (25, Zone.BETWEEN),
        (16, Zone.BETWEEN),
        (15, Zone.HIGH),
        (6, Zone.HIGH),
        (5, Zone.CRITICAL),
        (0, Zone.CRITICAL),
    ],
)
def test_a_bound_that_is_just_reached_counts_as_reached(free: int, zone: Zone) -> None:
    assert limits().zone(usage(free)) is zone


def test_a_disk_is_as_bad_as_the_worse_of_bytes_and_inodes() -> None:
    assert limits().zone(usage(100, free_inodes=40)) is Zone.CRITICAL
    assert limits().zone(usage(4, free_inodes=1000)) is Zone.CRITICAL


def test_a_file_system_without_a_number_of_inodes_never_runs_out_of_them() -> None:
    full = usage(100, free_inodes=0, total_inodes=0)
    assert limits().zone(full) is Zone.LOW
    assert limits().missing(full, Zone.CRITICAL) == (0, 0)


def test_what_is_reserved_for_root_is_not_there_to_be_used() -> None:
    # As df counts: 30 of 100 are in use, whatever else root may have.
    assert usage(70, reserved=900).used_bytes == 30
    assert limits().zone(usage(70, reserved=900)) is Zone.LOW


def test_what_is_missing_brings_the_disk_just_out_of_the_zone() -> None:
    found = usage(3, free_inodes=40)
    missing_bytes, missing_inodes = limits().missing(found, Zone.CRITICAL)
    assert limits().zone(usage(3 + missing_bytes, free_inodes=40 + missing_inodes)) is Zone.HIGH
    assert limits().zone(usage(3 + missing_bytes - 1, free_inodes=1000)) is Zone.CRITICAL
    assert limits().zone(usage(100, free_inodes=40 + missing_inodes - 1)) is Zone.CRITICAL


def test_free_bytes_are_a_bound_whatever_the_disk_s_size() -> None:
    found = limits(low="40g free", high="20g free", critical="5g free")
    assert found.bytes.zone(100 * GIB, 20 * GIB) is Zone.HIGH
    assert found.bytes.zone(9000 * GIB, 21 * GIB) is Zone.BETWEEN


@pytest.mark.parametrize(
    "text", ["", "85", "0%", "101%", "-5%", "20g", "free", "20q free", "85 percent", "nan%", "٨٥%"]
)
def test_what_is_no_bound_is_named_with_its_variable(text: str) -> None:
    with pytest.raises(ValueError, match=r"such as 85%|not a size"):
        Bound.of_bytes(text)
    with pytest.raises(SettingsInvalid, match="CAISSON_DISK_HIGH: "):
        load_settings(_env_file=None, disk_high=text)


def test_inodes_are_counted_and_not_sized() -> None:
    assert Bound.of_inodes("500,000 free") == Bound(free=500_000)
    with pytest.raises(SettingsInvalid, match="CAISSON_DISK_INODES_LOW"):
        load_settings(_env_file=None, disk_inodes_low="5g free")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"disk_low": "90%"}, "CAISSON_DISK_LOW, .*: low 90%, high 85%, critical 95% are not in order"),
        ({"disk_critical": "85%"}, "not in order"),
        ({"disk_low": "5g free", "disk_high": "20g free", "disk_critical": "1g free"}, "not in order"),
        ({"disk_high": "20g free"}, "mix percent and free"),
        ({"disk_inodes_high": "60%"}, "CAISSON_DISK_INODES_LOW, .*not in order"),
    ],
)
def test_bounds_out_of_order_are_refused_where_the_settings_are_read(changes: dict[str, str], message: str) -> None:
    with pytest.raises(SettingsInvalid, match=message) as caught:
        load_settings(_env_file=None, **changes)
    assert str(caught.value).count(". ") == 0


def test_the_defaults_are_in_order() -> None:
    assert Settings(_env_file=None).disk_limits.bytes.high == Bound(percent=85)
