"""The context on its way: each packet is one that a builder sends, and nothing is announced after the last file."""

from __future__ import annotations

import pytest

from caisson.guard.context_stream import ContextStream
from caisson.guard.grpc import with_prefix
from caisson.guard.verdict import Denied
from tests.buildkit_client import pb
from tests.unit.test_dockerfile_stream import data, file, stat

LIMIT = 1 << 20
CONTEXT = (
    stat("a"),
    stat("b" * 300, 0o644, (3, 1000), (10, {"user.x": "y"})),
    *(data(300_000, b"x" * size) for size in (1, 127, 128, 20_000)),
    b"",
    *file(0, b"z"),
    data(1 << 31),
    pb((1, 4), (4, "walk failed")),
    pb((1, 3)),
)


def feed(stream: ContextStream, sent: bytes, step: int) -> None:
    for at in range(0, len(sent), step):
        stream.feed(memoryview(sent[at : at + step]))


@pytest.mark.parametrize("step", [1, 2, 7, 1 << 20])
def test_a_context_passes_in_any_pieces(step: int) -> None:
    feed(ContextStream(LIMIT), b"".join(map(with_prefix, CONTEXT)), step)


@pytest.mark.parametrize("step", [1, 3, 1 << 20])
@pytest.mark.parametrize(
    "packets",
    [
        # The receiver's process would end with each of these.
        (b"", stat("a")),
        (b"", b""),
        (b"", pb((1, 2), (4, "x"), (1, 0), (2, pb((1, "a"))))),
        # What readers could take for one.
        (pb((1, 0)),),
        (pb((1, 0), (2, pb((1, "a")))),),
        (pb((2, pb((1, "a"))), (2, pb((1, "b")))),),
        (pb((2, pb((1, "a"))), (1, 2)),),
        (pb((1, 2), (3, 1), (2, pb((1, "a")))),),
        (pb((1, 2), (4, "x"), (3, 1)),),
        (pb((1, 2), (3, 1), (3, 2)),),
        (pb((1, 3), (1, 0)),),
        (pb((1, 3), (4, "x")),),
        (pb((1, 4), (3, 1)),),
        (pb((1, 1), (3, 1)),),
        (pb((1, 5)),),
        (pb((3, 1)),),
        (pb((4, "x")),),
        (b"\x12",),
        (b"\x12\x05a",),
        (b"\x08",),
        (b"\x08\x82\x00",),
        (b"\x08\x02\x18\xff\xff\xff\xff\xff\x01",),
        (b"\x08\x02\x22\x05a",),
    ],
)
def test_another_packet_is_denied(packets: tuple[bytes, ...], step: int) -> None:
    stream, sent = ContextStream(LIMIT), b"".join(map(with_prefix, packets))
    with pytest.raises(Denied) as caught:
        feed(stream, sent, step)
    assert caught.value.rule == "context-packet"


def test_a_packet_is_neither_compressed_nor_too_large() -> None:
    for sent in (b"\x01\x00\x00\x00\x00", b"\x00\x00\x10\x00\x01"):
        with pytest.raises(Denied) as caught:
            ContextStream(LIMIT).feed(memoryview(sent))
        assert caught.value.rule == "grpc-message"
