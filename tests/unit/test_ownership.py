"""No worker settles a run of another's: whose a run is, by its queue, the words of its state and its label."""

from __future__ import annotations

from uuid import uuid4

import pytest
from prefect.client.schemas.objects import FlowRun, State
from prefect.states import Cancelling, Pending, Running

from caisson.settings import Settings
from deployments.leftovers import is_to_settle
from deployments.names import care_queue, host_of_queue, host_queue
from deployments.ownership import WORKER_LABEL, owner_of, taken_message

HOSTS = ("b1", "b2", "care")


def run(queue: str, state: State[None], label: str = "") -> FlowRun:
    labels = {WORKER_LABEL: label} if label else {}
    return FlowRun(flow_id=uuid4(), work_queue_name=queue, state=state, labels=labels)


@pytest.mark.parametrize(
    ("flow_run", "owner"),
    [
        (run("b1", Pending()), "b1"),
        (run("care-b1", Running()), "b1"),
        (run("care-b1", Running(), "b2"), "b1"),
        (run("shared", Pending(message=taken_message("b2"))), "b2"),
        (run("shared", Running(), "b2"), "b2"),
        (run("shared", Cancelling(), "b2"), "b2"),
        # Taken a second time, by another, that has not come to its label yet: b1 must not touch it.
        (run("shared", Pending(message=taken_message("b2")), "b1"), "b2"),
        (run("shared", Pending()), ""),
        (run("default", Pending()), ""),
    ],
)
def test_whose_a_run_is(flow_run: FlowRun, owner: str) -> None:
    assert owner_of(flow_run) == owner
    for host in HOSTS:
        assert is_to_settle(flow_run, host) is (host == owner)


def test_a_cancelled_run_that_nobody_took_is_everybodys() -> None:
    assert all(is_to_settle(run("shared", Cancelling()), host) for host in HOSTS)
    assert not is_to_settle(run("b1", Cancelling()), "b2")


@pytest.mark.parametrize("name", ["shared", "any", "default", "care-b1", "", "a/b", "a b", "ä", "x" * 64])
def test_a_host_has_no_name_that_is_a_queue_of_ours(name: str) -> None:
    with pytest.raises(ValueError, match="host_name"):
        Settings(_env_file=None, host_name=name)


@pytest.mark.parametrize("name", ["b1", "build-1.example.com", "Build_1"])
def test_the_queues_of_a_host_tell_its_name(name: str) -> None:
    assert Settings(_env_file=None, host_name=name).host_name == name
    assert host_of_queue(host_queue(name)) == host_of_queue(care_queue(name)) == name
