"""A Caisson that builds over its API, with a gate before each server that its builds need."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from caisson.docker_engine import DockerEngine
from caisson.engine import ImageInfo
from deployments.trigger import FlowRunId
from tests.conftest import EngineHost
from tests.engine.network import EngineNetwork
from tests.engine.registry import Registry, docker_registry
from tests.engine.repositories import GitDaemon, Repository, git_daemon
from tests.flows.caisson_host import CaissonHost, wait_for
from tests.flows.gate import Gate, tcp_gate, unix_gate

BASE = "FROM debian:trixie-slim\n"
ENGINE, GIT, REGISTRY = "engine", "git", "registry"
EARLIER = "caisson-flow/earlier"
SLOW_SECONDS = 180.0
"""How long a build that nothing holds may take to come to a step, with ten others beside it on a busy machine."""
# Which request is held, by step; a build that nobody holds is in its RUN step.
HELD = {
    "check_mounts": (ENGINE, rb"GET /v[0-9.]+/version "),
    "check_disk": (ENGINE, rb"POST /v[0-9.]+/containers/create"),
    "start_builder": (ENGINE, rb"POST /v[0-9.]+/containers/\w+/start "),
    "resolve_commit": (GIT, rb"command=ls-refs"),
    "reuse_image": (ENGINE, rb"GET /v[0-9.]+/images/sha256:[0-9a-f]{64}/json"),
    "clone": (GIT, rb"command=fetch"),
    "check_dockerfile": (ENGINE, rb"GET /v[0-9.]+/images/debian:trixie-slim/json"),
    "build": ("", b""),
    "tag_image": (ENGINE, rb"POST /v[0-9.]+/images/[^ ]+/tag"),
    "remove_builder": (ENGINE, rb"DELETE /v[0-9.]+/containers/"),
    "push_image": (REGISTRY, rb"PUT /v2/[^ ]+/manifests/"),
}


@dataclass
class BuildHost:
    """The host and what it builds from; repositories and images are named by the tests."""

    caisson: CaissonHost
    engine_host: EngineHost
    git: GitDaemon
    registry: Registry
    registry_address: str
    engine_gate: Gate
    git_gate: Gate
    git_port: int
    registry_gate: Gate

    @property
    def gates(self) -> dict[str, Gate]:
        """By their names in ``HELD``."""
        return {ENGINE: self.engine_gate, GIT: self.git_gate, REGISTRY: self.registry_gate}

    def repository(self, name: str, dockerfile: str, **files: str) -> Repository:
        return self.git.repository(name, {"Dockerfile": dockerfile, **files})

    def url(self, repository: Repository) -> str:
        """Where builders find it, through the gate."""
        return repository.url.replace(f":{self.git.port}/", f":{self.git_port}/")

    def build(self, repository: Repository, image: str, **request: Any) -> FlowRunId:
        body = {"repository_url": self.url(repository), "image": image, "limits": {"memory": "512m"}, **request}
        return self.caisson.trigger("build-image", request=body)

    def prepare(self, step: str, repository: Repository) -> None:
        """Build the image, under another name, that a build which is to stand in that step looks at, if it does."""
        if step == "reuse_image":
            run = self.build(repository, EARLIER)
            state = self.caisson.wait_for_state(run, "Completed", "Failed", "Crashed", seconds=SLOW_SECONDS)
            assert state.state_name == "Completed", self.log(run)

    def log(self, run: FlowRunId) -> str:
        """The run's log on this host; empty before there is one."""
        file = self.caisson.state_dir / "builds" / f"{run}.log"
        return file.read_text() if file.exists() else ""

    def report(self, run: FlowRunId) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.caisson.state_dir / "builds" / f"{run}.json").read_text())
        return found

    def wait_for_line(self, run: FlowRunId, text: str) -> None:
        wait_for(f"{text!r} in the log of {run}", lambda: text in self.log(run), seconds=SLOW_SECONDS)

    def builders(self) -> list[str]:
        """This host's builders in any state, however they came about."""
        with DockerEngine(self.engine_host.docker_host) as engine:
            return [container.name for container in engine.list_containers({"caisson.host": self.caisson.name})]

    def images(self, repository: str) -> dict[str, ImageInfo]:
        """The images that tags of a repository point to, by reference."""
        with DockerEngine(self.engine_host.docker_host) as engine:
            images = engine.list_images()
        return {tag: image for image in images for tag in image.tags if tag.startswith(f"{repository}:")}

    def remove_images(self, *repositories: str) -> None:
        with DockerEngine(self.engine_host.docker_host) as engine:
            for reference in [reference for repository in repositories for reference in self.images(repository)]:
                engine.untag_image(reference)


def newer_engine(engine_host: EngineHost, name: str) -> dict[str, str]:
    """Settings for an engine whose view of files is another than this host's."""
    return {
        "CAISSON_ENGINE_SOCKET": engine_host.socket_in_engine,
        "CAISSON_GUARD_DIR": f"{engine_host.guard_dir}-{name}",
        "CAISSON_ENGINE_GUARD_DIR": f"{engine_host.engine_guard_dir}-{name}",
        "CAISSON_DOCKER_DATA_ROOT": engine_host.data_root,
    }


@contextmanager
def build_host(
    directory: Path,
    name: str,
    engine_host: EngineHost,
    *,
    like: CaissonHost | None,
    variables: dict[str, str],
    password: str = "",
    network: EngineNetwork | None = None,
) -> Iterator[BuildHost]:
    """A Caisson that is up while the block runs, with the database of another (a fresh one takes ten seconds) if given.

    ``password`` is the registry's, instead of its usual one; ``network`` that of an engine which is to be killed.
    """
    # The gateway is an address of this host, but for an engine that has been given a network of its own.
    git_network = network or EngineNetwork(os.getpid())
    network = network or EngineNetwork.of_engine(engine_host.socket)
    gate_path = directory / "engine.sock"
    with (
        git_daemon(directory / "git", engine_host.gateway, git_network) as git,
        docker_registry(directory / "registry", engine_host.socket, password=password, network=network) as registry,
        unix_gate(str(gate_path), str(engine_host.socket)) as engine_gate,
    ):
        # A builder enters the real socket with the group of the one that Caisson uses.
        os.chown(gate_path, -1, engine_host.socket.stat().st_gid)
        git_gate, git_port = tcp_gate(git.address, git.port, git_network)
        registry_gate, registry_port = tcp_gate("127.0.0.1", int(registry.address.rpartition(":")[2]), network)
        host = CaissonHost(
            directory / "state",
            name,
            {
                "CAISSON_DOCKER_HOST": f"unix://{gate_path}",
                "CAISSON_ENGINE_SOCKET": str(engine_host.socket),
                "CAISSON_MIN_FREE_BYTES": "64m",
                "CAISSON_CONCURRENCY": "4",
                "CAISSON_POLL_SECONDS": "2",
                "CAISSON_DRAIN_SECONDS": "1",
                "CAISSON_PUSH_ATTEMPTS": "1",
                "CAISSON_REGISTRY": f"http://127.0.0.1:{registry_port}",
                "CAISSON_REGISTRY_USERNAME": registry.auth.username,
                "CAISSON_REGISTRY_PASSWORD": registry.auth.password,
                **variables,
            },
        )
        if like is not None:
            host.copy_database(like)
        with git_gate, registry_gate:
            host.up()
            try:
                yield BuildHost(
                    host,
                    engine_host,
                    git,
                    registry,
                    f"127.0.0.1:{registry_port}",
                    engine_gate,
                    git_gate,
                    git_port,
                    registry_gate,
                )
            finally:
                host.stop()
