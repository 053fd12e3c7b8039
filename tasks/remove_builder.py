"""Step: the clean-up, which is the removal of the builder."""

from __future__ import annotations

from caisson.build import Build
from caisson.engine import ContainerID
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
