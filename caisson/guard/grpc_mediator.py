"""The guard on ``/grpc``: between a BuildKit client and the daemon, sans I/O.

Rules of this module:

- A call reaches the daemon whole or not at all: its headers and its one message are read, judged and written anew, and
  only then sent, in the order in which the calls were opened. Of a call that is denied the daemon sees nothing.
- A denied call is answered by the guard with a gRPC status, so that the client prints the reason; the connection goes
  on. What is no proper HTTP/2 or gRPC, or too much of anything, raises ``Denied``: then both sides have to be closed,
  after ``goodbye``.
- What the daemon answers is passed on as it is, frame by frame. Two kinds of frames of its are the guard's to read:
  how much it takes (the guard sends no more, and gives the client windows of its own), and what settings it has. What
  it has made of a Dockerfile is read on its way.
- Memory is bounded: the bytes of messages by what all connections of the socket may hold, ``MOST_AT_ONCE`` calls,
  ``MOST_CALLS`` in all, control frames in proportion to what the daemon has answered (CVE-2019-9512, CVE-2019-9515,
  CVE-2023-44487).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from caisson.guard.build_ids import BuildIds
from caisson.guard.buildkit_rules import Judged, find_method, judge, note_answer, status_of
from caisson.guard.dockerfile_names import Unasked
from caisson.guard.grpc import Call, MessageReader, RequestReader, read_call, refusal, with_prefix
from caisson.guard.grpc_stream import CallStream, Checks
from caisson.guard.held import Held
from caisson.guard.http2 import (
    DEFAULT_WINDOW,
    END_STREAM,
    FRAME_LIMIT,
    LARGEST_WINDOW,
    PREFACE,
    Frame,
    FrameReader,
    HeaderBlock,
    HeaderReader,
    PrefaceReader,
    Setting,
    Type,
    cap_settings,
    check_window_update,
    frame_head,
    goaway,
    read_settings,
    window_update,
    write_settings,
)
from caisson.guard.policy import GuardPolicy
from caisson.guard.verdict import Denied, Verdict

MOST_AT_ONCE = 64
MOST_CALLS = 4_096
HEADER_BLOCK_LIMIT = 8 << 10
HEADER_LIST_LIMIT = 16 << 10

# Control frames that a client may send at first, and more for each frame that the daemon answers with: gRPC's clients
# acknowledge data with two (PING, WINDOW_UPDATE).
_FRAMES_AT_FIRST = 512
_FRAMES_FOR_EACH = 4

_CAPS_FOR_CLIENT = {
    Setting.MAX_CONCURRENT_STREAMS: MOST_AT_ONCE,
    Setting.MAX_FRAME_SIZE: FRAME_LIMIT,
    Setting.HEADER_TABLE_SIZE: 4_096,
    Setting.MAX_HEADER_LIST_SIZE: HEADER_LIST_LIMIT,
}
_CAPS_FOR_DAEMON = {Setting.MAX_FRAME_SIZE: FRAME_LIMIT, Setting.HEADER_TABLE_SIZE: 4_096}

_ENHANCE_YOUR_CALM = 11


class Passed(NamedTuple):
    """What is to be sent now: to the daemon, and to the client of the guarded socket."""

    to_daemon: bytes = b""
    to_client: bytes = b""


@dataclass
class GrpcMediator:
    """One connection. ``policy`` gives the one that holds now, for each call anew; ``ids`` are those of the whole
    socket: the sessions that the server has seen opened; ``held`` is what all its connections hold; ``checks`` judge
    what a result is.

    After a session was opened, ``client_bytes(b"")`` gives what has waited for it.
    """

    policy: Callable[[], GuardPolicy]
    ids: BuildIds = field(default_factory=BuildIds)
    held: Held = field(default_factory=Held)
    checks: Checks = field(default_factory=Checks)
    looks_on: bool = False
    """Whether what it says to pass on is not passed on: then nothing waits for a session or a window."""

    def __post_init__(self) -> None:
        self._preface = PrefaceReader()
        self._from_client, self._from_daemon = FrameReader(), FrameReader()
        self._headers = HeaderReader(HEADER_BLOCK_LIMIT, HEADER_LIST_LIMIT)
        self._streams: dict[int, CallStream] = {}
        self._unsent: deque[CallStream] = deque()
        self._refused: set[int] = set()
        self._last = 0
        self._calls = 0
        self._held = 0
        self._credit = _FRAMES_AT_FIRST
        self._window, self._initial_window = DEFAULT_WINDOW, DEFAULT_WINDOW
        self._greeted = False
        self._daemon_headers_open = False
        self._to_daemon: list[bytes] = []
        self._to_client: list[bytes] = []
        self._own: list[bytes] = []
        """For the client, but not into the middle of a header list of the daemon's."""
        self._verdicts: list[tuple[str, Verdict]] = []
        self._waiting: list[tuple[CallStream, Judged]] = []
        self.unasked: list[Unasked] = []
        """What has to be asked for before more can be taken of the client; then ``client_bytes(b"")`` goes on."""

    def client_bytes(self, data: bytes) -> Passed:
        """Take what the client sent. Raises ``Denied``, after which nothing of the connection may go on."""
        rest = self._preface.feed(data)
        if rest and not self._greeted:
            self._greeted = True
            self._to_daemon.append(PREFACE)
        self._settle_waiting()
        for frame in self._from_client.feed(rest):
            self._client_frame(frame)
        self._send_calls()
        return self._passed()

    def server_bytes(self, data: bytes) -> Passed:
        """Take what the daemon sent; raises ``Denied`` likewise, when it is nothing that gRPC could be."""
        for frame in self._from_daemon.feed(data):
            self._daemon_frame(frame)
        self._send_calls()
        return self._passed()

    def verdicts(self) -> list[tuple[str, Verdict]]:
        """What was decided since the last time: the call's path, and the verdict."""
        taken, self._verdicts = self._verdicts, []
        return taken

    def goodbye(self, denied: Denied) -> bytes:
        """What to send to the client before the connection is closed for that reason: GOAWAY, whose text it prints."""
        return b"" if self._daemon_headers_open else goaway(_ENHANCE_YOUR_CALM, denied.reason)

    @property
    def unfinished(self) -> bool:
        """Whether the client has begun something (the connection, a header list, a message) that is not yet whole."""
        return (
            not self._greeted
            or bool(self._headers.expected_on)
            or any(stream.reader is not None for stream in self._streams.values())
        )

    def close(self) -> None:
        """Nothing more comes or goes."""
        self._give(self._held)

    def _take(self, size: int) -> None:
        self.held.take(size)
        self._held += size

    def _give(self, size: int) -> None:
        self.held.give(size)
        self._held -= size

    def _passed(self) -> Passed:
        if not self._daemon_headers_open:
            self._to_client += self._own
            self._own = []
        passed = Passed(b"".join(self._to_daemon), b"".join(self._to_client))
        self._to_daemon, self._to_client = [], []
        return passed

    def _client_frame(self, frame: Frame) -> None:
        if self._headers.expected_on or frame.type in (Type.HEADERS, Type.CONTINUATION):
            if (block := self._headers.add(frame)) is not None:
                self._open(block)
        elif frame.type is Type.DATA:
            self._client_data(frame)
        else:
            self._spend()
            self._client_control(frame)

    def _spend(self) -> None:
        self._credit -= 1
        if self._credit < 0:
            raise Denied("http2-flood", "The client sends more control frames than any call needs.")

    def _client_control(self, frame: Frame) -> None:
        if frame.type is Type.SETTINGS and not frame.is_ack:
            self._to_daemon.append(write_settings(cap_settings(read_settings(frame), _CAPS_FOR_DAEMON)))
        elif frame.type is Type.WINDOW_UPDATE and frame.stream:
            self._client_window(frame)
        elif frame.type is Type.RST_STREAM:
            self._reset(frame)
        else:
            if frame.type is Type.WINDOW_UPDATE:
                check_window_update(frame)
            self._to_daemon.append(frame.encode())

    def _client_window(self, frame: Frame) -> None:
        more, stream = check_window_update(frame), self._streams.get(frame.stream)
        self._check_known(frame)
        if stream is None:
            return
        if stream.begun:
            self._to_daemon.append(frame.encode())
        else:
            stream.client_window = min(stream.client_window + more, LARGEST_WINDOW)

    def _reset(self, frame: Frame) -> None:
        self._check_known(frame)
        self._refused.discard(frame.stream)
        stream = self._forget(frame.stream)
        if stream is not None and stream.begun:
            self._to_daemon.append(frame.encode())

    def _check_known(self, frame: Frame) -> None:
        if not frame.stream % 2 or frame.stream > self._last:
            raise Denied("http2-stream", f"A {frame.type.name} frame is for the stream {frame.stream}, which is none.")

    def _open(self, block: HeaderBlock) -> None:
        number = block.stream
        if not number % 2 or number <= self._last:
            raise Denied("http2-stream", f"The stream {number} has headers, which can't begin or end a call there.")
        self._last = number
        self._calls += 1
        if len(self._streams) + len(self._refused) >= MOST_AT_ONCE or self._calls > MOST_CALLS:
            raise Denied("http2-flood", f"There are more than {MOST_AT_ONCE} calls at once, or {MOST_CALLS} in all.")
        if not block.ends_stream:
            # Until it is known to be a call, what follows on it is nothing's.
            self._refused.add(number)
        call = read_call(block.fields)
        self._refused.discard(number)
        try:
            method = find_method(call)
        except Denied as denied:
            self._refuse(number, call, denied, ended=block.ends_stream)
            return
        if block.ends_stream:
            raise Denied("grpc-message", "A request ends without a whole message.")
        answer = MessageReader(method.answer_limit) if method.answer_limit else None
        stream = CallStream(number, call, RequestReader(method.limit), answer, window=self._initial_window)
        self._streams[number] = stream
        self._unsent.append(stream)

    def _client_data(self, frame: Frame) -> None:
        size, number = len(frame.payload), frame.stream
        if not size and not frame.ends_stream:
            self._spend()
        if size:
            # The guard has taken it; what it holds is bounded by its own limits, not by windows.
            self._own.append(window_update(0, size))
        stream = self._streams.get(number)
        if stream is None or stream.reader is None:
            self._check_known(frame)
            if number not in self._refused:
                raise Denied("http2-stream", f"The stream {number} has data, though it has ended.")
            if frame.ends_stream:
                self._refused.remove(number)
            return
        self._take(size)
        stream.reader.feed(frame.payload)
        if frame.ends_stream:
            self._judge(stream, stream.reader)
        elif size:
            self._own.append(window_update(number, size))

    def _judge(self, stream: CallStream, reader: RequestReader) -> None:
        message = reader.finish()
        self._give(len(reader))
        stream.reader = None
        try:
            judged = judge(stream.call, message, self.policy(), self.ids)
        except Denied as denied:
            self._deny(stream, denied)
            return
        written = with_prefix(judged.message)
        self._take(len(written))
        stream.unsent = written
        self._settle(stream, judged)

    def _settle_waiting(self) -> None:
        waiting, self._waiting, self.unasked = self._waiting, [], []
        for stream, judged in waiting:
            # Unless it was ended meanwhile.
            if self._streams.get(stream.number) is stream:
                self._settle(stream, judged)

    def _settle(self, stream: CallStream, judged: Judged) -> None:
        """Let it be sent, if what it hands on is allowed; all of it is judged anew once the names in it are known."""
        try:
            unasked = self.checks.judge(judged)
        except Denied as denied:
            self._give(len(stream.unsent))
            self._deny(stream, denied)
            return
        if unasked:
            self.unasked += unasked
            self._waiting.append((stream, judged))
            return
        stream.judged = judged
        self._verdicts.append((stream.call.path, Verdict("allow", "buildkit-method", "It is part of a build.")))

    def _deny(self, stream: CallStream, denied: Denied) -> None:
        del self._streams[stream.number]
        self._unsent.remove(stream)
        self._refuse(stream.number, stream.call, denied, ended=True)

    def _refuse(self, number: int, call: Call, denied: Denied, *, ended: bool) -> None:
        self._verdicts.append((call.path, denied.verdict))
        self._own.append(refusal(number, status_of(denied), denied.reason))
        if not ended:
            self._refused.add(number)

    def _send_calls(self) -> None:
        """Send what may be sent, in the order in which the streams were opened, as far as the daemon's windows go."""
        while self._unsent:
            stream = self._unsent[0]
            if stream.judged is None:
                return
            if self.looks_on:
                self._give(len(stream.unsent))
                stream.begun, stream.unsent = True, b""
                self._unsent.popleft()
                continue
            if stream.judged.session and stream.judged.session not in self.ids.sessions:
                return
            if not stream.begun:
                self._to_daemon.append(stream.begin())
            while stream.unsent and (size := min(len(stream.unsent), FRAME_LIMIT, stream.window, self._window)) > 0:
                piece, stream.unsent = stream.unsent[:size], stream.unsent[size:]
                stream.window -= size
                self._window -= size
                self._give(size)
                flags = 0 if stream.unsent else END_STREAM
                self._to_daemon.append(frame_head(size, Type.DATA, flags, stream.number) + piece)
            if stream.unsent:
                return
            self._unsent.popleft()

    def _daemon_frame(self, frame: Frame) -> None:
        if frame.type is Type.WINDOW_UPDATE:
            self._daemon_window(frame)
            return
        if frame.type is Type.SETTINGS and not frame.is_ack:
            self._daemon_settings(frame)
            return
        if frame.type in (Type.HEADERS, Type.CONTINUATION):
            self._daemon_headers_open = not frame.flags & 0x4
        if frame.type in (Type.DATA, Type.HEADERS):
            self._credit = min(self._credit + _FRAMES_FOR_EACH, 1 << 20)
        self._read_answer(frame)
        self._to_client.append(frame.encode())
        # A header list that goes on in other frames ends its stream all the same, and nothing is sent on it by then.
        if frame.ends_stream or frame.type is Type.RST_STREAM:
            self._forget(frame.stream)

    def _forget(self, number: int) -> CallStream | None:
        """Nothing more comes or goes on that stream."""
        stream = self._streams.pop(number, None)
        if stream is not None:
            self._give(stream.held)
            stream.reader, stream.answer, stream.unsent = None, None, b""
            if stream in self._unsent:
                self._unsent.remove(stream)
        return stream

    def _read_answer(self, frame: Frame) -> None:
        stream = self._streams.get(frame.stream)
        if frame.type is Type.DATA and stream is not None and stream.answer is not None:
            self._take(len(frame.payload))
            held = len(stream.answer) + len(frame.payload)
            for message in stream.answer.feed(frame.payload):
                note_answer(stream.call, message, self.ids)
            self._give(held - len(stream.answer))

    def _daemon_window(self, frame: Frame) -> None:
        more = check_window_update(frame)
        if not frame.stream:
            self._window += more
        elif frame.stream in self._streams:
            self._streams[frame.stream].window += more

    def _daemon_settings(self, frame: Frame) -> None:
        settings = read_settings(frame)
        if Setting.INITIAL_WINDOW_SIZE in settings:
            grown = settings[Setting.INITIAL_WINDOW_SIZE] - self._initial_window
            self._initial_window += grown
            for stream in self._streams.values():
                stream.window += grown
        self._to_client.append(write_settings(cap_settings(settings, _CAPS_FOR_CLIENT)))
