"""A snapshot takes no value that a plan could misread."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from caisson.disk import DiskUsage
from caisson.engine import ImageID
from caisson.snapshot import ImageState, LeaseState, Snapshot

NOW = datetime(2026, 1, 1, tzinfo=UTC)
USAGE = DiskUsage("/", 100, 50, 100, 50)
A = ImageID("sha256:a")


def test_an_image_that_is_listed_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="listed twice"):
        Snapshot(NOW, USAGE, images=(ImageState(A), ImageState(A, tags=("a:1",))))


def test_a_date_without_a_time_zone_is_refused_by_name() -> None:
    naive = datetime(2026, 1, 1)
    with pytest.raises(ValueError, match=r"last_used.*time zone"):
        ImageState(A, last_used=naive)
    with pytest.raises(ValueError, match=r"taken.*time zone"):
        Snapshot(naive, USAGE)


def test_a_lease_on_what_is_no_reference_is_refused() -> None:
    with pytest.raises(ValueError, match=r"lease of 'build-1'.*URL"):
        LeaseState("build-1", frozenset(), frozenset({"https://example.com/a"}), NOW)


def test_an_image_is_untagged_when_neither_a_tag_nor_a_digest_names_it() -> None:
    assert ImageState(A).is_untagged
    assert not ImageState(A, tags=("a:1",)).is_untagged
    assert not ImageState(A, registry_digests=("a@sha256:" + "0" * 64,)).is_untagged
