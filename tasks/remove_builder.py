"""Step: the clean-up, which is the removal of the builder; and the same for runs that died."""

from __future__ import annotations

from caisson.build import Build
from caisson.builder import find_builders, remove_builders
from caisson.docker_engine import DockerEngine
from caisson.engine import ContainerID
from caisson.settings import Settings
from tasks.step import step


@step("remove_builder")
def remove_builder(build: Build, container: ContainerID) -> None:
    """Remove the builder and wait until it is gone, on success, failure, cancel and timeout alike."""
    was_there = build.engine.remove_container(container)
    build.record.builder_removed = True
    build.log.line(
        f"{build.identity.container_name} is removed" if was_there else f"{build.identity.container_name} was gone"
    )


def reap_flow_run(flow_run_id: str, settings: Settings) -> list[str]:
    """Remove what a dead flow run left on the engine; returns the names of the builders that it removed."""
    with DockerEngine(settings.docker_host) as engine:
        return remove_builders(engine, find_builders(engine, flow_run_id=flow_run_id))
