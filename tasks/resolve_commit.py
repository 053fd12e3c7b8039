"""Step: which commit the ref means now."""

from __future__ import annotations

from caisson.build import Build
from caisson.builder import StartedBuilder
from caisson.clone import resolve
from caisson.git import Chosen
from tasks.step import step


@step("resolve_commit")
def resolve_commit(build: Build, builder: StartedBuilder) -> Chosen:
    """Ask the remote for its refs and choose; raises ``RefNotFound``, ``RepositoryDenied``, ``RepositoryUnreachable``."""
    raise NotImplementedError
