"""A BuildKit client of our own, that can say anything: frames, header lists and messages, well formed or not."""

from __future__ import annotations

from collections.abc import Iterable

from hpack import Encoder

from caisson.guard.build_ids import BuildIds
from caisson.guard.grpc import BUILD_ID, with_prefix
from caisson.guard.grpc_mediator import GrpcMediator
from caisson.guard.http2 import END_HEADERS, END_STREAM, PREFACE, Frame, FrameReader, HeaderReader, Type, write_settings
from caisson.guard.policy import GuardPolicy
from caisson.reference import parse_reference

CONTROL = "/moby.buildkit.v1.Control/"
BRIDGE = "/moby.buildkit.v1.frontend.LLBBridge/"
BUILD, SESSION = "b" * 25, "s" * 25
IMAGE = "caisson.invalid/build:b1"
POLICY = GuardPolicy(
    image=parse_reference(IMAGE),
    labels=(("caisson.build", "b1"),),
    cgroup_parent="/docker/abc",
    cache_mount_namespace="team",
)
GREETING = PREFACE + write_settings({})


def rst_stream(stream: int, code: int) -> bytes:
    return Frame(Type.RST_STREAM, 0, stream, code.to_bytes(4, "big")).encode()


def varint(value: int) -> bytes:
    written = b""
    while value > 0x7F:
        written += bytes((value & 0x7F | 0x80,))
        value >>= 7
    return written + bytes((value,))


def pb(*fields: tuple[int, str | bytes | int | dict[str, str]]) -> bytes:
    """A message: numbers and values; a dictionary is a map."""
    written = b""
    for number, value in fields:
        if isinstance(value, int):
            written += varint(number << 3) + varint(value)
        elif isinstance(value, dict):
            for key, item in value.items():
                written += pb((number, pb((1, key), (2, item))))
        else:
            data = value.encode() if isinstance(value, str) else value
            written += varint(number << 3 | 2) + varint(len(data)) + data
    return written


def solve(*more: tuple[int, str | bytes | int | dict[str, str]], image: str = IMAGE, kind: str = "moby") -> bytes:
    """``Control/Solve`` as buildx sends it."""
    attrs = {"name": image}
    return pb(
        (1, BUILD), (3, kind), (4, attrs), (5, SESSION), (8, b""), *more, (13, pb((1, kind), (2, attrs)))
    )  # fmt: skip


def headers(path: str, build_id: str = "") -> list[tuple[str, str]]:
    own = [(BUILD_ID, build_id)] if build_id else []
    return [
        (":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "localhost"),
        ("content-type", "application/grpc"), ("user-agent", "grpc-go/1.64.0"), ("te", "trailers"),
        ("grpc-accept-encoding", "gzip"), *own,
    ]  # fmt: skip


class Client:
    """Writes one connection's bytes, with a compression state as a real client has it."""

    def __init__(self) -> None:
        self._encoder = Encoder()
        self.stream = -1

    def block(self, fields: Iterable[tuple[str, str]]) -> bytes:
        return self._encoder.encode(list(fields))

    def open(self, path: str, build_id: str = "", *, more: Iterable[tuple[str, str]] = ()) -> bytes:
        """HEADERS on the next stream."""
        self.stream += 2
        build_id = build_id or (BUILD if path.startswith(BRIDGE) else "")
        return Frame(Type.HEADERS, END_HEADERS, self.stream, self.block([*headers(path, build_id), *more])).encode()

    def ask(self, *paths: str, directory: str = "dockerfile") -> bytes:
        """What the daemon sends for a directory of the builder's."""
        more = [("dir-name", directory), *(("followpaths", path) for path in paths)]
        return self.open("/moby.filesync.v1.FileSync/DiffCopy", more=more)

    def data(self, payload: bytes, *, end: bool = True) -> bytes:
        return Frame(Type.DATA, END_STREAM if end else 0, self.stream, payload).encode()

    def call(self, path: str, message: bytes = b"") -> bytes:
        return self.open(path) + self.data(with_prefix(message))


def mediator(policy: GuardPolicy = POLICY) -> GrpcMediator:
    """One whose session is open."""
    ids = BuildIds()
    ids.open_session(SESSION)
    return GrpcMediator(lambda: policy, ids)


def read_calls(data: bytes) -> list[tuple[dict[str, str], bytes]]:
    """What a daemon sees: each call's headers and message."""
    assert data.startswith(PREFACE)
    reader = HeaderReader(1 << 20, 1 << 20)
    calls: dict[int, tuple[dict[str, str], bytes]] = {}
    ended = set()
    for frame in FrameReader().feed(data.removeprefix(PREFACE)):
        if frame.type is Type.HEADERS:
            block = reader.add(frame)
            assert block
            calls[block.stream] = ({name.decode(): value.decode() for name, value in block.fields}, b"")
        elif frame.type is Type.DATA:
            calls[frame.stream] = (calls[frame.stream][0], calls[frame.stream][1] + frame.payload)
            if frame.ends_stream:
                ended.add(frame.stream)
    assert ended == calls.keys()
    return list(calls.values())


def read_answers(data: bytes) -> dict[int, dict[str, str]]:
    """What the guard itself answered: gRPC's status by stream."""
    reader = HeaderReader(1 << 20, 1 << 20)
    answers = {}
    # A daemon's first frame would be SETTINGS; the guard does not wait for it.
    for frame in FrameReader().feed(write_settings({}) + data):
        if frame.type is Type.HEADERS and (block := reader.add(frame)):
            answers[block.stream] = {name.decode(): value.decode() for name, value in block.fields}
    return answers


def source(identifier: str, attributes: dict[str, str] | None = None) -> bytes:
    """A step (``Op``) that reads from there."""
    return pb((3, pb((1, identifier), (2, attributes or {}))))


def answer_of(reference: str, *operations: bytes) -> bytes:
    """What a daemon answers to the bridge's ``Solve``: a reference, and the steps that it stands for."""
    definition = pb(*((1, operation) for operation in operations))
    return pb((3, pb((3, pb((1, reference), (2, definition))), (10, {"containerimage.config": "{}"}))))
