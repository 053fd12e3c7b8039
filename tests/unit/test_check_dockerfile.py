"""The step that judges the Dockerfile: what it holds, what it denies, and whose fault one is that can't be read."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest

from caisson.engine import ImageID, ImageInfo
from caisson.errors import CaissonError, DockerfileDenied, DockerfileInvalid, EngineFault
from caisson.guard.base_images import JudgedBases
from caisson.guard.dockerfile_lines import Dialect
from caisson.guard.dockerfile_policy import DockerfilePolicy
from caisson.guard.dockerfile_stages import BuildInputs
from caisson.guard.verdict import Denied
from caisson.request import Builder
from tasks.check_dockerfile import _read, check_dockerfile

RUNC = b"OCI runtime exec failed: exec failed: unable to start container process: read init-p: connection reset\r\n"


def _failure(exit_code: int, stream: str, said: bytes) -> CaissonError:
    def run(*_: object, on_output: Any, **__: object) -> int:
        on_output(stream, said)
        return exit_code

    build: Any = SimpleNamespace(
        engine=SimpleNamespace(exec=run),
        settings=SimpleNamespace(step_user="1000:1000"),
        spec=SimpleNamespace(context=".", dockerfile="docker/Dockerfile"),
    )
    builder: Any = SimpleNamespace(id="builder")
    with pytest.raises(CaissonError) as caught:
        _read(build, builder)
    return caught.value


def test_a_file_that_head_refuses_is_the_requests_fault() -> None:
    failure = _failure(1, "stderr", b"head: cannot open '/app/docker/Dockerfile' for reading: Permission denied\n")
    assert isinstance(failure, DockerfileInvalid)
    assert failure.message == "The Dockerfile docker/Dockerfile can't be read (exit code 1)."
    assert failure.details["output"].endswith("Permission denied")


@pytest.mark.parametrize("exit_code", [126, 128, 137])
@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_head_that_did_not_run_is_the_engines_fault_and_is_tried_again(exit_code: int, stream: str) -> None:
    failure = _failure(exit_code, stream, RUNC)
    assert isinstance(failure, EngineFault)
    assert failure.retryable
    assert failure.details == {"exit_code": exit_code, "output": RUNC.decode().strip()}


def test_silence_is_told_as_such() -> None:
    assert _failure(255, "stdout", b"").details == {"exit_code": 255, "output": ""}


@pytest.mark.parametrize(("trigger", "denied"), [("RUN make", False), ("ADD http://10.0.0.1/x /x", True)])
def test_images_on_the_engine_are_held_and_their_triggers_judged(trigger: str, denied: bool) -> None:
    held: list[str] = []
    base = ImageInfo(ImageID("sha256:b"), ("base:1",), (), {}, 0, (), "", triggers=(trigger,))

    def run(*_: object, on_output: Any, **__: object) -> int:
        on_output("stdout", b"FROM base:1\nCOPY --from=other / /\n")
        return 0

    build: Any = SimpleNamespace(
        step=lambda _: nullcontext(),
        identity=SimpleNamespace(build_id="0123456789ab"),
        log=SimpleNamespace(attach=lambda _: None, line=lambda _: None),
        engine=SimpleNamespace(exec=run, inspect_image={"base:1": base}.get),
        record=SimpleNamespace(
            chosen=SimpleNamespace(builder=Builder.CLASSIC), engine=SimpleNamespace(platform="linux/amd64")
        ),
        settings=SimpleNamespace(step_user="1000:1000"),
        spec=SimpleNamespace(context=".", dockerfile="", build_args=(), target=""),
        hold=lambda *images: held.extend(images),
    )
    builder: Any = SimpleNamespace(id="builder")
    policy = DockerfilePolicy(Dialect.HEREDOCS, "caisson.local")
    with pytest.raises(DockerfileDenied, match="base:1") if denied else nullcontext():
        check_dockerfile.fn(build, builder, policy, lambda _: (), bases := JudgedBases())
    assert sorted(held) == ["base:1", "other", "sha256:b"]
    with pytest.raises(Denied) if denied else nullcontext():
        bases.check(b"FROM base:1\n", Dialect.HEREDOCS, BuildInputs("classic"))
