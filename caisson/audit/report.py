"""Facts in, findings out: every rule on every subject, compared with the last audit. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict

from caisson.audit.care import CARE_RULES
from caisson.audit.compare import AuditMemory, compare
from caisson.audit.container_mounts import is_builder
from caisson.audit.containers import CONTAINER_RULES
from caisson.audit.daemon import DAEMON_RULES
from caisson.audit.facts import AuditFacts, ContainerFacts
from caisson.audit.rules import SEVERITIES, Area, Finding, Found, Rule, Severity, Status, accepting, judge, missing_key
from caisson.engine import ContainerInfo
from caisson.plan import container_name

RULES: Mapping[Area, tuple[Rule[Any], ...]] = {
    "containers": CONTAINER_RULES,
    "daemon": DAEMON_RULES,
    "care": CARE_RULES,
}
"""Every rule, in the order in which findings are told."""


_ORDER = {rule.name: number for number, rule in enumerate(CONTAINER_RULES)}


class AuditReport(BaseModel):
    """One audit of one host. ``new`` and ``mended`` are keys of findings, against the audit of ``compared``.

    ``engine_problem`` says why the engine could not be asked; then no container was looked at.
    """

    model_config = ConfigDict(frozen=True)

    host: str
    at: datetime
    compared: datetime | None
    engine_problem: str
    containers: int
    findings: tuple[Finding, ...]
    new: tuple[str, ...]
    mended: tuple[str, ...]

    def counts(self) -> Counter[Status]:
        """How many findings of each status; what is accepted is among the failures."""
        return Counter(finding.status for finding in self.findings)

    def failures(self) -> list[Finding]:
        """What fails and is not accepted: the most severe first, and of those the new ones."""
        failing = [finding for finding in self.findings if finding.counts]
        return sorted(failing, key=lambda item: (-SEVERITIES.index(item.severity), item.key not in self.new))

    def accepted(self) -> list[Finding]:
        return [finding for finding in self.findings if finding.status == "fail" and finding.accepted]

    def of_status(self, status: Status) -> list[Finding]:
        return [finding for finding in self.findings if finding.status == status]

    def fails_at(self, severity: Severity) -> bool:
        """Whether anything of that severity or above fails and is not accepted."""
        least = SEVERITIES.index(severity)
        return any(SEVERITIES.index(finding.severity) >= least for finding in self.failures())

    @property
    def summary(self) -> str:
        """One sentence."""
        counts, severe = self.counts(), Counter(finding.severity for finding in self.failures())
        told = ", ".join(f"{severe[name]} {name}" for name in reversed(SEVERITIES) if severe[name]) or "none"
        compared = f"; {len(self.new)} new, {len(self.mended)} mended since the last audit" if self.compared else ""
        accepted = f", {len(self.accepted())} accepted" if self.accepted() else ""
        engine = f" The engine could not be asked: {self.engine_problem}" if self.engine_problem else ""
        return (
            f"Failures: {told}{accepted}{compared}. {self.containers} containers; {counts['pass']} passed, "
            f"{counts['unknown']} unknown, {counts['not applicable']} not applicable.{engine}"
        )


def audit(facts: AuditFacts, last: AuditMemory | None) -> AuditReport:
    """Judge everything, and compare it with the last audit. The order of the containers makes no difference."""
    entries = facts.settings.audit_accept
    findings = tuple(
        finding.model_copy(update={"accepted": accepting(entries, finding.rule, finding.subject)})
        if finding.status == "fail"
        else finding
        for finding in _findings(facts)
    )
    changes = compare(last, findings, engine_asked=not facts.engine_problem)
    return AuditReport(
        host=facts.settings.host_name,
        at=facts.now,
        compared=last.at if last is not None else None,
        engine_problem=facts.engine_problem,
        containers=len(facts.containers),
        findings=findings,
        new=tuple(sorted(changes.new)),
        mended=tuple(sorted(changes.mended)),
    )


def _findings(facts: AuditFacts) -> Iterator[Finding]:
    yield from _container_findings(facts)
    for rule in DAEMON_RULES:
        yield judge("daemon", rule, facts.daemon)
    for care_rule in CARE_RULES:
        yield judge("care", care_rule, facts.care)


def _container_findings(facts: AuditFacts) -> Iterator[Finding]:
    engine = facts.daemon.engine
    if engine is None:
        return
    found = []
    for container in sorted(facts.containers, key=lambda container: (container.name, container.id)):
        known = ContainerFacts(container, facts.settings, engine, facts.resolve)
        key_subject = _key_subject(known, container)
        for rule in CONTAINER_RULES:
            missing = missing_key(container.raw, rule.needs)
            told = replace(rule, check=_unknown(missing)) if missing else rule
            found.append(judge("containers", told, known, subject=container.name, key_subject=key_subject))
    # By rule, so that the same fix is read once for many containers.
    yield from sorted(found, key=lambda finding: _ORDER[finding.rule])


def _unknown(missing: str) -> Callable[[ContainerFacts], Found]:
    return lambda _: Found("unknown", f"the engine does not tell {missing}")


def _key_subject(facts: ContainerFacts, container: ContainerInfo) -> str:
    """Builders are one-off: what fails in each of them is one thing that fails."""
    return container_name("*") if is_builder(facts) else container.name
