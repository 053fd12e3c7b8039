"""One call of a BuildKit client that was opened and not yet ended, on its way through the guard. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from caisson.guard.buildkit_rules import Judged
from caisson.guard.dockerfile_names import Unasked, unasked_in
from caisson.guard.grpc import Call, MessageReader, RequestReader
from caisson.guard.http2 import window_update, write_headers
from caisson.guard.llb import Steps
from caisson.guard.verdict import Denied


@dataclass(eq=False)
class CallStream:
    """``reader`` is there until the call's message is whole, ``judged`` as soon as it may be sent to the daemon.

    ``answer`` reads what the daemon answers, where that matters.
    """

    number: int
    call: Call
    reader: RequestReader | None
    answer: MessageReader | None = None
    judged: Judged | None = None
    unsent: bytes = b""
    begun: bool = False
    window: int = 0
    """How many bytes the daemon takes."""
    client_window: int = 0
    """How many bytes more the client takes, said before the daemon knew of the stream."""

    def begin(self) -> bytes:
        """What opens it on the daemon."""
        self.begun = True
        more = window_update(self.number, self.client_window) if self.client_window else b""
        return write_headers(self.number, self.call.headers(), ends_stream=False) + more

    @property
    def held(self) -> int:
        """Bytes that are kept of it."""
        return len(self.reader or b"") + len(self.unsent) + len(self.answer or b"")


def _deny_trigger(_: str) -> None:
    raise Denied("build-result", "An image has no ONBUILD triggers here.")


def deny_steps(_: Steps) -> None:
    """Where nobody judges them, no build of BuildKit's is done."""
    raise Denied("build-steps", "What the engine would do for a Dockerfile is judged by nobody here.")


@dataclass(frozen=True)
class Checks:
    """Judge what a result is: ``trigger`` each ONBUILD that the image would have, ``steps`` what has to be done for it.
    Each raises ``Denied``, or ``Unasked`` where names have to be asked for first."""

    trigger: Callable[[str], None] = _deny_trigger
    steps: Callable[[Steps], None] = deny_steps

    def judge(self, judged: Judged) -> list[Unasked]:
        """What has to be asked for before all can be judged; raises ``Denied``."""
        return unasked_in(self.trigger, judged.triggers) + unasked_in(self.steps, judged.steps)
