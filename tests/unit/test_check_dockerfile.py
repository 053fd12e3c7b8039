"""What a Dockerfile that could not be read is taken for: the request's fault, or the engine's."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from caisson.errors import CaissonError, DockerfileInvalid, EngineFault
from tasks.check_dockerfile import _read

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
