"""Step: the clean-up, which is the removal of the builder; and the same for runs that died."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from caisson.build import Build
from caisson.build_group import remove_leftover_groups
from caisson.builder import (
    find_builders,
    is_overdue,
    leftover_references,
    remove_builders,
    remove_references,
)
from caisson.docker_engine import DockerEngine
from caisson.engine import ContainerID
from caisson.errors import SettingsInvalid
from caisson.guard.listening import remove_dead_sockets
from caisson.plan import LABEL_FLOW_RUN, REPOSITORY_UNDER_CONSTRUCTION
from caisson.settings import Settings
from tasks.step import step


@step("remove_builder")
def remove_builder(build: Build, container: ContainerID) -> None:
    """Remove the builder and wait until it is gone, on success, failure, cancel and timeout alike."""
    was_there = build.engine.remove_container(container)
    build.record.builder_removed = True
    # Its tags, if it has any by now, keep the image; without one it goes.
    build.engine.untag_image(build.identity.reference)
    build.log.line(
        f"{build.identity.container_name} is removed" if was_there else f"{build.identity.container_name} was gone"
    )


@dataclass(frozen=True)
class Reaper:
    """What dead runs left on this host's engine."""

    settings: Settings

    def reap(self, flow_run_id: str) -> list[str]:
        """Remove what a flow run left; returns the names of the builders that it removed."""
        with DockerEngine(self.settings.docker_host) as engine:
            removed = remove_builders(engine, find_builders(engine, flow_run_id=flow_run_id))
        self._remove_rest()
        return removed

    def reap_overdue(self) -> list[str]:
        """Remove builders past their deadline, whoever made them, names of images whose build is dead, and groups that
        no builder is in; returns what all these were called."""
        now = datetime.now(UTC)
        longest = timedelta(minutes=self.settings.max_timeout_minutes, seconds=self.settings.deadline_grace_seconds)
        with DockerEngine(self.settings.docker_host) as engine:
            # In this order; leftover_references says why.
            images = engine.list_images(repository=REPOSITORY_UNDER_CONSTRUCTION)
            builders = find_builders(engine)
            names = remove_references(engine, leftover_references(images, builders, now=now, longest=longest))
            removed = remove_builders(engine, [item for item in builders if is_overdue(item, now)])
        return [*removed, *names, *self._remove_rest()]

    def _remove_rest(self) -> list[str]:
        with contextlib.suppress(OSError, SettingsInvalid):
            # A socket that nobody listens on does no harm, and the next guard would remove it.
            remove_dead_sockets(self.settings.guard_dir)
        return remove_leftover_groups()

    def owners(self) -> set[str]:
        """The flow runs that have a builder on the engine now, by their IDs."""
        with DockerEngine(self.settings.docker_host) as engine:
            return {item.labels.get(LABEL_FLOW_RUN, "") for item in find_builders(engine)} - {""}
