"""Step: the clean-up, which is the removal of the builder; and the same for runs that died."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, field
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
from caisson.engine import ContainerID, Engine
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


# Listing images costs the containerd store 5 ms each, and the reaper is called every few seconds.
_NAMES_EVERY_SECONDS = 600.0


@dataclass
class Reaper:
    """What dead runs left on this host's engine; for one thread at a time."""

    settings: Settings
    _names_due: float = field(default=float("-inf"), init=False, repr=False)

    def reap(self, flow_run_id: str) -> list[str]:
        """Remove what a flow run left; returns the names of the builders that it removed."""
        with DockerEngine(self.settings.docker_host) as engine:
            removed = remove_builders(engine, find_builders(engine, flow_run_id=flow_run_id))
        self._remove_rest()
        return removed

    def reap_overdue(self) -> list[str]:
        """Remove builders past their deadline, whoever made them, and groups that no builder is in; now and then also
        names of images whose build is dead. Returns what all these were called."""
        now = datetime.now(UTC)
        with DockerEngine(self.settings.docker_host) as engine:
            names = self._remove_names(engine, now)
            removed = remove_builders(engine, [item for item in find_builders(engine) if is_overdue(item, now)])
        return [*removed, *names, *self._remove_rest()]

    def _remove_names(self, engine: Engine, now: datetime) -> list[str]:
        if time.monotonic() < self._names_due:
            return []
        self._names_due = time.monotonic() + _NAMES_EVERY_SECONDS
        longest = timedelta(minutes=self.settings.max_timeout_minutes, seconds=self.settings.deadline_grace_seconds)
        # In this order; leftover_references says why.
        images = engine.list_images(repository=REPOSITORY_UNDER_CONSTRUCTION)
        builders = find_builders(engine)
        return remove_references(engine, leftover_references(images, builders, now=now, longest=longest))

    def _remove_rest(self) -> list[str]:
        with contextlib.suppress(OSError, SettingsInvalid):
            # A socket that nobody listens on does no harm, and the next guard would remove it.
            remove_dead_sockets(self.settings.guard_dir)
        return remove_leftover_groups()

    def owners(self) -> set[str]:
        """The flow runs that have a builder on the engine now, by their IDs."""
        with DockerEngine(self.settings.docker_host) as engine:
            return {item.labels.get(LABEL_FLOW_RUN, "") for item in find_builders(engine)} - {""}
