"""An audit as markdown: the failures first, the new ones marked, and what passed folded away. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from caisson.audit.report import AuditReport
from caisson.audit.rules import Finding
from caisson.markdown_table import markdown_table
from caisson.untrusted import code, folded_block, markdown

_MOST_ROWS = 150


def audit_markdown(report: AuditReport) -> str:
    """The page. Names of containers and all that they say of themselves are strangers' text."""
    parts = [f"# Audit of {markdown(report.host)}", f"{report.at:%Y-%m-%d %H:%M} UTC. {markdown(report.summary, 900)}"]
    failures = report.failures()
    if failures:
        parts += ["## Failures", _table(failures, frozenset(report.new))]
    if report.mended:
        parts += ["## Mended", "\n".join(f"- {code(key)}" for key in report.mended[:_MOST_ROWS])]
    if accepted := report.accepted():
        rows = [[code(i.rule), _subject(i), markdown(i.found, 300), code(i.accepted)] for i in accepted[:_MOST_ROWS]]
        parts += ["## Accepted", markdown_table(["Rule", "Container", "Found", "Accepted by"], rows)]
    if unknown := report.of_status("unknown"):
        parts += [folded_block(f"Unknown ({len(unknown)})", list(_lines(unknown)))]
    rest = [finding for finding in report.findings if finding.status in ("pass", "not applicable")]
    parts.append(folded_block(f"Passed or not applicable ({len(rest)})", list(_counted(rest))))
    return "\n\n".join(parts) + "\n"


def _table(failures: Sequence[Finding], new: frozenset[str]) -> str:
    rows = [
        [
            "**new**" if finding.key in new else "",
            finding.severity,
            code(finding.rule),
            _subject(finding),
            markdown(finding.found, 300),
            markdown(finding.fix, 300),
            markdown(finding.source),
        ]
        for finding in failures[:_MOST_ROWS]
    ]
    if len(failures) > _MOST_ROWS:
        rows.append(["", "", f"and {len(failures) - _MOST_ROWS} more", "", "", "`caisson audit --json`", ""])
    return markdown_table(["", "Severity", "Rule", "Container", "Found", "Fix", "Source"], rows)


def _subject(finding: Finding) -> str:
    return code(finding.subject, 80) if finding.subject else ""


def _lines(findings: Sequence[Finding]) -> Iterator[str]:
    for finding in findings[:_MOST_ROWS]:
        yield f"{finding.rule}{f' on {finding.subject}' if finding.subject else ''}: {finding.found}"
    if len(findings) > _MOST_ROWS:
        yield f"and {len(findings) - _MOST_ROWS} more"


def _counted(findings: Sequence[Finding]) -> Iterator[str]:
    counts: dict[str, Counter[str]] = {}
    for finding in findings:
        counts.setdefault(finding.rule, Counter())[finding.status] += 1
    for rule, of in counts.items():
        yield f"{rule}: {', '.join(f'{number} {status}' for status, number in of.items())}"
