"""The guard on ``/session``: the daemon calls the builder over it, for the context, secrets and credentials. Sans I/O.

Rules of this module:

- The daemon is HTTP/2's client here, and the builder its server, whose bytes nobody trusts. What is passed on is what
  came, for gigabytes of context go through; but each frame's head is judged before its bytes are passed, each header
  list is read, and each message's size is known.
- The builder answers streams that the daemon has opened, and opens none.
- The Dockerfile is judged as it passes (``dockerfile_stream``). If it is denied, the guard ends the call with the
  reason, in the builder's place; the daemon repeats it to whoever waits for the build. What the builder still sends of
  it is dropped, but for headers: each side's header lists depend on those before.
- The daemon calls methods of ``SESSION_METHODS`` only. They are also all that a client may announce in the headers
  ``X-Docker-Expose-Session-Grpc-Method`` of its request, besides ``ANNOUNCED_ONLY``.

Raises ``Denied``; then both sides have to be closed.
"""

from __future__ import annotations

from dataclasses import dataclass

from caisson.guard.context_stream import ContextStream
from caisson.guard.dockerfile_names import Unasked
from caisson.guard.dockerfile_stream import CONTEXT, CheckDockerfile, DockerfileStream, error_packet, read_asked
from caisson.guard.grpc import PERMISSION_DENIED, MessageSizes, refusal, with_prefix
from caisson.guard.grpc_mediator import Passed
from caisson.guard.http2 import (
    FRAME_HEAD,
    PREFACE,
    Frame,
    FrameReader,
    HeaderBlock,
    HeaderReader,
    PrefaceReader,
    Type,
    check_window_update,
    read_head,
    read_settings,
)
from caisson.guard.verdict import Denied, Verdict

DIFF_COPY = "/moby.filesync.v1.FileSync/DiffCopy"

SESSION_METHODS = {
    "/grpc.health.v1.Health/Check": "Whether the builder still answers.",
    # The Dockerfile, .dockerignore and the context.
    DIFF_COPY: "Files of the context.",
    # Who pulls a base image: the builder's own credentials, if it has any.
    "/moby.filesync.v1.Auth/Credentials": "The builder's credentials for a registry.",
    "/moby.filesync.v1.Auth/FetchToken": "The builder's credentials for a registry.",
    "/moby.filesync.v1.Auth/GetTokenAuthority": "The builder's credentials for a registry.",
    "/moby.filesync.v1.Auth/VerifyTokenAuthority": "The builder's credentials for a registry.",
    # RUN --mount=type=secret and type=ssh: the builder's own secrets and agent.
    "/moby.buildkit.secrets.v1.Secrets/GetSecret": "A secret of the builder's, for a RUN step.",
    "/moby.sshforward.v1.SSH/CheckAgent": "The builder's SSH agent, for a RUN step.",
    "/moby.sshforward.v1.SSH/ForwardAgent": "The builder's SSH agent, for a RUN step.",
}
ANNOUNCED_ONLY = frozenset({"/grpc.health.v1.Health/Watch", "/grpc.health.v1.Health/List"})
"""Come with Go's health service, and no daemon calls them."""

# BuildKit's own clients and daemons take no larger message.
MESSAGE_LIMIT = 16 << 20
# A long .dockerignore is sent as headers.
_CALL_BLOCK, _CALL_LIST = 128 << 10, 512 << 10
_ANSWER_BLOCK, _ANSWER_LIST = 8 << 10, 16 << 10
_MOST_AT_ONCE = 256
_FRAMES_AT_FIRST = 512
_FRAMES_FOR_EACH = 4


@dataclass
class _Open:
    """A call that goes on, and what reads the builder's side of it."""

    reader: MessageSizes | ContextStream | DockerfileStream
    answered: bool = False
    """Whether the builder has begun to answer."""
    refused: bool = False
    """Whether the guard has ended it."""
    asked: tuple[int, bool] | None = None
    """What was so before a frame that was fed, and waits for names: how many files had been judged, and whether a
    message had ended."""


