"""Whatever is sent, the engine gets requests of the guard's own alone: heads of the attacks, changed at random."""

from __future__ import annotations

import contextlib
import random
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import EngineHost
from tests.engine.attacks.lab import Lab, open_lab
from tests.engine.attacks.test_attacks import CASES

TRIES = 1500
# Pieces that mean something to one reader or another.
_PIECES = [
    b"\r\n", b"\n", b"\r", b"\0", b" ", b"\t", b":", b"/", b"//", b"/../", b"%2f", b"%00", b"?", b"&", b";", b"#",
    b"=", b"HTTP/1.1", b"HTTP/1.0", b"GET ", b"POST ", b"DELETE ", b"/v1.41", b"/_ping", b"/build", b"/containers/json",
    b"Host: docker\r\n", b"Content-Length: 0\r\n", b"Transfer-Encoding: chunked\r\n", b"Connection: Upgrade\r\n",
    b"Upgrade: h2c\r\n", b"Content-Type: application/x-tar\r\n", b"networkmode=host", b"remote=http://x/", b"\xff",
    b"/grpc", b"\xc3\xa9",
]  # fmt: skip


@pytest.fixture(scope="module")
def lab(engine_host: EngineHost, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with open_lab(engine_host, tmp_path_factory.mktemp("lab")) as lab:
        yield lab


def changed(head: bytes, other: bytes, dice: random.Random) -> bytes:
    """One to four changes: a piece put in, a part left out or said twice, or the rest of another."""
    for _ in range(dice.randint(1, 4)):
        at, to = sorted((dice.randint(0, len(head)), dice.randint(0, len(head))))
        to = min(to, at + 40)
        match dice.randrange(4):
            case 0:
                head = head[:at] + dice.choice(_PIECES) + head[at:]
            case 1:
                head = head[:at] + head[to:]
            case 2:
                head = head[:to] + head[at:]
            case _:
                head = head[:at] + other[dice.randint(0, len(other)) :]
    return head


def send_all(path: Path, data: bytes) -> None:
    """Send it with the end of the connection behind it, and take what comes."""
    with socket.socket(socket.AF_UNIX) as connection, contextlib.suppress(OSError):
        connection.settimeout(5)
        connection.connect(str(path))
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(65_536):
            pass


@pytest.mark.parametrize("seed", range(2))
def test_only_requests_of_the_guards_own_reach_the_engine(lab: Lab, seed: int) -> None:
    case, dice = lab.case(), random.Random(seed)
    # Without their bodies, so that no build comes to its end.
    heads = [each.values[0].send.encode(case).partition(b"\r\n\r\n")[0] + b"\r\n\r\n" for each in CASES[::3]]
    heads += [f"GET {path} HTTP/1.1\r\nHost: docker\r\n\r\n".encode() for path in ("/_ping", "/version", "/info")]
    heads = [head for head in heads if len(head) < 2000]
    own = re.escape(str(lab.policy.image))
    api = re.escape(f"/v{lab.guard.policy.api}")
    name = re.escape(str(lab.policy.image).replace("/", "%2F").replace(":", "%3A"))
    fields = (
        r" HTTP/1\.1\r\n(?:(?:Host: docker|User-Agent: caisson-guard|Connection: (?:close|Upgrade)|Upgrade: h2c"
        r"|Content-Length: 0|Content-Type: application/x-tar|Transfer-Encoding: chunked"
        r"|X-Docker-Expose-Session-[A-Za-z-]+: [\w/.]*)\r\n)+\r\n"
    )
    # Questions, one after the other, and then one build or one stream, to the end.
    question = rf"(?:(?:GET|HEAD) {api}/_ping|GET {api}/images/{own}/(?:json|history)){fields}"
    build = rf"POST {api}/build\?version=1&t={name}&[a-zA-Z0-9_=&%.+:-]*{fields}"
    stream = rf"POST {api}/(?:grpc|session){fields}"
    only = re.compile(f"(?:{question})*(?:(?:{build}|{stream})(?P<rest>.*))?".encode(), re.DOTALL)
    lab.recorder.sent.clear()
    lab.entries.clear()
    for _ in range(TRIES):
        send_all(lab.guard.socket_path, changed(dice.choice(heads), dice.choice(heads), dice))
    sent = [bytes(each) for each in lab.recorder.sent]
    for each in sent:
        found = only.fullmatch(each)
        assert found, each
        assert b"networkmode=host" not in each
        # Of no build the end.
        assert b"0\r\n\r\n" not in (found["rest"] or b"")
    # It is no proof that all is denied: some pass, and the guard is alive.
    assert sent
    assert len(lab.entries) >= TRIES / 2
