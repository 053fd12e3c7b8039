"""The control group of a build, held from before its builder is created until after that is removed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from caisson import build_group
from caisson.build import Build
from caisson.build_group import BuildGroup
from caisson.request import Builder


@contextmanager
def hold_group(build: Build) -> Iterator[BuildGroup]:
    """The group that holds builder and RUN steps together; where there can be none, the report says what that costs."""
    chosen, engine = build.record.chosen, build.record.engine
    assert chosen is not None
    assert engine is not None
    if not chosen.holds_steps:
        yield BuildGroup(None, "RUN steps are not held")
        return
    key = build_group.group_key(build.spec.repository_url.canonical())
    with build_group.hold_group(key, build.spec.limits, engine) as group:
        if group.cgroup is None and chosen.builder is Builder.BUILDKIT:
            build.record.notes.append(f"RUN steps are not cached between builds: {group.reason}.")
        yield group