class SessionMediator:
    """One connection, in which ``client`` is the builder and ``server`` the daemon, as on ``/grpc``.

    ``check_dockerfile`` gets each Dockerfile that the daemon is about to get, and raises ``Denied`` or ``Unasked``.
    """

    def __init__(self, check_dockerfile: CheckDockerfile) -> None:
        self._check_dockerfile = check_dockerfile
        self._preface = PrefaceReader()
        self._greeted = False
        self._from_daemon = FrameReader()
        self._from_builder = _Passer(self)
        self._calls = HeaderReader(_CALL_BLOCK, _CALL_LIST)
        self._verdicts: list[tuple[str, Verdict]] = []
        self._told: set[str] = set()
        self.open: dict[int, _Open] = {}
        """Streams that the daemon has opened and the builder has not ended, and those that were refused."""
        self.unasked: list[Unasked] = []
        """What has to be asked for before more can be taken of the builder; then ``client_bytes(b"")`` goes on."""
        self.last = 0
        self.credit = _FRAMES_AT_FIRST

    def client_bytes(self, data: bytes) -> Passed:
        """Take what the builder sent."""
        self.unasked = []
        return Passed(to_daemon=self._from_builder.feed(data))

    def server_bytes(self, data: bytes) -> Passed:
        """Take what the daemon sent."""
        rest = self._preface.feed(data)
        passed = []
        if rest and not self._greeted:
            self._greeted = True
            passed.append(PREFACE)
        for frame in self._from_daemon.feed(rest):
            self._daemon_frame(frame)
            passed.append(frame.encode())
        return Passed(to_client=b"".join(passed))

    @property
    def unfinished(self) -> bool:
        """Whether the builder has yet to begin: from then on the daemon asks, and looks whether it still answers."""
        return not self._from_builder.begun

    def close(self) -> None:
        """Nothing is kept that others could miss."""

    def goodbye(self, denied: Denied) -> bytes:  # noqa: ARG002
        """Nothing: the builder is a server here, and prints nothing of what its client says at the end."""
        return b""

    def verdicts(self) -> list[tuple[str, Verdict]]:
        """The verdicts since the last time, one for each method that the daemon has called, with its path."""
        taken, self._verdicts = self._verdicts, []
        return taken

    def _daemon_frame(self, frame: Frame) -> None:
        if self._calls.expected_on or frame.type in (Type.HEADERS, Type.CONTINUATION):
            if block := self._calls.add(frame):
                self._called(block)
        elif frame.type is Type.RST_STREAM:
            self.open.pop(frame.stream, None)
        self.credit = min(self.credit + _FRAMES_FOR_EACH, 1 << 20)

    def _called(self, block: HeaderBlock) -> None:
        stream, path = block.stream, dict(block.fields).get(b":path", b"").decode()
        if not stream % 2 or stream <= self.last or not path:
            raise Denied("http2-stream", f"The daemon opens the stream {stream}, which it can't.")
        if path not in SESSION_METHODS:
            raise Denied("session-method", f"The daemon calls {path[:200]} of the session, which no build needs.")
        self.last = stream
        self.open[stream] = _Open(self._reader(block, path))
        if len(self.open) > _MOST_AT_ONCE:
            raise Denied("http2-flood", f"The session has more than {_MOST_AT_ONCE} streams at once.")
        # Once, for the daemon looks every few seconds whether the builder is still there.
        if path not in self._told:
            self._told.add(path)
            self._verdicts.append((path, Verdict("allow", "session-method", SESSION_METHODS[path])))

    def _reader(self, block: HeaderBlock, path: str) -> MessageSizes | ContextStream | DockerfileStream:
        if path != DIFF_COPY:
            return MessageSizes(MESSAGE_LIMIT)
        asked = read_asked(block.fields)
        if asked.directory == CONTEXT:
            return ContextStream(MESSAGE_LIMIT)
        return DockerfileStream(asked, self._check_dockerfile)

    def judge(self, stream: int, call: _Open, data: bytes) -> bytes:
        """What the builder sends of the Dockerfile's directory: empty if it may pass, else what is sent instead.

        After ``Unasked`` it is given the same data once more.
        """
        assert isinstance(call.reader, DockerfileStream)
        if call.asked is not None:
            data = b""
        before, at_message = call.asked or (call.reader.judged, call.reader.at_message)
        try:
            call.reader.feed(memoryview(data))
        except Unasked:
            call.asked = before, at_message
            raise
        except Denied as denied:
            call.refused = True
            self._verdicts.append((DIFF_COPY, denied.verdict))
            if call.answered and at_message:
                # A status would reach the daemon too, but it may cancel its own work before it has looked at it.
                message = with_prefix(error_packet(denied.reason))
                return Frame(Type.DATA, 0, stream, message).encode()
            return refusal(stream, PERMISSION_DENIED, denied.reason, begun=call.answered)
        call.asked = None
        if call.reader.judged != before:
            self._verdicts.append((DIFF_COPY, Verdict("allow", "dockerfile", "The Dockerfile may be built.")))
        return b""

    def builder_ended(self, stream: int) -> None:
        # What was refused is held until the daemon ends it too, so that nothing more of it passes.
        if (call := self.open.get(stream)) is not None and not call.refused:
            del self.open[stream]


