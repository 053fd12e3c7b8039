"""What counts as a builder, and so may be removed: nobody else's container, whatever labels its image carries."""

from __future__ import annotations

import uuid

from caisson.builder import find_builders
from caisson.engine import Engine
from caisson.settings import Settings
from tasks.reap import Reaper
from tests.engine.conftest import Builds

SLEEP = {"Entrypoint": ["sleep", "60"]}


def test_a_container_of_an_image_with_the_labels_is_no_builder(
    builds: Builds, engine: Engine, settings: Settings
) -> None:
    build_id, flow_run_id = uuid.uuid4().hex[:12], str(uuid.uuid4())
    labels = f"LABEL caisson.build={build_id} caisson.flow-run={flow_run_id}\n"
    report = builds(builds.repository(f"FROM debian:trixie-slim\n{labels}"))
    body = {**SLEEP, "Image": report.image_id}
    reaper = Reaper(settings)
    theirs = engine.create_container(f"theirs-{build_id}", body)
    try:
        assert [found.id for found in engine.list_containers({"caisson.build": build_id})] == [theirs]
        assert reaper.reap(flow_run_id) == []
        assert engine.inspect_container(theirs) is not None
        engine.create_container(f"caisson-build-{build_id}", body)
        assert reaper.reap(flow_run_id) == [f"caisson-build-{build_id}"]
        assert engine.inspect_container(theirs) is not None
    finally:
        engine.remove_container(theirs)


def test_a_builder_that_another_container_links_to_is_found(engine: Engine) -> None:
    build_id = uuid.uuid4().hex[:12]
    name = f"caisson-build-{build_id}"
    body = {**SLEEP, "Image": "debian:trixie-slim"}
    builder = engine.create_container(name, {**body, "Labels": {"caisson.build": build_id}})
    engine.start_container(builder)
    other = engine.create_container(f"a-{build_id}", {**body, "HostConfig": {"Links": [f"{name}:alias"]}})
    try:
        engine.start_container(other)
        assert [found.name for found in find_builders(engine, build_id=build_id)] == [name]
    finally:
        engine.remove_container(other)
        engine.remove_container(builder)
