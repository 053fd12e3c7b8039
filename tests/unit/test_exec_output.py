"""An exec that the engine could not start is tried again; what a process says is passed on as it came."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from caisson import docker_engine
from caisson.docker_engine import DockerEngine
from caisson.engine import ContainerID, Stream
from caisson.errors import EngineFault
from caisson.exec_output import ExecOutput

RUNC = b"OCI runtime exec failed: exec failed: unable to start container process: read init-p: connection reset\r\n"


class Api:
    """What the engine answers to each exec in turn: its output and its exit code."""

    def __init__(self, *answers: tuple[list[tuple[bytes | None, bytes | None]], int]) -> None:
        self.answers = list(answers)
        self.asked = 0

    def exec_create(self, *_: object, **__: object) -> dict[str, str]:
        self.asked += 1
        return {"Id": str(self.asked)}

    def exec_start(self, exec_id: str, **_: object) -> Iterator[tuple[bytes | None, bytes | None]]:
        yield from self.answers[int(exec_id) - 1][0]

    def exec_inspect(self, exec_id: str) -> dict[str, Any]:
        return {"Running": False, "ExitCode": self.answers[int(exec_id) - 1][1]}


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(docker_engine, "_EXEC_PAUSE_SECONDS", 0.0)


def run(api: Api) -> tuple[int, list[tuple[Stream, bytes]]]:
    engine, said = DockerEngine.__new__(DockerEngine), list[tuple[Stream, bytes]]()
    engine._api, engine._host = api, "unix:///nowhere"
    code = engine.exec(ContainerID("c"), ["true"], user="1", on_output=lambda *chunk: said.append(chunk))
    return code, said


def test_a_process_that_did_not_start_is_started_again_and_nobody_hears_of_it() -> None:
    api = Api(([(RUNC, None)], 126), ([(b"one", None), (None, b"two")], 3))
    assert run(api) == (3, [("stdout", b"one"), ("stderr", b"two")])
    assert api.asked == 2


def test_one_that_never_starts_is_the_engines_fault() -> None:
    api = Api(*[([(RUNC, None)], 126)] * 5)
    with pytest.raises(EngineFault) as caught:
        run(api)
    assert api.asked == 3
    assert caught.value.details["engine_said"] == RUNC.decode().strip()
    assert caught.value.retryable


@pytest.mark.parametrize(
    ("output", "code"),
    [
        # A process that says the same, and one that ends with the same.
        ([(RUNC, None)], 1),
        ([(b"x\n", None), (RUNC, None)], 126),
        ([(RUNC, None), (None, b"x\n")], 126),
        ([(b"sh: not executable\n", None)], 126),
        ([], 126),
    ],
)
def test_what_a_process_says_is_its_own(output: list[tuple[bytes | None, bytes | None]], code: int) -> None:
    api = Api((output, code))
    found, said = run(api)
    assert (found, api.asked) == (code, 1)
    chunks = [chunk for pair in output for chunk in pair if chunk]
    assert sorted(chunk for _, chunk in said) == sorted(chunks)


def test_what_is_held_back_is_passed_on_once() -> None:
    said: list[tuple[Stream, bytes]] = []
    output = ExecOutput(lambda stream, chunk: said.append((stream, chunk)))
    output.feed("stdout", RUNC[:30])
    output.feed("stdout", RUNC[30:])
    assert said == []
    output.flush()
    output.flush()
    assert said == [("stdout", RUNC)]
