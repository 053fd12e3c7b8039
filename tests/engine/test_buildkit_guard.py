"""docker buildx on real engines behind the guard: builds are as ever, and attacks on them don't arrive.

buildx is the one of the builder image and, by ``CAISSON_TEST_BUILDX`` of ``make test``, the newer one that
``test-tools.sh`` has fetched.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from caisson.guard.dockerfile_names import Names
from caisson.guard.grpc import with_prefix
from caisson.guard.http2 import PREFACE, window_update, write_settings
from caisson.guard.policy import GuardPolicy
from caisson.guard.session_mediator import DIFF_COPY
from caisson.reference import parse_reference
from caisson.spec import RESERVED_REGISTRY
from tests.buildkit_client import BRIDGE, BUILD, CONTROL, GREETING, SESSION, Client, pb, read_answers, solve
from tests.conftest import EngineHost, find_containerd_engine
from tests.engine.attacks.lab import Server
from tests.engine.guarded import Guarded, guarded, upgrade, upgraded

IMAGE = "caisson.invalid/build:guard-test"
POLICY = GuardPolicy(
    image=parse_reference(IMAGE), labels=(("caisson.build", "guard-test"),), cache_mount_namespace="guard-test"
)
DOCKERFILE = """\
FROM debian:trixie-slim AS one
RUN --mount=type=cache,target=/cache --mount=type=secret,id=token cp /run/secrets/token /cache/x && rm /cache/x
COPY file /file
FROM debian:trixie-slim
COPY --from=one /file /copied
"""


def docker(host: str, *command: str) -> str:
    program = ["docker", "--host", host, *command]
    return subprocess.run(program, check=True, capture_output=True, text=True, timeout=60).stdout


@pytest.fixture
def guard(engine_host: EngineHost, tmp_path: Path) -> Iterator[Guarded]:
    with guarded(tmp_path, engine_host.socket, POLICY) as guard:
        yield guard


def build(buildx: Path, guard: Guarded, directory: Path, *options: str) -> subprocess.CompletedProcess[str]:
    own = ["--provenance=false", "--progress=plain", "--secret=id=token,env=TOKEN", f"--tag={IMAGE}"]
    env = {"DOCKER_HOST": guard.host, "HOME": str(directory), "PATH": os.environ["PATH"], "TOKEN": "s3cret"}
    command = [str(buildx), "build", *own, *options, str(directory)]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)


@pytest.fixture
def context(tmp_path: Path) -> Path:
    directory = tmp_path / "context"
    directory.mkdir()
    (directory / "Dockerfile").write_text(DOCKERFILE)
    (directory / "Broken").write_text("FROM debian:trixie-slim\nRUN echo seen && false\n")
    (directory / "file").write_bytes(os.urandom(1 << 20))
    return directory


def test_builds_are_as_ever(engine_host: EngineHost, guard: Guarded, buildx: tuple[Path, ...], context: Path) -> None:
    for program in buildx:
        built = build(program, guard, context, "--no-cache")
        assert built.returncode == 0, built.stderr
        labels = docker(engine_host.docker_host, "inspect", "--format", "{{json .Config.Labels}}", IMAGE)
        docker(engine_host.docker_host, "rmi", IMAGE)
        assert '"caisson.build":"guard-test"' in labels
        failed = build(program, guard, context, "--progress=rawjson", f"--file={context}/Broken")
        assert failed.returncode == 1
        assert "seen" in failed.stderr or "exit code: 1" in failed.stderr
    assert set(guard.refused().values()) == {"buildkit-declined"}


def test_builds_are_as_ever_on_the_containerd_store(buildx: tuple[Path, ...], context: Path, tmp_path: Path) -> None:
    host = find_containerd_engine()
    with guarded(tmp_path, host.socket, POLICY) as guard:
        for program in buildx:
            built = build(program, guard, context, "--no-cache")
            assert built.returncode == 0, built.stderr
            labels = docker(host.docker_host, "inspect", "--format", "{{json .Config.Labels}}", IMAGE)
            docker(host.docker_host, "rmi", IMAGE)
            assert '"caisson.build":"guard-test"' in labels
            refused = build(program, guard, context, "--tag=debian:trixie-slim")
            assert "has to be named" in refused.stderr
        (context / "Dockerfile").write_text("FROM debian:trixie-slim\nCOPY file /file\nRUN true\n")
        env = {**os.environ, "DOCKER_HOST": guard.host, "DOCKER_BUILDKIT": "0"}
        classic = ["docker", "build", "--tag", IMAGE, str(context)]
        built = subprocess.run(classic, env=env, capture_output=True, text=True, timeout=120)
        assert built.returncode == 0, built.stderr
        docker(host.docker_host, "rmi", IMAGE)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--network=host", "--allow=network.host"), "There are no entitlements here"),
        (("--tag=debian:trixie-slim",), "has to be named"),
        (("--output=type=local,dest=out",), "not the engine's image store"),
        (("--add-host=db:10.0.0.1",), "The attribute 'add-hosts'"),
        (("--cgroup-parent=/other",), "belong into the control group"),
        (("--build-arg=BUILDKIT_SYNTAX=evil.invalid/x",), "Dockerfile frontend"),
    ],
)
def test_what_asks_for_more_is_told_why_not(
    guard: Guarded, buildx: tuple[Path, ...], context: Path, options: tuple[str, ...], reason: str
) -> None:
    for program in buildx:
        refused = build(program, guard, context, *options)
        assert refused.returncode == 1
        assert reason in refused.stderr


DENIED = f"FROM {RESERVED_REGISTRY}/builds/other:1\n"


@pytest.mark.parametrize("file", ["Dockerfile", "other.dockerignore", "sub/dockerfile", "linked"])
def test_a_dockerfile_is_judged_as_it_is_sent(
    guard: Guarded, buildx: tuple[Path, ...], context: Path, file: str
) -> None:
    path = context / file
    path.parent.mkdir(exist_ok=True)
    if file == "linked":
        path.symlink_to("linked.dockerignore")
        path = context / "linked.dockerignore"
    path.write_text(DENIED)
    for program in buildx:
        refused = build(program, guard, context, f"--file={context}/{file}")
        assert refused.returncode == 1
        assert f"Dockerfile, line 1: FROM '{RESERVED_REGISTRY}/builds/other:1' is in the registry" in refused.stderr
        assert "load metadata" not in refused.stderr
    assert (DIFF_COPY, "image-reserved") in [(path, verdict.rule) for path, verdict in guard.denials()]


@pytest.mark.parametrize(
    "dockerfile",
    [
        "FROM {}/x\n",
        "FROM {}/team/app@sha256:" + "a" * 64,
        "FROM scratch\nCOPY --from={}/team/app:1 / /\n",
        "FROM debian:trixie-slim\nRUN --mount=type=bind,from={}/x,target=/x true\n",
    ],
)
def test_no_registry_inside_is_asked_for_an_image(
    engine_host: EngineHost, guard: Guarded, buildx: tuple[Path, ...], context: Path, dockerfile: str
) -> None:
    with closing(Server(engine_host.gateway)) as server:
        (context / "Dockerfile").write_text(dockerfile.format(server.address))
        for program in buildx:
            refused = build(program, guard, context)
            assert refused.returncode == 1
            assert "inside its own network" in refused.stderr
        assert server.hits == 0
        # Without the guard it is.
        assert build(buildx[0], Guarded(engine_host.socket), context).returncode == 1
        assert server.hits > 0
    assert (DIFF_COPY, "image-private-registry") in [(path, verdict.rule) for path, verdict in guard.denials()]


def test_what_a_name_means_is_asked_before_the_engine_asks_it(
    engine_host: EngineHost, buildx: tuple[Path, ...], context: Path, tmp_path: Path
) -> None:
    names = Names(ask=lambda name: ("127.0.0.1",) if name == "inside.example" else ())
    (context / "Dockerfile").write_text(
        "FROM scratch\nADD http://inside.example/ /x\nCOPY --from=inside.example:5000/x / /\n"
    )
    directory = tmp_path / "second"
    directory.mkdir()
    with guarded(directory, engine_host.socket, POLICY, names=names) as guard:
        refused = build(buildx[0], guard, context)
    assert "line 2: ADD 'http://inside.example/' would be fetched by the engine from inside" in refused.stderr
    assert "line 3: COPY --from 'inside.example:5000/x' would be asked for by the engine inside" in refused.stderr


def test_a_dockerfile_is_judged_with_the_builds_arguments(
    guard: Guarded, buildx: tuple[Path, ...], context: Path
) -> None:
    (context / "Argument").write_text("ARG BASE=debian:trixie-slim\nFROM $BASE\n")
    for program in buildx:
        argument = f"--build-arg=BASE={RESERVED_REGISTRY}/builds/other:1"
        refused = build(program, guard, context, f"--file={context}/Argument", argument)
        assert refused.returncode == 1
        assert "Dockerfile, line 2" in refused.stderr
        # One socket is for one build: it has the arguments that were named first.
        changed = build(program, guard, context, f"--file={context}/Argument")
        assert "one set of arguments" in changed.stderr


def test_a_dockerfile_that_is_a_link_or_came_before_is_built(
    engine_host: EngineHost, guard: Guarded, buildx: tuple[Path, ...], context: Path
) -> None:
    (context / "Linked").symlink_to("Broken")
    (context / "Broken").write_text("FROM debian:trixie-slim\nCOPY file /linked\n")
    (context / "Dockerfile.dockerignore").write_text("no Dockerfile\n")
    for program in buildx:
        for file in ("Dockerfile", "Dockerfile", "Linked"):
            built = build(program, guard, context, f"--file={context}/{file}")
            assert built.returncode == 0, built.stderr
    docker(engine_host.docker_host, "rmi", IMAGE)


def answers(stream: socket.socket, wanted: int, received: bytes = b"") -> bytes:
    """All until the answer on that stream has come; the daemon's own is told by ``grpc-status`` in a trailer.

    ``received`` has come before.
    """
    while "grpc-status" not in read_answers(received).get(wanted, {}):
        received += stream.recv(65_536)
    return received


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (f"{BRIDGE}NewContainer", pb((1, "c" * 25), (3, 1))),
        (f"{CONTROL}Prune", b""),
        (f"{CONTROL}DiskUsage", b""),
        (f"{CONTROL}ListenBuildHistory", pb((1, 1))),
        (f"{CONTROL}Other", b""),
        (f"{CONTROL}Solve", pb((1, BUILD), (2, pb((1, b"\x12\x00"))), (5, SESSION))),
        (f"{CONTROL}Solve", solve((9, "security.insecure"), image=IMAGE)),
        (f"{CONTROL}Solve", solve(kind="tar")),
        (f"{CONTROL}Solve", solve((99, "x"), image=IMAGE)),
    ],
)
def test_an_attack_reaches_no_engine(guard: Guarded, path: str, message: bytes) -> None:
    with upgraded(guard.socket, upgrade("/grpc")) as stream:
        client = Client()
        stream.sendall(GREETING + client.call(path, message))
        received = answers(stream, 1)
    assert read_answers(received)[1]["grpc-status"] in ("7", "12")
    assert list(guard.refused()) == [path]


def test_without_the_guard_it_does(engine_host: EngineHost) -> None:
    """Else the test above would prove nothing."""
    with upgraded(engine_host.socket, upgrade("/grpc")) as stream:
        # The answer tells of every layer of every build, and is long.
        greeting = PREFACE + write_settings({4: 8 << 20}) + window_update(0, 8 << 20)
        stream.sendall(greeting + Client().call(f"{CONTROL}DiskUsage"))
        received = answers(stream, 1)
    assert read_answers(received)[1]["grpc-status"] == "0"


def test_the_steps_control_group_is_written_in(
    engine_host: EngineHost, buildx: tuple[Path, ...], context: Path, tmp_path: Path
) -> None:
    (context / "Where").write_text("FROM debian:trixie-slim\nRUN cat /proc/self/cgroup; cat /proc/1/cgroup\n")
    policy = replace(POLICY, cgroup_parent="/docker/guard-test")
    directory = tmp_path / "second"
    directory.mkdir()
    with guarded(directory, engine_host.socket, policy) as guard:
        built = build(buildx[0], guard, context, "--no-cache", f"--file={context}/Where")
    docker(engine_host.docker_host, "rmi", IMAGE)
    # BuildKit in 20.10 has no such attribute, and ignores it.
    assert ("/docker/guard-test/" in built.stderr) == (not engine_host.name.startswith("20."))


def hand_over(path: Path, config: dict[str, object], **more: object) -> tuple[str, str]:
    """A build whose client hands the exporter a configuration of its own, with ``more``; what Return is answered."""
    session, build = uuid.uuid4().hex, uuid.uuid4().hex
    labelled = {"Labels": dict(POLICY.labels), **config}
    image = {"architecture": "amd64", "os": "linux", "config": labelled, **more}
    client = Client()
    asked = client.call(f"{CONTROL}Solve", pb((1, build), (3, "moby"), (4, {"name": IMAGE}), (5, session)))
    result = pb((1, pb((10, {"containerimage.config": json.dumps(image)}))))
    returned = client.open(f"{BRIDGE}Return", build) + client.data(with_prefix(result))
    with upgraded(path, upgrade("/session", uuid=session)), upgraded(path, upgrade("/grpc")) as stream:
        stream.sendall(GREETING + asked + returned)
        received = answers(stream, 3)
        answer = read_answers(received)[3]
        if answer["grpc-status"] == "0":
            # And then the image is made.
            assert read_answers(answers(stream, 1, received))[1]["grpc-status"] == "0"
    return answer["grpc-status"], answer.get("grpc-message", "")


def test_no_image_gets_a_trigger_that_no_dockerfile_may_have(engine_host: EngineHost, guard: Guarded) -> None:
    inside = {"OnBuild": ["RUN true", "ADD http://127.0.0.1:1/x /x"]}

    def triggers() -> str:
        found = docker(engine_host.docker_host, "inspect", "--format", "{{json .Config.OnBuild}}", IMAGE)
        docker(engine_host.docker_host, "rmi", IMAGE)
        return found.strip()

    status, reason = hand_over(guard.socket, inside)
    assert status == "7"
    assert "ONBUILD 'ADD http://127.0.0.1:1/x /x'" in reason
    assert guard.refused() == {f"{BRIDGE}Return": "add-private-host"}
    assert hand_over(engine_host.socket, inside)[0] == "0"
    assert json.loads(triggers()) == inside["OnBuild"]
    # What a Dockerfile may have is no matter.
    assert hand_over(guard.socket, {"OnBuild": ["RUN true"]})[0] == "0"
    assert triggers() == '["RUN true"]'


def test_no_image_is_made_of_layers_that_its_build_has_not_made(engine_host: EngineHost, guard: Guarded) -> None:
    """The exporter replaces ``rootfs``; the image store takes this for it too, and the last of two."""
    found = docker(engine_host.docker_host, "inspect", "--format", "{{json .RootFS.Layers}}", "debian:trixie-slim")
    others = {"rootf\u017f": {"type": "layers", "diff_ids": json.loads(found)}}
    status, reason = hand_over(guard.socket, {}, **others)
    assert status == "7"
    assert "which BuildKit's has not" in reason
    assert guard.refused() == {f"{BRIDGE}Return": "build-result"}
    assert hand_over(engine_host.socket, {}, **others)[0] == "0"
    made = docker(engine_host.docker_host, "inspect", "--format", "{{json .RootFS.Layers}}", IMAGE)
    docker(engine_host.docker_host, "rmi", IMAGE)
    assert made == found


def test_a_dockerfile_with_triggers_is_built(
    engine_host: EngineHost, guard: Guarded, buildx: tuple[Path, ...], context: Path
) -> None:
    (context / "Dockerfile").write_text("FROM scratch\nCOPY file /\nONBUILD RUN a \\\n  && b\nONBUILD ADD . /x\n")
    for program in buildx:
        built = build(program, guard, context)
        assert built.returncode == 0, built.stderr
        found = docker(engine_host.docker_host, "inspect", "--format", "{{json .Config.OnBuild}}", IMAGE)
        docker(engine_host.docker_host, "rmi", IMAGE)
        assert len(json.loads(found)) == 2
