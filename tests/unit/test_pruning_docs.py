"""What ``docs/pruning.md`` states is so: its protections, its policies, its exit codes, its commands."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from caisson import errors
from caisson.retention.policy import CachePolicy, Retention, RetentionPolicy
from caisson.retention.policy_text import policy_from_text
from caisson.retention.protections import ANCESTOR, PROTECTIONS
from caisson.settings import Settings, load_settings
from deployments.cli import app

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs/pruning.md").read_text()
README = (ROOT / "README.md").read_text()
SETTING = re.compile(r"CAISSON_([A-Z][A-Z_]*[A-Z])\b")


def rows(heading: str) -> list[list[str]]:
    """The cells of the table that comes next after a text, without its header."""
    lines = TEXT[TEXT.index(heading) :].splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("|---"))
    table = []
    for line in lines[first + 1 :]:
        if not line.startswith("|"):
            break
        table.append([cell.strip() for cell in line.strip("|").split("|")])
    return table


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)


def test_the_table_has_every_protection_in_its_order_with_its_own_sentence() -> None:
    table = [(name.strip("`"), sentence) for name, sentence in rows("## Protections")]
    assert table[:-1] == [(protection.name, protection.sentence) for protection in PROTECTIONS]
    assert table[-1][0] == ANCESTOR


def test_which_protections_keep_every_name_is_as_it_says() -> None:
    found = re.search(r"An image kept by (.+?) can lose", TEXT, re.DOTALL)
    assert found is not None
    assert " ".join(found[1].split()) == "a pattern or as one of the newest"
    assert {protection.name for protection in PROTECTIONS if not protection.whole} == {"keep-pattern", "keep-last"}


def test_the_policy_in_toml_names_every_field_and_is_one() -> None:
    (text,) = blocks("toml")
    policy = policy_from_text(text)
    assert policy.rules[0].keep_last == 10
    written = tomllib.loads(text)["retention"]
    assert written.keys() == RetentionPolicy.model_fields.keys()
    assert written["build_cache"].keys() == CachePolicy.model_fields.keys()
    assert written["rules"][0].keys() == {"repositories", *Retention.model_fields}
    # It says in so many words that these are the defaults.
    assert (policy.build_cache, policy.otherwise) == (CachePolicy(), Retention())


def test_the_policy_in_a_variable_is_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    (value,) = re.findall(r"export CAISSON_RETENTION='(.+)'", TEXT)
    monkeypatch.setenv("CAISSON_RETENTION", value)
    assert load_settings().retention.otherwise.keep_last == 5


def test_its_exit_codes_are_those_of_the_failures() -> None:
    codes = {int(code) for row in rows("| Exit code |") for code in row[0].split(",")}
    assert codes == {0, 1, 2} | {
        kind.exit_code
        for kind in (
            *(errors.RequestInvalid, errors.SettingsInvalid, errors.LedgerUnusable, errors.PruneBusy),
            *(errors.ImageUnknown, errors.EngineUnreachable, errors.EngineRefused, errors.PruneStopped),
            errors.BuildCancelled,
        )
    }


def test_settings_that_are_named_exist() -> None:
    assert {name.lower() for name in SETTING.findall(TEXT)} <= Settings.model_fields.keys()


@pytest.mark.parametrize("line", re.findall(r"^caisson (?:prune|images|why).*", TEXT + README, re.MULTILINE))
def test_commands_that_are_shown_have_those_options(line: str) -> None:
    _, command, *words = line.partition("#")[0].split()
    shown = CliRunner().invoke(app, [command, "--help"]).stdout
    assert all(word in shown for word in words if word.startswith("-"))


def test_links_to_files_lead_somewhere() -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", TEXT):
        assert (ROOT / "docs" / target).is_file(), target
