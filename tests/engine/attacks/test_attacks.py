"""No attack passes the guard, and each shows on the engine's own socket what it would have done there."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial

import pytest

from tests.conftest import EngineHost
from tests.engine.attacks import (
    build_query,
    containers,
    context_headers,
    context_tar,
    http_framing,
    images,
    info,
    other_containers,
    swarm_plugins,
    versions_paths,
    volumes_networks,
)
from tests.engine.attacks.case import Attack, Raw, Refuses
from tests.engine.attacks.lab import Answer, Case, Lab, open_lab, speak

FAMILIES = {
    module.__name__.rpartition(".")[2]: module.ATTACKS
    for module in (
        build_query,
        containers,
        context_headers,
        context_tar,
        http_framing,
        images,
        info,
        other_containers,
        swarm_plugins,
        versions_paths,
        volumes_networks,
    )
}
CASES = [pytest.param(attack, id=f"{family}: {attack.name}") for family, table in FAMILIES.items() for attack in table]


@pytest.fixture(scope="module")
def lab(engine_host: EngineHost, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with open_lab(engine_host, tmp_path_factory.mktemp("lab")) as lab:
        yield lab


def test_there_are_as_many_as_promised() -> None:
    names = [case.id for case in CASES]
    assert len(set(names)) == len(names) >= 150
    attacks = [case.values[0] for case in CASES]
    for engine in ("20.10", "26.1"):
        works = [attack.on(engine) for attack in attacks]
        assert all(each.shown and each.why for each in works if isinstance(each, Refuses))
        # On the engine's own socket most of them do work.
        assert sum(not isinstance(each, Refuses) for each in works) >= 300


def send(attack: Attack, case: Case, path: object, data: bytes) -> Answer:
    then = case.fill(attack.send.then.encode("latin-1")) if isinstance(attack.send, Raw) else b""
    case.hits = case.lab.server.hits
    return speak(path, data, then=then, waits=attack.waits)


@pytest.mark.parametrize("attack", CASES)
def test_an_attack_does_nothing_through_the_guard_and_what_it_says_without(lab: Lab, attack: Attack) -> None:
    case, works = lab.case(), attack.on(lab.host.name)
    data = attack.send.encode(case)
    lab.entries.clear()
    lab.recorder.sent.clear()

    guarded = send(attack, case, lab.guard.socket_path, data)
    sent_on = [bytes(sent) for sent in lab.recorder.sent]
    decided = [(entry.verdict.decision, entry.verdict.rule) for entry in lab.entries if entry.event == "decision"]
    denies = attack.status != 200 if attack.denies is None else attack.denies
    assert guarded.status == attack.status, guarded
    assert ("deny" if denies else "allow", attack.rule) in decided, (decided, guarded)
    assert guarded.closed
    if attack.reaches:
        # Of a build that is denied on the way, the engine never sees the end.
        assert not any(sent.endswith(b"\r\n0\r\n\r\n") for sent in sent_on)
    else:
        assert sent_on == []
    if not isinstance(works, Refuses):
        assert not works(case, guarded), "it worked through the guard"

    raw = send(attack, case, lab.host.socket, data)
    if isinstance(works, Refuses):
        assert works.shown in raw.data.decode("utf-8", "replace"), raw
    else:
        assert works(case, raw), raw


def test_all_of_them_leave_nothing_behind(lab: Lab) -> None:
    cases = [(case.values[0], lab.case()) for case in CASES]
    ready = [(attack, case, attack.send.encode(case)) for attack, case in cases]
    before = lab.names()
    for attack, case, data in ready:
        send(attack, case, lab.guard.socket_path, data)
    time.sleep(0.5)
    assert lab.names() == before


PASSED = {
    **{name: partial(context_tar.passed, entries=entries) for name, entries in context_tar.PASSED.items()},
    **{name: partial(context_headers.passed, more=more) for name, more in context_headers.PASSED.items()},
}


@pytest.mark.parametrize("name", PASSED)
def test_of_a_context_that_passes_the_engine_reads_the_dockerfile_that_was_judged(lab: Lab, name: str) -> None:
    case = lab.case()
    built = speak(lab.guard.socket_path, PASSED[name](case), waits=30)
    assert b"Successfully built" in built.data, built
    assert not context_tar.chose_the_hidden_one(case, built)
