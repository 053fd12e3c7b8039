"""What the guard decides of one thing that a client asks for: allow or deny, by which rule, and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

_LONGEST_REASON = 2_000


@dataclass(frozen=True)
class Verdict:
    """The decision on one request, stream or file: by which rule (a short name), and why, as one sentence."""

    decision: Literal["allow", "deny"]
    rule: str
    reason: str

    @property
    def allowed(self) -> bool:
        return self.decision == "allow"


class Denied(Exception):
    """What is asked for is denied: ``rule`` says by which rule, ``reason`` why, for the one who asked.

    >>> print(Denied("build-remote", "A build from a URL is not possible here."))
    build-remote: A build from a URL is not possible here.

    What was asked for may be quoted in the reason, so that it is cut off after ``_LONGEST_REASON`` letters.
    """

    def __init__(self, rule: str, reason: str) -> None:
        if len(reason) > _LONGEST_REASON:
            reason = f"{reason[: _LONGEST_REASON - 3]}..."
        super().__init__(rule, reason)
        self.rule, self.reason = rule, reason

    def __str__(self) -> str:
        return f"{self.rule}: {self.reason}"

    @property
    def verdict(self) -> Verdict:
        return Verdict("deny", self.rule, self.reason)
