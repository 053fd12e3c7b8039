"""What the documents say of security is there: the tests that prove it, the settings, the benchmark's numbers."""

from __future__ import annotations

import ast
import functools
import re
from pathlib import Path

import prefect.settings
import pytest

from caisson.posture import CHECKS, Item
from caisson.prune_files import MOST_BYTES
from caisson.settings import Settings
from deployments.run_outputs import KEEP_OUTPUTS
from deployments.webhook_store import KEEP_BUILDS, KEEP_DELIVERIES
from tasks.forget_runs import KEEP, KEEP_FAILED
from tests.security_docs import ROOT, SECURITY, bench_table, cis_numbers, named_tests

DOCUMENTS = (SECURITY, ROOT / "README.md", *sorted((ROOT / "docs/decisions").glob("*.md")))


@functools.cache
def functions_of(path: str) -> frozenset[str]:
    """Names of a test file's own functions, as pytest finds them."""
    return frozenset(
        node.name for node in ast.parse((ROOT / path).read_text()).body if isinstance(node, ast.FunctionDef)
    )


@pytest.mark.parametrize(("path", "name"), named_tests())
def test_a_test_that_is_given_as_a_proof_exists(path: str, name: str) -> None:
    assert name in functions_of(path)


def test_every_mention_of_a_test_is_read() -> None:
    assert len(named_tests()) == SECURITY.read_text().count("tests/") >= 25


def test_the_table_has_each_check_of_the_section_and_a_reason_for_what_is_no_pass() -> None:
    table = bench_table()
    assert table.keys() == {"4.1", "4.10", *(f"5.{number}" for number in range(1, 33))}
    assert [number for number, row in table.items() if row.result != {"PASS"} and not row.reason] == []


@pytest.mark.parametrize("item", CHECKS, ids=lambda item: item.name)
def test_each_cis_number_of_the_posture_is_in_the_table(item: Item) -> None:
    for number in cis_numbers(item.source):
        assert bench_table()[number].posture <= {"pass", "fail", "not applicable"}


def test_the_table_claims_no_posture_that_is_not_checked() -> None:
    checked = {number for item in CHECKS for number in cis_numbers(item.source)}
    assert {number for number, row in bench_table().items() if "–" not in row.posture} == checked


def test_things_are_kept_as_long_as_the_document_says() -> None:
    vacuum = prefect.settings.get_current_settings().server.services.db_vacuum
    text = SECURITY.read_text()
    for said in (
        f"kept readable for {vacuum.retention_period.days} days**",
        f"| {vacuum.retention_period.days} days after its end; the minutely looks at the disk one day, two where",
        f"the newest {KEEP_OUTPUTS} runs that died",
        f"the newest prunes up to {MOST_BYTES >> 20} MiB",
        f"| {KEEP_BUILDS.days} days, if all is told by then; {KEEP_DELIVERIES.days} days |",
    ):
        assert said in text
    assert (KEEP.days, KEEP_FAILED.days) == (1, 2)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_settings_that_are_named_exist(document: Path) -> None:
    names = set(re.findall(r"CAISSON_([A-Z][A-Z_]*[A-Z])\b", document.read_text()))
    # Secrets are named so too, and are no settings.
    assert {name for name in names if not name.startswith("SECRET_")} <= {
        name.upper() for name in Settings.model_fields
    }


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_to_files_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", document.read_text()):
        assert (document.parent / target).is_file(), target
