"""One call of a BuildKit client that was opened and not yet ended, on its way through the guard. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from caisson.guard.buildkit_rules import Judged
from caisson.guard.grpc import Call, RequestReader


@dataclass(eq=False)
class CallStream:
    """``reader`` is there until the call's message is whole, ``judged`` as soon as it may be sent to the daemon."""

    number: int
    call: Call
    reader: RequestReader | None
    judged: Judged | None = None
    unsent: bytes = b""
    begun: bool = False
    window: int = 0
    """How many bytes the daemon takes."""
    client_window: int = 0
    """How many bytes more the client takes, said before the daemon knew of the stream."""
