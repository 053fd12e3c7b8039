"""docs/webhooks.md is true: its file is one, its tables have every field; and what `caisson webhooks` says."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

from caisson.errors import SettingsInvalid
from caisson.settings import Settings
from caisson.webhooks.event import Provider
from caisson.webhooks.rules import Hook, Rule, StatusTarget, read_rules
from deployments.cli import app
from deployments.gateway import gateway_environment
from deployments.webhook_rules import RulesFile, read_rules_file
from tests.webhook_deliveries import SECRET, signed_headers

DOCS = (Path(__file__).parents[2] / "docs" / "webhooks.md").read_text()
README = (Path(__file__).parents[2] / "README.md").read_text().split("### By a push")[1].split("\n### ")[0]
EXAMPLE = re.findall(r"```toml\n(.*?)```", DOCS, re.DOTALL)[0]
runner = CliRunner()


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    # The example's credential goes nowhere without it.
    monkeypatch.setenv("CAISSON_CREDENTIAL_HOSTS", '{"deploy-key": ["github.com"]}')
    path = tmp_path / "webhooks.toml"
    path.write_text(EXAMPLE)
    return path


def _table(head: str) -> set[str]:
    rows = DOCS.split(f"| Field of `[[{head}]]`")[1].split("\n\n")[0].splitlines()[2:]
    return {name for row in rows for name in re.findall(r"`([\w.]+)`", row.split("|")[1])}


def test_the_tables_have_every_field() -> None:
    hook = set(Hook.model_fields) - {"status", "rule"}
    assert _table("hook") == hook | {f"status.{name}" for name in StatusTarget.model_fields}
    assert _table("hook.rule") == set(Rule.model_fields)
    assert all(f"`{provider}`" in DOCS for provider in Provider)


def test_the_example_is_a_file_and_check_tells_what_it_builds(file: Path) -> None:
    assert len(read_rules(EXAMPLE, "docs").hook[0].rule) == 3
    done = runner.invoke(app, ["webhooks", "check", str(file)])
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert re.match(
        r"/webhooks/app +github +team/app +push to main, release/\* beyond docs/\*\*, \*\*/\*.md +"
        r"registry.example.com/team/app, pushed",
        lines[1],
    )
    assert "tag of v*" in lines[2]
    assert "CAISSON_SECRET_APP_HOOK is not set" in done.stderr
    assert "CAISSON_SECRET_APP_STATUS is not set" in done.stderr


def test_check_asks_the_hosts_settings(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CAISSON_CREDENTIAL_HOSTS")
    done = runner.invoke(app, ["webhooks", "check", str(file)])
    assert done.exit_code == SettingsInvalid.exit_code
    assert "Hook 'app', rule 1: this host would refuse its builds: git_credentials: " in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--ref", "main"], "rule 1 builds {"),
        (["--ref", "main", "--path", "docs/index.md"], "none of the 1 changed files"),
        (["--ref", "next"], "'next' is not among its branches"),
        (["--message", "x [skip ci]"], "the message has '[skip ci]'"),
        (["--event", "tag", "--ref", "v1.2.3"], "rule 2 builds {"),
        (["--event", "pull_request"], "refs/pull/1/head"),
        (["--event", "pull_request", "--fork"], "forks are not built"),
        (["--event", "pull_request", "--json"], '"builds": ['),
    ],
)
def test_what_an_event_would_build(file: Path, arguments: list[str], words: str) -> None:
    done = runner.invoke(app, ["webhooks", "test", "app", "--file", str(file), *arguments])
    assert done.exit_code == 0, done.output
    assert words in done.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["webhooks", "test", "nope", "--file", "webhooks.toml"], "there are: app"),
        (["webhooks", "test", "app", "--file", "webhooks.toml", "--ref", "a..b"], "--ref: 'a..b' is not a ref"),
        (["webhooks", "check"], "CAISSON_WEBHOOKS_FILE is not set"),
        (["webhooks", "check", "none.toml"], "none.toml can't be read: No such file"),
        (["webhooks", "check", "."], "can't be read"),
    ],
)
def test_what_can_not_be_checked_is_one_sentence(file: Path, arguments: list[str], words: str) -> None:
    done = runner.invoke(app, arguments)
    assert done.exit_code in (10, 11)
    assert words in done.stderr


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "webhooks.toml"
    for content, words in ((b"\xff", "not UTF-8"), (b"#" * ((1 << 20) + 1), "larger than 1 MiB")):
        path.write_bytes(content)
        with pytest.raises(SettingsInvalid, match=words):
            read_rules_file(path)


def test_the_signature_by_hand_is_githubs() -> None:
    command = next(line for line in DOCS.splitlines() if line.startswith("SIGNATURE="))
    script = f'BODY="Hello, World!"; {command}; printf "sha256=%s" "$SIGNATURE"'
    environment = {"CAISSON_SECRET_APP_HOOK": SECRET, "PATH": "/usr/bin:/bin"}
    printed = subprocess.run(["sh", "-c", script], env=environment, check=True, capture_output=True, text=True).stdout
    assert printed == signed_headers(Provider.GITHUB, "push", b"Hello, World!")["x-hub-signature-256"]


def test_the_api_gets_the_hooks_secrets_and_no_others(file: Path) -> None:
    settings = Settings(_env_file=None, webhooks_file=str(file), state_dir=file.parent)
    inherited = {
        "CAISSON_SECRET_APP_HOOK": "hook",
        "CAISSON_SECRET_APP_STATUS": "status",
        "CAISSON_SECRET_DEPLOY_KEY": "only for builds",
        "CAISSON_REGISTRY_PASSWORD": "only for builds",
    }
    found = gateway_environment(settings, inherited)
    secrets = {name: value for name, value in found.items() if name in inherited}
    assert secrets == {"CAISSON_SECRET_APP_HOOK": "hook", "CAISSON_SECRET_APP_STATUS": "status"}
    file.write_text("[[hook")
    assert not set(gateway_environment(settings, inherited)) & set(inherited)


def test_without_a_file_there_are_no_webhooks(tmp_path: Path) -> None:
    assert RulesFile(Settings(_env_file=None, state_dir=tmp_path)).current().hook == ()


def test_the_readmes_commands_say_what_its_file_builds(file: Path) -> None:
    file.write_text(re.findall(r"```toml\n(.*?)```", README, re.DOTALL)[0])
    commands = [line.split()[1:] for line in README.splitlines() if line.startswith("caisson ")]
    check, test = (runner.invoke(app, command) for command in commands)
    assert (check.exit_code, test.exit_code) == (0, 0), check.output + test.output
    assert "push to main beyond docs/**" in check.stdout
    assert "rule 1: none of the 1 changed files is among its paths" in test.stdout
