"""What a rule of the audit is, and what it finds. Values and one function. Pure.

Rules of this package:

- What could not be read is ``unknown``. Only what was read and is as it should be is ``pass``.
- A rule is ordered data: a name for machines, a title that is to be true, how severe its breach is, where the rule
  comes from, the fix, and a function that says what it found.
- ``not applicable`` is what the host lacks altogether; the finding says so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Generic, Literal, NamedTuple, TypeVar

from pydantic import BaseModel, ConfigDict

Status = Literal["pass", "fail", "not applicable", "unknown"]
Severity = Literal["low", "medium", "high"]
SEVERITIES: tuple[Severity, ...] = ("low", "medium", "high")
"""The least severe first."""
Area = Literal["containers", "daemon", "care"]

F = TypeVar("F")


class Found(NamedTuple):
    """What one rule found; ``what`` begins in lower case and has no full stop."""

    status: Status
    what: str


def when(good: bool, found: str, otherwise: str) -> Found:
    """``pass`` with the one text or ``fail`` with the other."""
    return Found("pass", found) if good else Found("fail", otherwise)


@dataclass(frozen=True)
class Rule(Generic[F]):
    """One rule over facts of one kind; ``title`` is a statement that is to be true.

    ``needs`` are the keys, with dots between, that the facts have to have at all: without one the rule is ``unknown``.
    """

    name: str
    title: str
    severity: Severity
    source: str
    fix: str
    check: Callable[[F], Found] = field(repr=False)
    needs: tuple[str, ...] = ()


class Finding(BaseModel):
    """What one rule found on one subject: a container's name, or empty for the host itself.

    ``key`` is the same from run to run, for one-off builders too. ``accepted`` is the entry of CAISSON_AUDIT_ACCEPT
    that accepts it; a failure stays one, and is shown.
    """

    model_config = ConfigDict(frozen=True)

    area: Area
    rule: str
    title: str
    severity: Severity
    status: Status
    found: str
    fix: str
    source: str
    subject: str = ""
    key: str
    accepted: str = ""

    @property
    def counts(self) -> bool:
        """Whether it is a failure that nobody has accepted."""
        return self.status == "fail" and not self.accepted


def judge(area: Area, rule: Rule[F], facts: F, *, subject: str = "", key_subject: str = "") -> Finding:
    """What the rule finds in the facts."""
    found = rule.check(facts)
    shown = key_subject or subject
    return Finding(
        area=area,
        rule=rule.name,
        title=rule.title,
        severity=rule.severity,
        status=found.status,
        found=found.what,
        fix=rule.fix if found.status in ("fail", "unknown") else "",
        source=rule.source,
        subject=subject,
        key=f"{rule.name}@{shown}" if shown else rule.name,
    )


def missing_key(values: Mapping[str, Any], needs: tuple[str, ...]) -> str:
    """The first of the dotted keys that is not there; empty where all are.

    >>> missing_key({"State": {"Pid": 1}}, ("State.Pid", "State.Restarting"))
    'State.Restarting'
    """
    for need in needs:
        inner: Any = values
        for part in need.split("."):
            if not isinstance(inner, Mapping) or part not in inner:
                return need
            inner = inner[part]
    return ""


def accepting(entries: tuple[str, ...], rule: str, subject: str) -> str:
    """The entry, ``rule`` or ``rule@container-name-pattern``, that accepts such a finding; empty where none does.

    >>> accepting(("memory@web-*", "icc"), "memory", "web-1"), accepting(("memory@web-*",), "memory", "db")
    ('memory@web-*', '')
    """
    for entry in entries:
        name, on, pattern = entry.partition("@")
        if name == rule and (not on or fnmatchcase(subject, pattern)):
            return entry
    return ""
