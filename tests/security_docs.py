"""What ``docs/security.md`` states, as its tests read it: the tests that it names, and its table of CIS numbers."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
SECURITY = ROOT / "docs/security.md"

_TEST = re.compile(r"`(tests/[a-z0-9_/]+\.py)::(test_[a-z0-9_]+)`")
_ROW = re.compile(r"^\| ([45]\.[0-9]+) \| ([A-Z /]+) \| ([a-z /–]+) \|(.*)\|$", re.MULTILINE)
_NUMBER = re.compile(r"[45]\.[0-9]+")


@dataclass(frozen=True)
class BenchRow:
    """One check of the benchmark: what its script says, by the host, what Caisson's posture may say, and why."""

    result: frozenset[str]
    posture: frozenset[str]
    reason: str


def named_tests() -> list[tuple[str, str]]:
    """Path and name of each test that is given as a proof."""
    return _TEST.findall(SECURITY.read_text())


def bench_table() -> dict[str, BenchRow]:
    """The rows by their CIS numbers; raises ``ValueError`` where one comes twice."""
    rows: dict[str, BenchRow] = {}
    for number, result, posture, reason in _ROW.findall(SECURITY.read_text()):
        if number in rows:
            raise ValueError(f"{number} comes twice")
        rows[number] = BenchRow(frozenset(result.split(" / ")), frozenset(posture.split(" / ")), reason.strip())
    return rows


def cis_numbers(source: str) -> list[str]:
    """The numbers in the source of a posture's item.

    >>> cis_numbers("CIS 5.8, 5.9"), cis_numbers("Least privilege")
    (['5.8', '5.9'], [])
    """
    return _NUMBER.findall(source) if source.startswith("CIS ") else []