class _Passer:
    """The builder's side: frames are judged by their heads, and DATA passes in whatever pieces it comes.

    DATA of the Dockerfile's directory is taken in whole frames.
    """

    def __init__(self, session: SessionMediator) -> None:
        self._session = session
        self._answers = HeaderReader(_ANSWER_BLOCK, _ANSWER_LIST)
        self._held = b""
        self._next = self._skip = 0
        """Where the next frame begins, and how much of what comes belongs to one that was denied."""
        self.begun = False
        self._data_left = 0
        self._data_stream = 0
        self._data_ends = False

    def feed(self, data: bytes) -> bytes:
        """What may be passed on: all of it but the beginning of a head or of a frame that is taken whole, and what was
        denied."""
        if self._held:
            data, self._held = self._held + data, b""
        if self._skip:
            data, self._skip = data[self._skip :], max(0, self._skip - len(data))
        try:
            return self._feed(data)
        except Denied:
            # Whoever only looks on goes on after what is denied: with the frame that follows.
            self._skip = max(0, self._next - len(data))
            self._held = data[self._next :]
            raise

    def _feed(self, data: bytes) -> bytes:
        view, at = memoryview(data), 0
        passed, done = b"", 0
        while True:
            if self._data_left:
                piece = view[at : at + self._data_left]
                at += len(piece)
                self._data_left -= len(piece)
                self._next = at
                call = self._session.open.get(self._data_stream)
                if call is not None and not call.refused:
                    call.refused = True
                    call.reader.feed(piece)
                    call.refused = False
                if self._data_left:
                    break
                self._end_data()
            if len(data) - at < FRAME_HEAD:
                break
            self._next = at + FRAME_HEAD + int.from_bytes(data[at : at + 3], "big")
            length, kind, flags, stream = read_head(data[at : at + FRAME_HEAD])
            end = at + FRAME_HEAD + length
            if kind is not Type.DATA:
                if len(data) < end:
                    break
                self._control(Frame(kind, flags, stream, data[at + FRAME_HEAD : end]))
                at = end
            elif (call := self._dockerfile(stream)) is not None:
                if len(data) < end:
                    break
                try:
                    instead = self._dockerfile_data(Frame(kind, flags, stream, data[at + FRAME_HEAD : end]), call)
                except Unasked as unasked:
                    # It is held as if it were not yet whole, and all that follows it.
                    self._session.unasked = [unasked]
                    break
                if instead is not None:
                    passed, done = passed + data[done:at] + instead, end
                at = end
            else:
                self._begin_data(length, stream, ends=bool(flags & 1))
                at += FRAME_HEAD
        self._held = data[at:]
        if done:
            return passed + data[done:at]
        return data if at == len(data) else data[:at]

    def _dockerfile(self, stream: int) -> _Open | None:
        call = self._session.open.get(stream)
        return call if call is not None and isinstance(call.reader, DockerfileStream) else None

    def _dockerfile_data(self, frame: Frame, call: _Open) -> bytes | None:
        """What is sent in place of that frame; None if it may pass."""
        self._check_data(len(frame.payload), frame.stream, ends=frame.ends_stream)
        instead = b"" if call.refused else self._session.judge(frame.stream, call, frame.payload)
        if frame.ends_stream:
            self._session.builder_ended(frame.stream)
        return instead if call.refused else None

    def _begin_data(self, length: int, stream: int, *, ends: bool) -> None:
        self._check_data(length, stream, ends=ends)
        self._data_left, self._data_stream, self._data_ends = length, stream, ends
        if not length:
            self._end_data()

    def _check_data(self, length: int, stream: int, *, ends: bool) -> None:
        self._check_begun(settings=False)
        if self._answers.expected_on:
            raise Denied("http2-headers", "A header list is cut off.")
        self._check_stream(stream)
        if not length and not ends:
            self._spend()

    def _end_data(self) -> None:
        if self._data_ends:
            self._session.builder_ended(self._data_stream)
        self._data_ends = False

    def _control(self, frame: Frame) -> None:
        self._check_begun(settings=frame.type is Type.SETTINGS and not frame.is_ack)
        if self._answers.expected_on or frame.type in (Type.HEADERS, Type.CONTINUATION):
            self._check_stream(frame.stream)
            block = self._answers.add(frame)
            if call := self._session.open.get(frame.stream):
                call.answered = True
            if block is not None and block.ends_stream:
                self._session.builder_ended(frame.stream)
            return
        self._spend()
        if frame.stream:
            self._check_stream(frame.stream)
        if frame.type is Type.RST_STREAM:
            self._session.builder_ended(frame.stream)
        elif frame.type is Type.WINDOW_UPDATE:
            check_window_update(frame)
        elif frame.type is Type.SETTINGS:
            read_settings(frame)

    def _check_begun(self, *, settings: bool) -> None:
        if not self.begun and not settings:
            raise Denied("http2-preface", "The first frame is not SETTINGS.")
        self.begun = True

    def _check_stream(self, stream: int) -> None:
        # One that has ended may still be spoken of: the other side's word for that was perhaps on its way.
        if not stream % 2 or stream > self._session.last:
            raise Denied("http2-stream", f"The builder speaks on the stream {stream}, which the daemon has not opened.")

    def _spend(self) -> None:
        self._session.credit -= 1
        if self._session.credit < 0:
            raise Denied("http2-flood", "The builder sends more control frames than any answer needs.")
