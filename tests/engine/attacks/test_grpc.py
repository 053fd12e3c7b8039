"""No call to BuildKit that asks for more reaches the engine, and each shows on its own socket what it would do."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from caisson.guard.http2 import PREFACE, FrameReader, Type
from tests.conftest import EngineHost
from tests.engine.attacks import grpc, grpc_wire
from tests.engine.attacks.case import Refuses
from tests.engine.attacks.grpc import GrpcAttack, answers
from tests.engine.attacks.lab import Answer, Case, Lab, open_lab
from tests.engine.guarded import upgrade, upgraded


@pytest.fixture(scope="module")
def lab(engine_host: EngineHost, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with open_lab(engine_host, tmp_path_factory.mktemp("lab")) as lab:
        yield lab


def call(attack: GrpcAttack, case: Case, path: Path) -> Answer:
    """Send the frames once the stream is h2c, and take what comes until the first call is answered."""
    frames, case.hits = attack.frames(case), case.lab.server.hits
    begun = time.monotonic()
    with upgraded(path, upgrade("/grpc"), seconds=attack.waits) as stream:
        received, closed = b"", False
        with contextlib.suppress(TimeoutError):
            try:
                stream.sendall(frames)
                while "grpc-status" not in answers(received).get(1, {}):
                    part = stream.recv(65_536)
                    received, closed = received + part, not part
                    if closed:
                        break
            except (BrokenPipeError, ConnectionResetError):
                closed = True
    return Answer(received, closed, time.monotonic() - begun)


def text(answer: Answer) -> str:
    """The answers as lines, and how it ended without one."""
    lines = [f"{key}: {value}" for fields in answers(answer.data).values() for key, value in fields.items()]
    if "grpc-status" not in answers(answer.data).get(1, {}):
        lines.append(f"no answer: {'closed' if answer.closed else 'silent'}")
    return "\n".join(lines)


def calls_in(sent: bytes) -> int:
    """How many calls the engine was sent."""
    frames = FrameReader().feed(sent.partition(PREFACE)[2])
    return sum(frame.type is Type.HEADERS for frame in frames)


@pytest.mark.parametrize("attack", [*grpc.ATTACKS, *grpc_wire.ATTACKS], ids=lambda attack: attack.name)
def test_an_attack_does_nothing_through_the_guard_and_what_it_says_without(lab: Lab, attack: GrpcAttack) -> None:
    case, works = lab.case(), attack.on(lab.host.name)
    lab.entries.clear()
    lab.recorder.sent.clear()

    guarded = call(attack, case, lab.guard.socket_path)
    denied = [entry.verdict.rule for entry in lab.entries if entry.event == "decision" and not entry.verdict.allowed]
    assert attack.rule in denied, (denied, text(guarded))
    assert guarded.closed or answers(guarded.data)[1]["grpc-status"] in ("7", "12")
    assert sum(calls_in(bytes(sent)) for sent in lab.recorder.sent) <= attack.passed
    if not isinstance(works, Refuses):
        assert not works(case, guarded), "it worked through the guard"

    raw = call(attack, case, lab.host.socket)
    if isinstance(works, Refuses):
        assert works.shown in text(raw), text(raw)
    else:
        assert works(case, raw), text(raw)
