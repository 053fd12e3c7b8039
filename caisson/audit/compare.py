"""An audit against the last one: what is new, what was mended, what is still to be told. Pure.

What can't be known this time is neither: it stays what it was until it can be asked again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from pydantic import BaseModel, ConfigDict

from caisson.audit.rules import Finding


class AuditMemory(BaseModel):
    """What is remembered from one audit to the next: the keys of what failed, and of what was told as an event."""

    model_config = ConfigDict(frozen=True)

    at: datetime
    failing: tuple[str, ...] = ()
    told: tuple[str, ...] = ()


@dataclass(frozen=True)
class Changes:
    """Keys that fail now and did not, keys that failed and no longer do, and those that fail or may still fail."""

    new: frozenset[str]
    mended: frozenset[str]
    standing: frozenset[str]


def compare(last: AuditMemory | None, findings: Sequence[Finding], *, engine_asked: bool) -> Changes:
    """What has changed since the last audit; against none, nothing is new and nothing mended."""
    failing = frozenset(finding.key for finding in findings if finding.counts)
    if last is None:
        return Changes(frozenset(), frozenset(), failing)
    before = frozenset(last.failing)
    unknown = {finding.key for finding in findings if finding.status == "unknown"}
    accepted = {finding.key for finding in findings if finding.accepted}
    # Keys of containers have their name behind an @.
    not_asked = {key for key in before if not engine_asked and "@" in key}
    carried = (before & (unknown | not_asked)) - failing
    return Changes(failing - before, before - failing - carried - accepted, failing | carried)


def to_tell(last: AuditMemory | None, findings: Sequence[Finding]) -> list[Finding]:
    """The failures of high severity that no event has told yet."""
    told = frozenset(last.told) if last is not None else frozenset()
    return [
        finding for finding in findings if finding.counts and finding.severity == "high" and finding.key not in told
    ]


def remember(last: AuditMemory | None, changes: Changes, at: datetime, *, told: Sequence[Finding] = ()) -> AuditMemory:
    """What the next audit compares itself with. What was mended is told anew when it comes back."""
    known = {key for key in (last.told if last is not None else ()) if key in changes.standing}
    known |= {finding.key for finding in told}
    return AuditMemory(at=at, failing=tuple(sorted(changes.standing)), told=tuple(sorted(known)))
