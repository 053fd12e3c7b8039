"""The guard on ``/session``: the daemon calls the builder over it, for the context, secrets and credentials. Sans I/O.

Rules of this module:

- The daemon is HTTP/2's client here, and the builder its server, whose bytes nobody trusts. What is passed on is what
  came, for gigabytes of context go through; but each frame's head is judged before its bytes are passed, each header
  list is read, and each message's size is known.
- The builder answers streams that the daemon has opened, and opens none.
- The daemon calls methods of ``SESSION_METHODS`` only. They are also all that a client may announce in the headers
  ``X-Docker-Expose-Session-Grpc-Method`` of its request, besides ``ANNOUNCED_ONLY``.

Raises ``Denied``; then both sides have to be closed.
"""

from __future__ import annotations

from caisson.guard.grpc import MessageSizes
from caisson.guard.grpc_mediator import Passed
from caisson.guard.http2 import (
    FRAME_HEAD,
    PREFACE,
    Frame,
    FrameReader,
    HeaderReader,
    PrefaceReader,
    Type,
    check_window_update,
    read_head,
    read_settings,
)
from caisson.guard.verdict import Denied, Verdict

SESSION_METHODS = {
    "/grpc.health.v1.Health/Check": "Whether the builder still answers.",
    # The Dockerfile, .dockerignore and the context.
    "/moby.filesync.v1.FileSync/DiffCopy": "Files of the context.",
    "/moby.filesync.v1.FileSync/TarStream": "Files of the context.",
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


class SessionMediator:
    """One connection, in which ``client`` is the builder and ``server`` the daemon, as on ``/grpc``."""

    def __init__(self) -> None:
        self._preface = PrefaceReader()
        self._greeted = False
        self._from_daemon = FrameReader()
        self._from_builder = _Passer(self)
        self._calls = HeaderReader(_CALL_BLOCK, _CALL_LIST)
        self._verdicts: list[tuple[str, Verdict]] = []
        self._told: set[str] = set()
        self.open: dict[int, MessageSizes] = {}
        """Streams that the daemon has opened and the builder has not ended, with the messages of the builder's."""
        self.last = 0
        self.credit = _FRAMES_AT_FIRST

    def client_bytes(self, data: bytes) -> Passed:
        """Take what the builder sent."""
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
                self._called(block.stream, dict(block.fields).get(b":path", b"").decode())
        elif frame.type is Type.RST_STREAM:
            self.open.pop(frame.stream, None)
        self.credit = min(self.credit + _FRAMES_FOR_EACH, 1 << 20)

    def _called(self, stream: int, path: str) -> None:
        if not stream % 2 or stream <= self.last or not path:
            raise Denied("http2-stream", f"The daemon opens the stream {stream}, which it can't.")
        if path not in SESSION_METHODS:
            raise Denied("session-method", f"The daemon calls {path[:200]} of the session, which no build needs.")
        self.last = stream
        self.open[stream] = MessageSizes(MESSAGE_LIMIT)
        if len(self.open) > _MOST_AT_ONCE:
            raise Denied("http2-flood", f"The session has more than {_MOST_AT_ONCE} streams at once.")
        # Once, for the daemon looks every few seconds whether the builder is still there.
        if path not in self._told:
            self._told.add(path)
            self._verdicts.append((path, Verdict("allow", "session-method", SESSION_METHODS[path])))


class _Passer:
    """The builder's side: frames are judged by their heads, and DATA passes in whatever pieces it comes."""

    def __init__(self, session: SessionMediator) -> None:
        self._session = session
        self._answers = HeaderReader(_ANSWER_BLOCK, _ANSWER_LIST)
        self._held = b""
        self._begun = False
        self._data_left = 0
        self._data_stream = 0
        self._data_ends = False

    def feed(self, data: bytes) -> bytes:
        """What may be passed on: all of it but the beginning of a head or of a control frame."""
        if self._held:
            data, self._held = self._held + data, b""
        view, at = memoryview(data), 0
        while True:
            if self._data_left:
                piece = view[at : at + self._data_left]
                at += len(piece)
                self._data_left -= len(piece)
                sizes = self._session.open.get(self._data_stream)
                if sizes is not None:
                    sizes.feed(piece)
                if self._data_left:
                    break
                self._end_data()
            if len(data) - at < FRAME_HEAD:
                break
            length, kind, flags, stream = read_head(data[at : at + FRAME_HEAD])
            if kind is Type.DATA:
                self._begin_data(length, stream, ends=bool(flags & 1))
                at += FRAME_HEAD
            elif len(data) - at < FRAME_HEAD + length:
                break
            else:
                self._control(Frame(kind, flags, stream, data[at + FRAME_HEAD : at + FRAME_HEAD + length]))
                at += FRAME_HEAD + length
        self._held = data[at:]
        return data if at == len(data) else data[:at]

    def _begin_data(self, length: int, stream: int, *, ends: bool) -> None:
        self._check_begun(settings=False)
        if self._answers.expected_on:
            raise Denied("http2-headers", "A header list is cut off.")
        self._check_stream(stream)
        if not length and not ends:
            self._spend()
        self._data_left, self._data_stream, self._data_ends = length, stream, ends
        if not length:
            self._end_data()

    def _end_data(self) -> None:
        if self._data_ends:
            self._session.open.pop(self._data_stream, None)
        self._data_ends = False

    def _control(self, frame: Frame) -> None:
        self._check_begun(settings=frame.type is Type.SETTINGS and not frame.is_ack)
        if self._answers.expected_on or frame.type in (Type.HEADERS, Type.CONTINUATION):
            self._check_stream(frame.stream)
            block = self._answers.add(frame)
            if block is not None and block.ends_stream:
                self._session.open.pop(frame.stream, None)
            return
        self._spend()
        if frame.stream:
            self._check_stream(frame.stream)
        if frame.type is Type.RST_STREAM:
            self._session.open.pop(frame.stream, None)
        elif frame.type is Type.WINDOW_UPDATE:
            check_window_update(frame)
        elif frame.type is Type.SETTINGS:
            read_settings(frame)

    def _check_begun(self, *, settings: bool) -> None:
        if not self._begun and not settings:
            raise Denied("http2-preface", "The first frame is not SETTINGS.")
        self._begun = True

    def _check_stream(self, stream: int) -> None:
        # One that has ended may still be spoken of: the other side's word for that was perhaps on its way.
        if not stream % 2 or stream > self._session.last:
            raise Denied("http2-stream", f"The builder speaks on the stream {stream}, which the daemon has not opened.")

    def _spend(self) -> None:
        self._session.credit -= 1
        if self._session.credit < 0:
            raise Denied("http2-flood", "The builder sends more control frames than any answer needs.")
