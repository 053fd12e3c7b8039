"""Step: exactly that commit, in the builder's own workspace."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from caisson.build import Build
from caisson.builder import StartedBuilder
from caisson.cgroup_watch import CgroupEvidence, CgroupWatch
from caisson.clone import clone as clone_commit
from caisson.errors import CaissonError
from caisson.git import Chosen
from caisson.outcome import classify_clone_failure
from caisson.sizes import format_size
from tasks.step import step


@step("clone")
def clone(build: Build, builder: StartedBuilder, chosen: Chosen) -> None:
    """Fetch shallow, check out, check the context; raises ``SubmoduleDenied``, ``OutOfMemory`` and their kin."""
    with explained_by_kernel(build, builder):
        cloned = clone_commit(
            build.engine,
            builder.id,
            build.source,
            chosen,
            build.log.said,
            user=build.settings.step_user,
            context=build.spec.context,
            dockerfile=build.spec.dockerfile,
        )
    build.log.line(f"checked out {cloned.sha}: {format_size(cloned.size_bytes)}")


@contextmanager
def explained_by_kernel(build: Build, builder: StartedBuilder) -> Iterator[None]:
    """What fails within while the kernel kills in the builder raises ``OutOfMemory``."""
    # All that runs is in the builder's own group, which outlives it: nothing to be watched in between.
    watch = CgroupWatch(builder.own, builder.own) if builder.own else None
    try:
        yield
    except CaissonError as error:
        raise classify_clone_failure(
            error,
            watch.evidence() if watch else CgroupEvidence(),
            build.spec.limits,
            in_memory=build.settings.workspace == "tmpfs",
        ) from None
