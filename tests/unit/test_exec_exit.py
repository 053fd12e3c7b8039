"""How a step in a builder ended, on an engine that is slow to say so: its client is a stand-in of a few lines."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from docker.errors import NotFound

from caisson.docker_engine import DockerEngine
from caisson.engine import ContainerID
from caisson.errors import CaissonError, EngineFault, EngineLost

RUNNING = {"Running": True, "ExitCode": None}
BUILDER = ContainerID("b" * 64)


class SlowClient:
    """Says ``slow`` times that the program runs, and then its exit code 3; ``None``: it never says more."""

    def __init__(self, slow: int | None, state: str = "running") -> None:
        self.slow, self.state, self.asked = slow, state, 0

    def exec_create(self, *_: object, **__: object) -> dict[str, str]:
        return {"Id": "e"}

    def exec_start(self, *_: object, **__: object) -> Iterator[tuple[bytes, bytes]]:
        return iter([(b"done\n", b"")])

    def exec_inspect(self, _id: str) -> dict[str, Any]:
        self.asked += 1
        if self.state == "gone":
            raise NotFound("No such exec instance")
        is_told = self.slow is not None and self.asked > self.slow
        return {"Running": False, "ExitCode": 3} if is_told else RUNNING

    def inspect_container(self, container: str) -> dict[str, Any]:
        if self.state == "gone":
            raise NotFound("No such container")
        return {"Id": container, "Name": "/b", "State": {"Status": self.state, "Pid": 1}, "Config": {"Labels": {}}}


def _exec(monkeypatch: pytest.MonkeyPatch, client: SlowClient) -> int | CaissonError:
    clock = [0.0]

    def sleep(seconds: float) -> None:
        clock[0] += seconds

    monkeypatch.setattr("caisson.docker_engine.APIClient", lambda **_: client)
    monkeypatch.setattr("caisson.docker_engine.time.sleep", sleep)
    monkeypatch.setattr("caisson.docker_engine.time.monotonic", lambda: clock[0])
    engine = DockerEngine("unix:///nowhere")
    try:
        return engine.exec(BUILDER, ["true"], user="1:1", on_output=lambda *_: None)
    except CaissonError as error:
        return error


@pytest.mark.parametrize("slow", [0, 499, 500, 5_000])
def test_an_engine_that_records_the_exit_late_is_waited_for(monkeypatch: pytest.MonkeyPatch, slow: int) -> None:
    assert _exec(monkeypatch, SlowClient(slow)) == 3


def test_an_engine_that_never_records_it_is_at_fault_and_no_builder_is_called_gone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    failure = _exec(monkeypatch, SlowClient(None))
    assert isinstance(failure, EngineFault)
    assert failure.retryable
    assert "builder_gone" not in failure.details


@pytest.mark.parametrize("state", ["gone", "exited"])
def test_a_builder_that_is_gone_is_told_as_such(monkeypatch: pytest.MonkeyPatch, state: str) -> None:
    failure = _exec(monkeypatch, SlowClient(None, state))
    assert isinstance(failure, EngineLost)
    assert failure.details["builder_gone"]
