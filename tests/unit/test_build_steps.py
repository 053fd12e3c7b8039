"""The steps around a builder, on an engine of a few lines: what they refuse, and what the report then says."""

from __future__ import annotations

import socket as sockets
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import pytest

from caisson.build import Build
from caisson.build_group import BuildGroup
from caisson.builder import StartedBuilder
from caisson.cgroups import KernelLimits
from caisson.engine import ContainerID, ContainerInfo, EngineInfo, ImageInfo, Layer
from caisson.errors import LimitsNotEnforceable
from caisson.plan import ChosenBuilder, Socket, container_body
from caisson.request import Builder, BuildRequest
from caisson.settings import load_settings
from caisson.spec import make_spec
from tasks.build_image import build_image
from tasks.start_builder import start_builder

INFO = EngineInfo(
    version="26.1.5",
    api_version="1.45",
    storage_driver="overlay2",
    cgroup_driver="systemd",
    cgroup_version=2,
    data_root="/var/lib/docker",
    security_options=(),
    cpus=2,
    memory=1 << 34,
    containerd_store=False,
)
BUILDER = ContainerID("b" * 64)
# No kernel gives that number to a process: its group can't be read.
NO_PROCESS = 2**31 - 1


class OneBuilder:
    """An engine with room for one container; ``calls`` are the names of what was asked of it."""

    def __init__(self, socket: str) -> None:
        self.socket = socket
        self.calls: list[str] = []
        self.body: Mapping[str, Any] = {}
        self.state = ""

    def info(self) -> EngineInfo:
        return INFO

    def create_container(self, _name: str, body: Mapping[str, Any]) -> ContainerID:
        self.calls.append("create")
        self.body, self.state = body, "created"
        return BUILDER

    def start_container(self, _container: ContainerID) -> None:
        self.calls.append("start")
        self.state = "running"

    def inspect_container(self, container: ContainerID) -> ContainerInfo | None:
        mount = {"Type": "bind", "Source": self.socket, "Destination": "/var/run/docker.sock", "RW": False}
        raw = {"Mounts": [mount], "HostConfig": self.body["HostConfig"], "Config": self.body}
        return ContainerInfo(container, "builder", self.state, {}, pid=NO_PROCESS, raw=raw) if self.state else None

    def exec(self, *_: object, **__: object) -> int:
        self.calls.append("exec")
        return 0

    def remove_container(self, _container: ContainerID) -> bool:
        self.calls.append("remove")
        was_there, self.state = bool(self.state), ""
        return was_there

    def untag_image(self, _reference: str) -> bool:
        return False

    def inspect_image(self, _name: str) -> ImageInfo:
        return ImageInfo(cast(Any, "sha256:1"), (), (), {}, 7, ("sha256:a",), "")

    def history(self, _image: str) -> list[Layer]:
        return [Layer(7, 0)]


MakeBuild = Callable[..., Build]


@pytest.fixture
def make_build(tmp_path: Path) -> Iterator[MakeBuild]:
    listener = sockets.socket(sockets.AF_UNIX)
    listener.bind(str(tmp_path / "docker.sock"))
    made: list[Build] = []

    def make(**settings: Any) -> Build:
        socket = str(tmp_path / "docker.sock")
        host = load_settings(
            _env_file=None, state_dir=tmp_path / "state", docker_host=f"unix://{socket}", socket="raw", **settings
        )
        request = BuildRequest(repository_url="https://git.example/app.git", image="team/app")
        build = Build(request, make_spec(request, host), host, cast(Any, OneBuilder(socket)), secrets={})
        build.record.engine = INFO
        build.record.chosen = ChosenBuilder(Builder.BUILDKIT, "", holds_steps=True)
        made.append(build)
        return build

    yield make
    listener.close()
    for build in made:
        build.__exit__(None, None, None)


def _engine(build: Build) -> OneBuilder:
    return cast(OneBuilder, build.engine)


def _start(build: Build) -> StartedBuilder:
    socket = Socket(_engine(build).socket, 0, on_this_host=_engine(build).socket)
    body = container_body(build.spec, build.identity, socket, build.settings)
    container = build.engine.create_container(build.identity.container_name, body)
    return start_builder.fn(build, container, socket, BuildGroup(None))


def test_required_limits_refuse_a_builder_whose_group_cannot_be_read_before_anything_runs(
    make_build: MakeBuild,
) -> None:
    build = make_build(require_limits=True)
    with pytest.raises(LimitsNotEnforceable, match="control group can't be read"):
        _start(build)
    assert "exec" not in _engine(build).calls


def test_where_limits_are_not_required_such_a_builder_builds(make_build: MakeBuild) -> None:
    assert _start(make_build()).cgroup is None


def test_required_limits_refuse_an_image_whose_build_was_not_verified(make_build: MakeBuild) -> None:
    build = make_build(require_limits=True)
    builder = StartedBuilder(BUILDER, {}, None, None, KernelLimits(None, None, None, None))
    with pytest.raises(LimitsNotEnforceable, match="the kernel has other limits"):
        build_image.fn(build, builder)
    assert build.record.limits is not None
    assert build.record.limits.status == "unverified"
    assert build.record.image_id == ""
