"""Step: which commit the ref means now."""

from __future__ import annotations

from caisson.build import Build
from caisson.builder import StartedBuilder
from caisson.clone import resolve
from caisson.git import Chosen, pin_commit
from tasks.clone import explained_by_kernel
from tasks.step import step


@step("resolve_commit")
def resolve_commit(build: Build, builder: StartedBuilder) -> Chosen:
    """Ask the remote and choose; raises ``RefNotFound``, ``RepositoryDenied``, ``RepositoryUnreachable``."""
    with explained_by_kernel(build, builder):
        named = resolve(
            build.engine, builder.id, build.source, build.spec.ref, build.log.said, user=build.settings.step_user
        )
    chosen = pin_commit(named, build.spec.commit)
    if chosen is not named:
        build.log.line(f"{build.spec.ref or 'HEAD'} has moved to {named.sha}: the commit that was asked for is built")
    build.log.line(f"{build.spec.ref or 'HEAD'} is {chosen.kind} {chosen.name or chosen.sha[:12]} at {chosen.sha}")
    return chosen
