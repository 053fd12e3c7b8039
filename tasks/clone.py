"""Step: exactly that commit, in the builder's own workspace."""

from __future__ import annotations

from caisson.build import Build
from caisson.builder import StartedBuilder
from caisson.clone import clone as clone_commit
from caisson.git import Chosen
from caisson.sizes import format_size
from tasks.step import step


@step("clone")
def clone(build: Build, builder: StartedBuilder, chosen: Chosen) -> None:
    """Fetch shallow, check out, check the context; raises ``SubmoduleDenied``, ``WorkspaceFull`` and their kin."""
    cloned = clone_commit(
        build.engine,
        builder.id,
        build.source,
        chosen,
        build.log.line,
        user=build.settings.step_user,
        context=build.spec.context,
        dockerfile=build.spec.dockerfile,
    )
    build.log.line(f"checked out {cloned.sha}: {format_size(cloned.size_bytes)}")
