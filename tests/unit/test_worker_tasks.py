"""What fails in one task of the worker is that task's end alone: the others are the builds of the host."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import anyio
import pytest
from prefect.workers.base import BaseWorker

from deployments import worker as worker_module
from deployments.worker import CaissonWorker


def run(function: Callable[..., Any], *arguments: object) -> None:
    """In a thread of its own: that of the tests may have the loop of the browser's."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(anyio.run, function, *arguments).result()


def worker(**attributes: Any) -> Any:
    made = CaissonWorker.__new__(CaissonWorker)
    for name, value in attributes.items():
        setattr(made, name, value)
    return made


def test_a_run_that_could_not_be_taken_is_offered_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: object) -> None:
        raise RuntimeError("500 Internal Server Error")

    monkeypatch.setattr(BaseWorker, "_submit_run", broken)
    taken, released = SimpleNamespace(id=uuid4()), list[object]()
    found = worker(_submitting_flow_run_ids={taken.id}, _release_limit_slot=released.append)
    run(found._submit_run, taken)
    assert found._submitting_flow_run_ids == set()
    assert released == [taken.id]


def test_a_task_that_fails_ends_no_other() -> None:
    done: list[str] = []

    async def broken() -> None:
        raise RuntimeError

    async def whole() -> None:
        await anyio.sleep(0.05)
        done.append("whole")

    async def both() -> None:
        async with anyio.create_task_group() as group:
            found = worker(_runs_task_group=group)
            found._start_soon(whole)
            found._start_soon(broken)

    run(both)
    assert done == ["whole"]


def test_of_several_polls_that_are_due_one_task_waits_for_the_first() -> None:
    started: list[float] = []

    async def many() -> None:
        found = worker(_wakes_at=float("inf"), _wake=anyio.Event(), _start_soon=lambda _, at: started.append(at))
        for seconds in (2.0, 2.0, 3.0, 1.0, 1.0):
            found._wake_in(seconds)
        await found._wake_at(0.0)
        assert found._wakes_at == started[-1]
        found._wakes_at = 0.0
        await found._wake_at(0.0)
        assert found._wakes_at == float("inf")
        assert found._wake.is_set()

    run(many)
    assert len(started) == 2


def test_a_cancel_whose_event_was_lost_is_noticed_within_two_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    assert worker_module.CANCEL_LOOK_SECONDS + worker_module.CANCEL_GRACE_SECONDS < 9
    monkeypatch.setattr(worker_module, "CANCEL_LOOK_SECONDS", 0.01)
    runs, asked = [uuid4(), uuid4()], list[Any]()

    class Client:
        async def request(self, method: str, path: str, *, json: dict[str, Any]) -> Any:
            asked.append((method, path, json["flow_runs"]))
            if len(asked) == 1:
                raise RuntimeError("500 Internal Server Error")
            return SimpleNamespace(json=lambda: [{"id": str(runs[1])}])

    async def look() -> None:
        noticed = anyio.Event()

        def start_soon(function: Any, run: object, _: str) -> None:
            assert (function.__name__, run) == ("_cancel", runs[1])
            noticed.set()

        found = worker(_client=Client(), _supervised=set(runs), _submitting_flow_run_ids=set(), _start_soon=start_soon)
        with anyio.fail_after(5):
            async with anyio.create_task_group() as group:
                group.start_soon(found._look_for_cancels_for_ever)
                await noticed.wait()
                group.cancel_scope.cancel()

    run(look)
    method, path, wanted = asked[-1]
    assert (method, path, wanted["state"]) == ("POST", "/flow_runs/filter", {"type": {"any_": ["CANCELLING"]}})
    assert set(wanted["id"]["any_"]) == set(map(str, runs))


def test_who_executes_nothing_asks_for_no_cancels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_module, "CANCEL_LOOK_SECONDS", 0.01)

    async def look() -> None:
        found = worker(_client=None, _supervised=set(), _submitting_flow_run_ids=set())
        with anyio.move_on_after(0.1):
            await found._look_for_cancels_for_ever()

    run(look)
