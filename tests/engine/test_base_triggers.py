"""What a base image has its builds do (ONBUILD) is judged before it is done, also where the engine pulls that image."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from caisson.errors import BaseImageUnreachable, BuildFailed, DockerfileDenied, GuardDenied
from caisson.guard.base_images import JudgedBases
from caisson.guard.dockerfile_lines import Dialect
from caisson.guard.dockerfile_policy import DockerfilePolicy
from caisson.guard.engine_facts import ask_engine
from caisson.guard.policy import GuardPolicy
from caisson.reference import parse_reference
from caisson.spec import RESERVED_REGISTRY
from tests.buildkit_client import BRIDGE
from tests.conftest import EngineHost, find_containerd_engine
from tests.engine.attacks.lab import Server
from tests.engine.conftest import Builds
from tests.engine.guarded import Guarded, guarded
from tests.engine.registry import Registry, docker_registry

IMAGE = "caisson.invalid/build:trigger-test"
POLICY = GuardPolicy(image=parse_reference(IMAGE), labels=(("caisson.build", "trigger-test"),))


def docker(host: EngineHost, *command: str, given: str = "") -> subprocess.CompletedProcess[str]:
    program = ["docker", "--host", host.docker_host, *command]
    env = {**os.environ, "DOCKER_BUILDKIT": "0"}
    return subprocess.run(program, check=True, capture_output=True, text=True, timeout=60, env=env, input=given)


@dataclass
class Bases:
    """Base images that an engine has to pull from a registry on its own loopback, and a server to fetch from."""

    host: EngineHost
    registry: Registry
    server: Server
    directory: Path

    def made(self, name: str, *lines: str) -> str:
        """An image that is in the registry alone."""
        reference, directory = f"{self.registry.address}/{name}:1", self.directory / name
        directory.mkdir()
        (directory / "Dockerfile").write_text("\n".join(["FROM scratch", "COPY Dockerfile /", *lines]))
        docker(self.host, "build", "--tag", reference, str(directory))
        docker(self.host, "push", reference)
        docker(self.host, "rmi", reference)
        return reference

    def build(self, buildx: Path, host: str, base: str) -> subprocess.CompletedProcess[str]:
        context = self.directory / "context"
        context.mkdir(exist_ok=True)
        (context / "Dockerfile").write_text(f"FROM {base}\nCOPY Dockerfile /\n")
        command = [str(buildx), "build", "--no-cache", "--provenance=false", f"--tag={IMAGE}", str(context)]
        env = {"DOCKER_HOST": host, "HOME": str(self.directory), "PATH": os.environ["PATH"]}
        return subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)

    def guard(self) -> DockerfilePolicy:
        facts, _ = ask_engine(self.host.socket)
        return DockerfilePolicy(
            Dialect.of_engine(facts.version), RESERVED_REGISTRY, registries=(self.registry.address,)
        )


@pytest.fixture(params=["as usual", "on the containerd store"])
def bases(request: pytest.FixtureRequest, engine_host: EngineHost, tmp_path: Path) -> Iterator[Bases]:
    host = engine_host if request.param == "as usual" else find_containerd_engine()
    with (
        docker_registry(tmp_path / "registry", host.socket, is_open=True) as registry,
        closing(Server(host.gateway)) as server,
    ):
        yield Bases(host, registry, server, tmp_path)


@pytest.fixture
def guard(bases: Bases, tmp_path: Path) -> Iterator[Guarded]:
    with guarded(tmp_path, bases.host.socket, POLICY, dockerfiles=bases.guard()) as guard:
        yield guard


def test_a_trigger_of_an_image_that_buildkit_pulls_is_judged(
    bases: Bases, guard: Guarded, buildx: tuple[Path, ...]
) -> None:
    inside = bases.made("inside", f"ONBUILD ADD http://{bases.server.address}/x /x")
    for program in buildx:
        refused = bases.build(program, guard.host, inside)
        assert refused.returncode == 1
        assert f"ADD 'http://{bases.server.address}/x' would be fetched by the engine from inside" in refused.stderr
    assert bases.server.hits == 0
    assert (f"{BRIDGE}Return", "add-private-host") in [(path, verdict.rule) for path, verdict in guard.denials()]
    # Without the guard the engine fetches it.
    assert bases.build(buildx[0], bases.host.docker_host, inside).returncode == 1
    assert bases.server.hits > 0


def test_a_trigger_that_asks_for_nothing_is_done(bases: Bases, guard: Guarded, buildx: tuple[Path, ...]) -> None:
    harmless = bases.made("harmless", "ONBUILD COPY Dockerfile /from-the-base")
    for program in buildx:
        built = bases.build(program, guard.host, harmless)
        assert built.returncode == 0, built.stderr
        assert "from-the-base" in docker(bases.host, "history", "--no-trunc", IMAGE).stdout
        docker(bases.host, "rmi", IMAGE)


def test_the_classic_builder_begins_with_what_was_judged_and_nothing_else(bases: Bases, tmp_path: Path) -> None:
    inside = bases.made("inside", f"ONBUILD ADD http://{bases.server.address}/x /x")
    command = ("build", f"--tag={IMAGE}", "-")
    with (
        guarded(tmp_path, bases.host.socket, POLICY, dockerfiles=bases.guard(), bases=JudgedBases()) as guard,
        pytest.raises(subprocess.CalledProcessError) as refused,
    ):
        docker(replace(bases.host, docker_host=guard.host), *command, given=f"FROM {inside}\n")
    assert "was not looked at before the build" in refused.value.stderr
    assert bases.server.hits == 0
    with pytest.raises(subprocess.CalledProcessError):
        docker(bases.host, *command, given=f"FROM {inside}\n")
    assert bases.server.hits > 0


@pytest.mark.parametrize("builder", ["classic", "buildkit"])
def test_a_build_is_denied_what_its_base_would_have_fetched(
    builds: Builds, engine_host: EngineHost, tmp_path: Path, builder: str
) -> None:
    host = engine_host
    with (
        docker_registry(tmp_path / "registry", host.socket, is_open=True) as registry,
        closing(Server(host.gateway)) as server,
    ):
        made = Bases(host, registry, server, tmp_path)
        allowed = builds.with_settings(dockerfile_registries=(registry.address,))
        inside = made.made("inside", f"ONBUILD ADD http://{server.address}/x /x")
        with pytest.raises((DockerfileDenied, GuardDenied), match="from inside its own network"):
            allowed(builds.repository(f"FROM {inside}\n"), builder=builder)
        assert server.hits == 0
        harmless = made.made("harmless", "ONBUILD COPY Dockerfile /from-the-base")
        report = allowed(builds.repository(f"FROM {harmless}\n", name="harmless"), builder=builder)
        assert "from-the-base" in docker(host, "history", "--no-trunc", report.image_id).stdout
        if builder == "classic":
            with pytest.raises((BuildFailed, BaseImageUnreachable), match="A base image can't be had"):
                allowed(builds.repository(f"FROM {registry.address}/none:1\n", name="none"), builder=builder)
        for base in (inside, harmless):
            builds.engine.untag_image(base)
