"""The steps around a builder, on an engine of a few lines: what they refuse, and what the report then says."""

from __future__ import annotations

import socket as sockets
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import pytest

from caisson.build import Build
from caisson.build_group import BuildGroup
from caisson.builder import StartedBuilder
from caisson.cgroups import KernelLimits
from caisson.disk import DiskUsage
from caisson.engine import ContainerID, ContainerInfo, EngineEvent, EngineInfo, ImageInfo, Layer, PushProgress
from caisson.errors import (
    BuildCancelled,
    BuilderImageMissing,
    BuildTimedOut,
    CaissonError,
    DiskTooFull,
    EngineLost,
    EngineRefused,
    LimitsNotEnforceable,
    RefNotFound,
    RegistryUnreachable,
)
from caisson.plan import ChosenBuilder, Socket, container_body
from caisson.report import TagReport
from caisson.report_markdown import render_markdown
from caisson.request import Builder, BuildRequest
from caisson.settings import load_settings
from caisson.spec import make_spec
from flows.build_image import as_function, run_build, run_steps
from tasks.build_image import build_image
from tasks.push_image import push_image
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
        self.fails: dict[str, CaissonError] = {}
        self.push_ended = False
        self.told: list[EngineEvent] = []

    def _call(self, name: str) -> None:
        self.calls.append(name)
        if name in self.fails:
            raise self.fails[name]

    def __enter__(self) -> OneBuilder:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def info(self) -> EngineInfo:
        if "info" in self.fails:
            raise self.fails["info"]
        return INFO

    def create_container(self, _name: str, body: Mapping[str, Any]) -> ContainerID:
        self._call("create")
        self.body, self.state = body, "created"
        return BUILDER

    def start_container(self, _container: ContainerID) -> None:
        self._call("start")
        self.state = "running"

    def inspect_container(self, container: ContainerID) -> ContainerInfo | None:
        mount = {"Type": "bind", "Source": self.socket, "Destination": "/var/run/docker.sock", "RW": False}
        raw = {"Mounts": [mount], "HostConfig": self.body["HostConfig"], "Config": self.body}
        return ContainerInfo(container, "builder", self.state, {}, pid=NO_PROCESS, raw=raw) if self.state else None

    def exec(self, *_: object, **__: object) -> int:
        self._call("exec")
        return 0

    def remove_container(self, _container: ContainerID) -> bool:
        self._call("remove")
        was_there, self.state = bool(self.state), ""
        return was_there

    def untag_image(self, _reference: str) -> bool:
        return False

    def inspect_image(self, _name: str) -> ImageInfo:
        return ImageInfo(cast(Any, "sha256:1"), (), (), {}, 7, ("sha256:a",), "")

    def events(self) -> list[EngineEvent]:
        self._call("events")
        return self.told

    def push_image(self, _reference: str, _auth: object, *, silence: float = 0) -> Generator[PushProgress, None, str]:
        self._call("push")
        try:
            for done in range(1_000):
                time.sleep(0.01)
                yield PushProgress("layer", "Pushing", done, 1_000)
        finally:
            self.push_ended = True
        return "sha256:digest"

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
    body = container_body(build.spec, build.identity, socket, build.settings, now=build.started)
    return start_builder.fn(build, body, socket, BuildGroup(None))


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


def _run(build: Build, *, replaced: Mapping[str, Callable[[], Any]] | None = None) -> None:
    """The chain up to its first failure; ``replaced`` are steps that need more of an engine than there is here."""

    def call(step: Any, *args: Any, **kwargs: Any) -> Any:
        if step.name in (replaced or {}):
            return (replaced or {})[step.name]()
        return as_function(step, *args, **kwargs)

    run_steps(build, call)


def _fail(error: CaissonError) -> Callable[[], None]:
    def fail() -> None:
        raise error

    return fail


def _nothing() -> None:
    """In the place of a step that has nothing to say here."""


def _steps(build: Build) -> list[tuple[str, str]]:
    return [(step.name, step.state) for step in build.report().steps]


def test_a_builder_that_cannot_be_created_is_a_failed_step_and_there_is_none_to_remove(make_build: MakeBuild) -> None:
    build = make_build(hold_steps=False)
    _engine(build).fails["create"] = BuilderImageMissing("The builder image is not on this engine.")
    with pytest.raises(BuilderImageMissing):
        _run(build, replaced={"check_disk": _nothing})
    assert _steps(build) == [("check_mounts", "completed"), ("start_builder", "failed")]
    assert build.record.builder_removed is None
    assert "none was started" in render_markdown(build.report())


def test_a_failed_step_removes_the_builder_and_the_report_says_so(make_build: MakeBuild) -> None:
    build = make_build(hold_steps=False)
    with pytest.raises(RefNotFound):
        _run(build, replaced={"check_disk": _nothing, "resolve_commit": _fail(RefNotFound("No such branch."))})
    assert _engine(build).calls == ["create", "start", "remove"]
    assert build.record.builder_removed is True


