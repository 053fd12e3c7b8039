"""The bytes that a build brought to its host, on real engines: a base that it pulls from a registry counts once."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from caisson.engine import Engine
from tests.conftest import EngineHost
from tests.engine.conftest import Builds
from tests.engine.made import Made
from tests.engine.registry import Registry, docker_registry

RUN = "RUN head -c 1000000 /dev/urandom > /own-{name}\n"
OWN = 1_000_000


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory, engine_host: EngineHost) -> Iterator[Registry]:
    with docker_registry(tmp_path_factory.mktemp("registry"), engine_host.socket, is_open=True) as running:
        yield running


@pytest.fixture
def base(engine: Engine, engine_host: EngineHost, registry: Registry) -> Iterator[tuple[str, int]]:
    """An image that is in the registry and not on the engine, and the bytes of its one layer."""
    reference = f"{registry.address}/base-{uuid.uuid4().hex[:12]}:1"
    made = Made(engine_host)
    try:
        image = made.image("base", steps=1)
        engine.tag_image(image, reference)
        for _ in engine.push_image(reference, None):
            pass
        size = sum(layer.size for layer in engine.history(image))
        engine.untag_image(reference)
    finally:
        made.clean()
    assert engine.inspect_image(image) is None
    yield reference, size
    engine.untag_image(reference)


@pytest.mark.parametrize("builder", ["classic", "buildkit"])
def test_a_base_that_the_build_pulled_counts_and_one_that_is_here_does_not(
    builds: Builds, base: tuple[str, int], builder: str, tmp_path: Path
) -> None:
    reference, size = base
    builds = builds.with_settings(dockerfile_registries=(reference.partition("/")[0],))
    dockerfile = f"FROM {reference}\nCOPY stamp /{{name}}\n"
    first = builds(builds.repository(dockerfile.format(name="a"), "pulled", stamp="1234567"), builder=builder)
    assert (first.new_bytes, first.new_bytes_exact) == (size + 7, True)
    second = builds(builds.repository(dockerfile.format(name="b"), "here", stamp="123"), builder=builder)
    assert (second.new_bytes, second.new_bytes_exact) == (3, True)
    unseen = builds.with_settings(docker_data_root=str(tmp_path), min_free_bytes=0)
    third = unseen(builds.repository(dockerfile.format(name="c"), "unseen", stamp="12345"), builder=builder)
    assert third.new_bytes == 5
    # The classic builder keeps a pulled base as an image, BuildKit in its cache only.
    assert third.new_bytes_exact == (builder == "classic")


@pytest.mark.parametrize("builder", ["classic", "buildkit"])
def test_what_a_step_wrote_counts_and_what_the_cache_had_does_not(builds: Builds, builder: str) -> None:
    name = uuid.uuid4().hex[:12]
    dockerfile = "FROM debian:trixie-slim\n" + RUN.format(name=name)
    first = builds(builds.repository(dockerfile, "own"), builder=builder)
    assert first.size > 10 * OWN
    assert OWN <= first.new_bytes < OWN + 10_000
    again = builds(builds.repository(dockerfile + "COPY stamp /stamp\n", "own", stamp="123"), builder=builder)
    hit = any(step.cached and "own-" in step.name for step in again.dockerfile_steps)
    assert again.new_bytes == 3 if hit else again.new_bytes >= OWN
