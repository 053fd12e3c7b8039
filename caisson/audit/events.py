"""The event of an audit: failures of high severity that nobody was told of. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from caisson.audit.rules import Finding

FINDING_EVENT = "caisson.audit.finding"
_MOST = 20


@dataclass(frozen=True)
class AuditEvent:
    """One event; ``payload`` has ``message`` for people and the findings for machines, all JSON values."""

    message: str
    payload: Mapping[str, Any] = field(default_factory=dict)
    name: str = FINDING_EVENT
    path: str = ""


def finding_events(host: str, findings: Sequence[Finding]) -> list[AuditEvent]:
    """One event for all of them, so that a first audit is one message and not fifty; none where there are none."""
    if not findings:
        return []
    first = findings[0]
    on = f" on {first.subject}" if first.subject else ""
    more = f", and {len(findings) - 1} more" if len(findings) > 1 else ""
    message = f"The audit of {host} has found what is severe: {first.rule}{on}: {first.found}{more}. {first.fix}"
    told = [
        {"rule": finding.rule, "container": finding.subject, "found": finding.found, "fix": finding.fix}
        for finding in findings[:_MOST]
    ]
    payload = {"host": host, "count": len(findings), "findings": told, "message": message}
    return [AuditEvent(message, payload)]