@pytest.mark.parametrize("gone", ["start", "resolve_commit"])
def test_a_builder_that_could_not_be_removed_is_told_as_such(make_build: MakeBuild, gone: str) -> None:
    build = make_build(hold_steps=False)
    _engine(build).fails["remove"] = EngineRefused("It is still there.")
    replaced = {"check_disk": _nothing, "resolve_commit": _fail(RefNotFound("No such branch."))}
    if gone == "start":
        _engine(build).fails["start"] = EngineLost("The engine went away.")
    with pytest.raises((EngineLost, RefNotFound)):
        _run(build, replaced=replaced)
    assert build.record.builder_removed is False
    assert "not removed; it destroys itself at its deadline" in render_markdown(build.report())


def test_the_time_until_the_builder_is_made_counts(make_build: MakeBuild) -> None:
    build = make_build(hold_steps=False, timeout_minutes=1)
    build.clock -= 60
    with pytest.raises(BuildTimedOut, match="timeout of 1 min"):
        _run(build, replaced={"check_disk": _nothing})
    assert _engine(build).calls == []


def test_the_builder_gets_what_is_left_of_the_time(make_build: MakeBuild) -> None:
    build = make_build(hold_steps=False, timeout_minutes=1)
    build.clock -= 59.5

    def outlast() -> None:
        time.sleep(1)
        raise EngineLost("The builder was removed.", details={"builder_gone": True})

    with pytest.raises(EngineLost):
        _run(build, replaced={"check_disk": _nothing, "resolve_commit": outlast})
    assert build.timeout is not None
    assert build.timeout.expired


def test_a_build_that_fills_dockers_disk_is_ended_and_says_so(
    make_build: MakeBuild, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = make_build(hold_steps=False)
    monkeypatch.setattr("flows.build_image.find_critical", lambda _limits, _places: DiskUsage("/docker", 9, 0, 9, 9))

    def lose_builder() -> None:
        with build.step("resolve_commit"):
            deadline = time.monotonic() + 10
            while "remove" not in _engine(build).calls and time.monotonic() < deadline:
                time.sleep(0.01)
            raise EngineLost("The builder was removed.", details={"builder_gone": True})

    with pytest.raises(DiskTooFull, match="became critically full while the build ran"):
        _run(build, replaced={"check_disk": _nothing, "resolve_commit": lose_builder})


@pytest.fixture
def to_push(make_build: MakeBuild) -> Build:
    build = make_build(timeout_minutes=1, push_attempts=9)
    build.record.tags = [TagReport(reference="r.example/app:1", rule="raw", reason="")]
    return build


def test_a_push_ends_with_the_time_of_its_build(to_push: Build) -> None:
    to_push.clock -= 59.8
    began = time.monotonic()
    with pytest.raises(BuildTimedOut, match="timeout of 1 min"):
        push_image.fn(to_push)
    assert time.monotonic() - began < 5
    assert _engine(to_push).push_ended
    assert _steps(to_push) == [("push_image", "failed")]


def test_a_push_is_not_tried_again_beyond_that_time(to_push: Build) -> None:
    to_push.clock -= 59.5
    _engine(to_push).fails["push"] = RegistryUnreachable("The registry can't be reached.", details={"fault": "network"})
    began = time.monotonic()
    with pytest.raises(BuildTimedOut):
        push_image.fn(to_push)
    assert time.monotonic() - began < 1.9
    assert _engine(to_push).calls == ["push"]


KILLED, DIED = (EngineEvent(1, "container", action, BUILDER) for action in ("kill", "die"))


@pytest.mark.parametrize(
    ("told", "kind"),
    [
        ([KILLED, DIED], BuildCancelled),
        ([DIED], EngineLost),
        ([EngineEvent(1, "container", "kill", "another")], EngineLost),
        (None, EngineLost),
    ],
)
def test_a_lost_builder_is_a_cancelled_build_only_where_somebody_had_it_killed(
    make_build: MakeBuild, told: list[EngineEvent] | None, kind: type[CaissonError]
) -> None:
    build = make_build(hold_steps=False)
    if told is None:
        _engine(build).fails["events"] = EngineLost("The engine went away.")
    _engine(build).told = told or []
    gone = EngineLost("The builder ended.", details={"builder_gone": True})
    _engine(build).fails["exec"] = gone
    with pytest.raises(kind) as caught:
        _run(build, replaced={"check_disk": _nothing})
    assert type(caught.value) is kind
    assert _steps(build)[-2:] == [("resolve_commit", "failed"), ("remove_builder", "completed")]


def test_a_failure_between_steps_carries_no_secret_either(
    make_build: MakeBuild, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = make_build().settings
    engine = OneBuilder("")
    engine.fails["info"] = EngineRefused("It said canary-5f2e.", details={"said": "canary-5f2e"})
    monkeypatch.setattr("flows.build_image.DockerEngine", lambda _: engine)
    monkeypatch.setattr("flows.build_image.load_secrets", lambda _: {"token": "canary-5f2e"})
    request = BuildRequest(repository_url="https://git.example/app.git", image="team/app", secrets=["token"])
    with pytest.raises(EngineRefused) as caught:
        run_build(request, settings, call=as_function)
    assert "canary" not in str(caught.value.to_dict())
    (report,) = (settings.state_dir / "builds").glob("*.json")
    assert "It said" in report.read_text()
    assert "canary" not in report.read_text()
